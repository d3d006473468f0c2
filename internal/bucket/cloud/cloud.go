// Package cloud opens buckets of object stores: S3 and what is compatible with it, Google Cloud Storage, and Azure Blob Storage.
//
// Credentials come from where the provider's own tools take them: the environment, files in the home directory, the machine.
// Objects above partSize are uploaded in parts. Nothing is held in memory that lies in a file: what is uploaded is sent from
// where it is (Bucket.Upload), and what is written (Bucket.Create) goes to a temporary file first, unless it is small.
//
// Variables of the environment lead to other servers than the providers' own: AWS_ENDPOINT_URL (or S3.Endpoint),
// STORAGE_EMULATOR_HOST for Google Cloud Storage, which then gets no credentials, and AZURE_STORAGE_SERVICE_ENDPOINT.
//
// The buckets are safe for concurrent use, as package bucket says.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// partSize is the most that goes to a provider in one request, and the size of the parts of larger objects.
	partSize = 64 << 20
	// parts is how many parts of an object are under way at once.
	parts = 2
	// page is how many objects a listing asks for at once.
	page = 1000
	// signLimit is the longest time that a signed URL is good for, at any provider.
	signLimit = 7 * 24 * time.Hour

	contentType = "application/octet-stream"
)

// provider is a bucket at one provider. Its errors are explained by explain. Keys are valid.
type provider interface {
	upload(ctx context.Context, key string, o bucket.Object) error
	// get returns what lies from offset on, at most length bytes. A negative length has no limit; it is not zero.
	get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	stat(ctx context.Context, key string) (bucket.Info, error)
	// list returns at most so many objects, and the mark of where to go on, which is empty at the end.
	list(ctx context.Context, prefix, mark string, most int) (objects []bucket.Info, next string, err error)
	remove(ctx context.Context, key string) error
	sign(ctx context.Context, key string, ttl time.Duration) (string, error)
	explain(err error) problem
	close()
}

// problem is what an error of a provider says.
type problem int

const (
	failed  problem = iota // and may succeed later
	absent                 // there is no such object, or maybe no such bucket
	missing                // there is no such bucket
	denied                 // for lack of permission
	exists                 // already, what was not to be replaced
	beyond                 // the end of the object lies what was asked for
	unknown                // to the provider is what it was asked to do
)

// object is a bucket of a provider.
type object struct {
	provider
	// base is the URL of the bucket, without a slash at its end.
	base string
}

var _ bucket.Bucket = (*object)(nil)

// fail names the operation and gives the error its kind.
func (b *object) fail(ctx context.Context, op, key string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	kind := fault.Transient
	switch b.explain(err) {
	case missing:
		return fault.New(fault.Transient, "bucket: %s %s: %w: %w", op, key, bucket.ErrMissing, err)
	case absent:
		kind = fault.NotFound
	case denied:
		kind = fault.Denied
	case exists:
		kind = fault.Exists
	case unknown:
		kind = fault.Unimplemented
	}
	return fault.New(kind, "bucket: %s %s: %w", op, key, err)
}

// lookFail is fail for an object that was not found, which providers do not always tell from a bucket that is not there.
func (b *object) lookFail(ctx context.Context, op, key string, err error) error {
	if b.explain(err) == absent {
		if _, _, listErr := b.list(ctx, key, "", 1); listErr != nil {
			return b.bucketFail(ctx, op, key, listErr)
		}
	}
	return b.fail(ctx, op, key, err)
}

// bucketFail is fail for an operation that finds no bucket, if it finds anything missing.
func (b *object) bucketFail(ctx context.Context, op, key string, err error) error {
	if b.explain(err) == absent {
		err = fmt.Errorf("%w: %w", bucket.ErrMissing, err)
		return fault.New(fault.Transient, "bucket: %s %s: %w", op, key, err)
	}
	return b.fail(ctx, op, key, err)
}

// Upload implements bucket.Bucket.
func (b *object) Upload(ctx context.Context, key string, o bucket.Object) error {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return err
	}
	there := fault.New(fault.Exists, "bucket: upload %s: there is such an object", key)
	if o.IfAbsent && o.Size > partSize {
		// Providers look at the end of an upload in parts.
		if _, err := b.Stat(ctx, key); err == nil {
			return there
		}
	}
	err := b.upload(ctx, key, o)
	if err != nil && o.IfAbsent && b.explain(err) == unknown {
		// A server that speaks the protocol and does not know conditions.
		if _, err := b.Stat(ctx, key); err == nil {
			return there
		}
		o.IfAbsent = false
		err = b.upload(ctx, key, o)
	}
	if err != nil {
		return b.bucketFail(ctx, "upload", key, err)
	}
	return nil
}

