// Package bucket keeps immutable objects under names: archives, and the fragments of journals. One small interface stands
// before a directory (OpenDir, OpenTree), memory for tests (NewMem), and object stores (package cloud). All are held to the
// tests of package buckettest.
//
// An object appears whole and durable when its Writer commits, or not at all. A key that exists is replaced atomically.
//
// Keys have the form of relative paths: segments of at most 255 bytes, divided by '/'. Rules that keep them safe as file names
// everywhere are in ValidateKey.
//
// Errors have kinds (package fault): NotFound is a missing object, and never a bucket that cannot be reached; Denied is a lack
// of permission; Invalid is a key that is none. ErrMissing is in the chain when there is no such bucket. Everything is safe for concurrent use, except a Writer and a reader, which serve one goroutine each.
package bucket

import (
	"bytes"
	"context"
	"crypto/md5"
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
	// Upload writes an object whose content is at hand, as large as the store allows, without holding it in memory. It
	// returns when the object is durable and visible.
	Upload(ctx context.Context, key string, object Object) error
	// Get reads length bytes from offset; a negative length reads to the end. What lies beyond the end is left out. A
	// failure in the middle is an error of Read, never an early end.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Info, error)
	// List gives the objects whose keys begin with prefix, in the byte order of the keys. It ends behind the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes an object. That there is none is no error.
	Delete(ctx context.Context, key string) error
	// SignedURL returns a URL from which anybody can get the object for a time. The error is Unimplemented where that
	// is not possible.
	SignedURL(ctx context.Context, key string, ttl time.Duration) (string, error)
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

// Object is an object to be uploaded.
type Object struct {
	Content io.ReaderAt
	Size    int64
	// Encoding is the content's encoding in the sense of HTTP, for stores that take it off for those who do not know it.
	Encoding string
	// MD5 is the sum of the content, or nil. Content that arrives otherwise is refused; the error is Transient.
	MD5 []byte
	// IfAbsent refuses to replace an object: the error is of kind Exists. Stores that cannot promise that do their best.
	IfAbsent bool
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
	// MD5 is the sum of the content, where the store tells.
	MD5 []byte
}

// ErrMissing is in the chain of an error if the bucket itself does not exist.
var ErrMissing = errors.New("no such bucket")

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

// upload writes an object from where it is, and verifies it.
func upload(ctx context.Context, b Bucket, key string, o Object) error {
	w, err := b.Create(ctx, key)
	if err != nil {
		return err
	}
	defer w.Abort()
	out, sum := io.Writer(w), md5.New()
	if o.MD5 != nil {
		out = io.MultiWriter(w, sum)
	}
	if _, err := io.Copy(out, io.NewSectionReader(o.Content, 0, o.Size)); err != nil {
		return fmt.Errorf("bucket: upload %s: %w", key, err)
	}
	if got := sum.Sum(nil); o.MD5 != nil && !bytes.Equal(got, o.MD5) {
		return fault.New(fault.Transient, "bucket: upload %s: the content has the sum %x instead of %x", key, got, o.MD5)
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
