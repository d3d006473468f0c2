// Package cloud opens buckets of object stores: S3 and what is compatible with it, Google Cloud Storage, and Azure Blob Storage.
//
// Credentials come from where the provider's own tools take them: the environment, files in the home directory, the machine.
// Large objects are uploaded in parts. What is uploaded to S3 from where it is (Bucket.Upload) is not held in memory, all else
// two or three parts at a time.
//
// The buckets are safe for concurrent use, as package bucket says.
package cloud

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// partSize is the size of the parts of objects where parts are held in memory while they are under way.
	partSize = 8 << 20
	// parts is how many parts of an object are under way at once.
	parts = 2

	contentType = "application/octet-stream"
)

// object is a bucket of a provider.
type object struct {
	blob *blob.Bucket
	// base is the URL of the bucket, without a slash at its end.
	base string
	// upload uploads an object; nil leaves that to blob.
	upload func(ctx context.Context, key string, o bucket.Object) error
	// before adjusts requests to write; nil leaves them alone.
	before func(as func(any) bool) error
	// kind returns the kind of an error of upload, if it has one; nil if there is no upload.
	kind func(error) (fault.Kind, bool)
	// missing tells errors that say that there is no such bucket.
	missing func(error) bool
}

var _ bucket.Bucket = (*object)(nil)

// fail names the operation and gives the error its kind.
func (b *object) fail(ctx context.Context, op, key string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	kind := fault.Transient
	if b.kind != nil {
		if kind, ok := b.kind(err); ok {
			return fault.New(kind, "bucket: %s %s: %w", op, key, err)
		}
	}
	switch code := gcerrors.Code(err); {
	case b.missing(err):
		return fault.New(fault.Transient, "bucket: %s %s: %w: %w", op, key, bucket.ErrMissing, err)
	case code == gcerrors.NotFound:
		kind = fault.NotFound
	case code == gcerrors.PermissionDenied:
		kind = fault.Denied
	case code == gcerrors.FailedPrecondition:
		kind = fault.Exists
	case code == gcerrors.Unimplemented:
		kind = fault.Unimplemented
	}
	return fault.New(kind, "bucket: %s %s: %w", op, key, err)
}

// lookFail is fail for an object that was not found, which some stores do not tell from a bucket that is not there.
func (b *object) lookFail(ctx context.Context, op, key string, err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound && !b.missing(err) {
		switch there, lookErr := b.blob.IsAccessible(ctx); {
		case lookErr != nil:
			err = lookErr
		case !there:
			return fault.New(fault.Transient, "bucket: %s %s: %w: %w", op, key, bucket.ErrMissing, err)
		}
	}
	return b.fail(ctx, op, key, err)
}

func (b *object) options() *blob.WriterOptions {
	return &blob.WriterOptions{ContentType: contentType, BufferSize: partSize, MaxConcurrency: parts, BeforeWrite: b.before}
}

// Create implements bucket.Bucket.
func (b *object) Create(ctx context.Context, key string) (bucket.Writer, error) {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return nil, err
	}
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	w, err := b.blob.NewWriter(ctx, key, b.options())
	if err != nil {
		cancel()
		return nil, b.fail(outer, "create", key, err)
	}
	return &writer{bucket: b, key: key, ctx: outer, cancel: cancel, w: w}, nil
}

type writer struct {
	bucket *object
	key    string
	ctx    context.Context // of Create: a Writer lives within it
	cancel context.CancelFunc
	w      *blob.Writer
	ended  bool
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.w.Write(p)
	if err != nil {
		err = w.bucket.fail(w.ctx, "write", w.key, err)
	}
	return n, err
}

func (w *writer) Commit() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.ended = true
	defer w.cancel()
	if err := w.w.Close(); err != nil {
		return w.bucket.fail(w.ctx, "commit", w.key, err)
	}
	return nil
}

func (w *writer) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.cancel()
	_ = w.w.Close() // it fails, since its context has ended
}

// Upload implements bucket.Bucket.
func (b *object) Upload(ctx context.Context, key string, o bucket.Object) error {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return err
	}
	if b.upload != nil {
		if err := b.upload(ctx, key, o); err != nil {
			return b.fail(ctx, "upload", key, err)
		}
		return nil
	}
	opts := b.options()
	opts.ContentEncoding, opts.IfNotExist = o.Encoding, o.IfAbsent
	if err := b.blob.Upload(ctx, key, io.NewSectionReader(o.Content, 0, o.Size), opts); err != nil {
		return b.fail(ctx, "upload", key, err)
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
	info, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	// Stores refuse ranges that begin at the end or beyond.
	if offset >= info.Size || length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	length = min(length, info.Size-offset)
	r, err := b.blob.NewRangeReader(ctx, key, offset, length, nil)
	if err != nil {
		return nil, b.lookFail(ctx, "get", key, err)
	}
	return &reader{ctx: ctx, bucket: b, key: key, r: r}, nil
}

type reader struct {
	ctx    context.Context // of Get: the reader lives within it
	bucket *object
	key    string
	r      *blob.Reader
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
	a, err := b.blob.Attributes(ctx, key)
	if err != nil {
		return bucket.Info{}, b.lookFail(ctx, "stat", key, err)
	}
	return bucket.Info{Key: key, Size: a.Size, Modified: a.ModTime, MD5: a.MD5}, nil
}

// List implements bucket.Bucket.
func (b *object) List(ctx context.Context, prefix string) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		for it := b.blob.List(&blob.ListOptions{Prefix: prefix}); ; {
			o, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(bucket.Info{}, b.fail(ctx, "list", prefix, err))
				return
			}
			if strings.HasSuffix(o.Key, "/") {
				continue // a console's idea of a directory
			}
			if !yield(bucket.Info{Key: o.Key, Size: o.Size, Modified: o.ModTime, MD5: o.MD5}, nil) {
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
	err := b.blob.Delete(ctx, key)
	if err == nil {
		return nil
	}
	if err = b.lookFail(ctx, "delete", key, err); fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// SignedURL implements bucket.Bucket.
func (b *object) SignedURL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return "", err
	}
	u, err := b.blob.SignedURL(ctx, key, &blob.SignedURLOptions{Expiry: ttl, Method: http.MethodGet})
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
func (b *object) Close() error { return b.blob.Close() }