// Get implements bucket.Bucket.
func (b *object) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fault.New(fault.Invalid, "bucket: get %s: offset %d", key, offset)
	}
	nothing := io.NopCloser(strings.NewReader(""))
	if length == 0 {
		_, err := b.Stat(ctx, key)
		return nothing, err
	}
	r, err := b.get(ctx, key, offset, length)
	if err != nil && b.explain(err) == beyond {
		return nothing, nil
	}
	if err != nil {
		return nil, b.lookFail(ctx, "get", key, err)
	}
	return &reader{ctx: ctx, bucket: b, key: key, r: r}, nil
}

type reader struct {
	ctx    context.Context // of Get: the reader lives within it
	bucket *object
	key    string
	r      io.ReadCloser
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.bucket.fail(r.ctx, "read", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.r.Close() }

// Stat implements bucket.Bucket.
func (b *object) Stat(ctx context.Context, key string) (bucket.Info, error) {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return bucket.Info{}, err
	}
	info, err := b.stat(ctx, key)
	if err != nil {
		return bucket.Info{}, b.lookFail(ctx, "stat", key, err)
	}
	info.Key = key
	return info, nil
}

// List implements bucket.Bucket.
func (b *object) List(ctx context.Context, prefix string) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		for mark := ""; ; {
			objects, next, err := b.list(ctx, prefix, mark, page)
			if err != nil {
				yield(bucket.Info{}, b.bucketFail(ctx, "list", prefix, err))
				return
			}
			for _, o := range objects {
				if strings.HasSuffix(o.Key, "/") {
					continue // a console's idea of a directory
				}
				if !yield(o, nil) {
					return
				}
			}
			if mark = next; mark == "" {
				return
			}
		}
	}
}

// Delete implements bucket.Bucket.
func (b *object) Delete(ctx context.Context, key string) error {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return err
	}
	err := b.remove(ctx, key)
	if err == nil {
		return nil
	}
	if err = b.lookFail(ctx, "delete", key, err); fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// SignedURL implements bucket.Bucket. The URL is good for a week at most.
func (b *object) SignedURL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return "", err
	}
	u, err := b.sign(ctx, key, min(ttl, signLimit))
	if err != nil {
		return "", b.fail(ctx, "sign a URL of", key, err)
	}
	return u, nil
}

// URL implements bucket.Bucket.
func (b *object) URL(key string) string { return b.base + (&url.URL{Path: "/" + key}).String() }

// KeyOf implements bucket.Bucket.
func (b *object) KeyOf(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fault.New(fault.Invalid, "bucket: %w", err)
	}
	base, err := url.Parse(b.base)
	if err != nil {
		return "", fault.New(fault.Invalid, "bucket: %w", err)
	}
	key, ok := strings.CutPrefix(u.Path, base.Path+"/")
	if !ok || u.Scheme != base.Scheme || u.Host != base.Host || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.New(fault.Invalid, "bucket: %s lies in another bucket than %s", s, b.base)
	}
	return key, bucket.ValidateKey(key)
}

// Close implements bucket.Bucket.
func (b *object) Close() error {
	b.close()
	return nil
}

// adjust makes connections those of this package: objects arrive as they are stored, whatever their encoding, and a server
// that does not answer is not waited for without end.
func adjust(t *http.Transport) {
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 32
	t.ResponseHeaderTimeout = 2 * time.Minute
}

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	adjust(t)
	return t
}

// rangeOf returns the value of the header Range; it is empty for a whole object.
func rangeOf(offset, length int64) string {
	switch {
	case length > 0:
		return fmt.Sprintf("bytes=%d-%d", offset, offset+min(length, 1<<63-1-offset)-1)
	case offset > 0:
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return ""
}

// checkRange fails if a server did not heed the range: then the header Content-Range of its answer is not about offset.
func checkRange(offset int64, contentRange string) error {
	if offset > 0 && !strings.HasPrefix(contentRange, fmt.Sprintf("bytes %d-", offset)) {
		return fmt.Errorf("the server gives the range %q instead of the one from %d", contentRange, offset)
	}
	return nil
}
