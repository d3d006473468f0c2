package cloud

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// spoolMemory is how much of an object that is written stays in memory.
const spoolMemory = 1 << 20

// Create implements bucket.Bucket. The object is uploaded by Commit.
func (b *object) Create(ctx context.Context, key string) (bucket.Writer, error) {
	if err := errors.Join(bucket.ValidateKey(key), ctx.Err()); err != nil {
		return nil, err
	}
	return &writer{ctx: ctx, bucket: b, key: key, sum: md5.New()}, nil
}

type writer struct {
	ctx    context.Context // of Create: a Writer lives within it
	bucket *object
	key    string
	// What was written is in memory until there is a file.
	memory bytes.Buffer
	file   *os.File
	size   int64
	sum    hash.Hash
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.write(p)
	w.size += int64(n)
	_, _ = w.sum.Write(p[:n]) // never fails
	if err != nil {
		err = fault.New(fault.Transient, "bucket: write %s to a temporary file: %w", w.key, err)
	}
	return n, err
}

func (w *writer) write(p []byte) (_ int, err error) {
	if w.file == nil && w.memory.Len()+len(p) <= spoolMemory {
		return w.memory.Write(p)
	}
	if w.file == nil {
		if w.file, err = os.CreateTemp("", "bucket-*"); err != nil {
			return 0, err
		}
		if _, err := w.memory.WriteTo(w.file); err != nil {
			return 0, err
		}
	}
	return w.file.Write(p)
}

func (w *writer) Commit() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	defer w.Abort()
	o := bucket.Object{Content: io.ReaderAt(bytes.NewReader(w.memory.Bytes())), Size: w.size, MD5: w.sum.Sum(nil)}
	if w.file != nil {
		o.Content = w.file
	}
	return w.bucket.Upload(w.ctx, w.key, o)
}

func (w *writer) Abort() {
	w.memory = bytes.Buffer{}
	if w.file != nil {
		_ = w.file.Close() // what was written is not needed
		_ = os.Remove(w.file.Name())
		w.file = nil
	}
}
