// Package bucket keeps immutable objects under names: archives, and the fragments of journals. One small interface stands
// before a directory (OpenDir), memory for tests (NewMem), and object stores. All are held to the tests of package buckettest.
//
// An object appears whole and durable when its Writer commits, or not at all. A key that exists is replaced atomically.
//
// Keys have the form of relative paths: segments of at most 255 bytes, divided by '/'. Rules that keep them safe as file names
// everywhere are in ValidateKey.
//
// Errors have kinds (package fault): NotFound is a missing object, and never a bucket that cannot be reached; Invalid is a
// key that is none. Everything is safe for concurrent use, except a Writer and a reader, which serve one goroutine each.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Bucket is a place for objects.
type Bucket interface {
	// Create begins to write an object. The caller ends with Commit or Abort.
	Create(ctx context.Context, key string) (Writer, error)
	// Get reads length bytes from offset; a negative length reads to the end. What lies beyond the end is left out. A
	// failure in the middle is an error of Read, never an early end.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Info, error)
	// List gives the objects whose keys begin with prefix, in the byte order of the keys. It ends behind the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes an object. That there is none is no error.
	Delete(ctx context.Context, key string) error
	// URL names the object for the records of others. It holds no secret and does not depend on where the bucket happens
	// to lie today, when that can change.
	URL(key string) string
	// KeyOf is the inverse of URL; the URL of another bucket is Invalid.
	KeyOf(url string) (string, error)
	// Close releases the bucket.
	Close() error
}

// Writer writes one object. The object does not exist before Commit.
type Writer interface {
	io.Writer
	// Commit makes the object durable and visible. When it fails, the object may exist all the same. It may be called once.
	Commit() error
	// Abort leaves nothing behind. After Commit it does nothing, so it may be deferred.
	Abort()
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Put writes the whole of r as an object.
func Put(ctx context.Context, b Bucket, key string, r io.Reader) error {
	w, err := b.Create(ctx, key)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("bucket: write %s: %w", key, err)
	}
	return w.Commit()
}

// ReadFull reads exactly len(p) bytes from offset. An object that is too short is DataLoss.
func ReadFull(ctx context.Context, b Bucket, key string, offset int64, p []byte) error {
	r, err := b.Get(ctx, key, offset, int64(len(p)))
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.DataLoss, "bucket: read %s: ends at byte %d; want %d bytes from %d", key, offset+int64(n), len(p), offset)
	}
	if err != nil {
		return fmt.Errorf("bucket: read %s: %w", key, err)
	}
	return nil
}

const (
	maxKey     = 1024
	maxSegment = 255
)

// ValidateKey refuses what is no key: empty segments, "." and "..", segments that begin with ".partial-" or end with '.' or
// a space, control characters, and the characters that some file system does not take.
func ValidateKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fault.New(fault.Invalid, "bucket: a key has 1 to %d bytes, not %d", maxKey, len(key))
	}
	for segment := range strings.SplitSeq(key, "/") {
		if len(segment) == 0 || len(segment) > maxSegment {
			return fault.New(fault.Invalid, "bucket: key %q: a segment has 1 to %d bytes, not %d", key, maxSegment, len(segment))
		}
		if strings.HasPrefix(segment, partialPrefix) || segment == markerName ||
			strings.HasSuffix(segment, ".") || strings.HasSuffix(segment, " ") {
			return fault.New(fault.Invalid, "bucket: key %q: segment %q is reserved", key, segment)
		}
	}
	for i := 0; i < len(key); i++ {
		if c := key[i]; c < 0x20 || c == 0x7f || strings.IndexByte(`\:*?"<>|`, c) >= 0 {
			return fault.New(fault.Invalid, "bucket: key %q: character %q at byte %d is not allowed", key, c, i)
		}
	}
	return nil
}

// makeURL and splitURL serve buckets whose URLs are scheme://name/key.
func makeURL(scheme, name, key string) string {
	return (&url.URL{Scheme: scheme, Host: name, Path: "/" + key}).String()
}

func splitURL(scheme, name, s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fault.New(fault.Invalid, "bucket: %w", err)
	}
	if u.Scheme != scheme || u.Host != name || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.New(fault.Invalid, "bucket: %s lies in another bucket than %s://%s", s, scheme, name)
	}
	key := strings.TrimPrefix(u.Path, "/")
	return key, ValidateKey(key)
}
