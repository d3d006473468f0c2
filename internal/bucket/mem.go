package bucket

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Op is an operation that a Mem can be told to fail.
type Op string

// The operations.
const (
	OpCreate Op = "create"
	OpWrite  Op = "write"
	OpCommit Op = "commit"
	OpGet    Op = "get"
	OpRead   Op = "read"
	OpStat   Op = "stat"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Mem is a bucket in memory, for tests. It can be told to fail, and its objects can be damaged.
type Mem struct {
	name string

	mu      sync.Mutex
	objects map[string]object
	fault   func(op Op, key string) error
}

type object struct {
	data     []byte
	modified time.Time
}

var _ Bucket = (*Mem)(nil)

// NewMem returns an empty bucket.
func NewMem(name string) *Mem { return &Mem{name: name, objects: make(map[string]object)} }

// SetFault makes every operation ask f first and fail with what it returns; nil ends that. For OpList the key is the prefix.
// f may block, and may use the bucket.
func (m *Mem) SetFault(f func(op Op, key string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Bytes returns a copy of an object; nil if there is none.
func (m *Mem) Bytes(key string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.objects[key].data)
}

// SetBytes replaces an object.
func (m *Mem) SetBytes(key string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = object{bytes.Clone(data), time.Now()}
}

// Keys returns the keys of all objects, sorted.
func (m *Mem) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]string, 0, len(m.objects))
	for key := range m.objects {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (m *Mem) check(ctx context.Context, op Op, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	f := m.fault
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op, key)
}

// Create implements Bucket.
func (m *Mem) Create(ctx context.Context, key string) (Writer, error) {
	if err := errors.Join(ValidateKey(key), m.check(ctx, OpCreate, key)); err != nil {
		return nil, err
	}
	return &memWriter{ctx: ctx, bucket: m, key: key}, nil
}

// Upload implements Bucket.
func (m *Mem) Upload(ctx context.Context, key string, o Object) error {
	if o.IfAbsent {
		if _, err := m.object(key); err == nil {
			return exists(key)
		}
	}
	return upload(ctx, m, key, o)
}

type memWriter struct {
	ctx    context.Context
	bucket *Mem
	key    string
	data   bytes.Buffer
}

func (w *memWriter) Write(p []byte) (int, error) {
	if err := w.bucket.check(w.ctx, OpWrite, w.key); err != nil {
		return 0, err
	}
	return w.data.Write(p)
}

func (w *memWriter) Commit() error {
	if err := w.bucket.check(w.ctx, OpCommit, w.key); err != nil {
		return err
	}
	w.bucket.SetBytes(w.key, append([]byte{}, w.data.Bytes()...))
	return nil
}

func (w *memWriter) Abort() {}

// Get implements Bucket.
func (m *Mem) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(ValidateKey(key), m.check(ctx, OpGet, key)); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fault.New(fault.Invalid, "bucket: get %s: offset %d", key, offset)
	}
	o, err := m.object(key)
	if err != nil {
		return nil, err
	}
	if length < 0 {
		length = int64(len(o.data))
	}
	return &memReader{ctx: ctx, bucket: m, key: key, section: io.NewSectionReader(bytes.NewReader(o.data), offset, length)}, nil
}

func (m *Mem) object(key string) (object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return object{}, fault.New(fault.NotFound, "bucket: no object %s", key)
	}
	return o, nil
}

type memReader struct {
	ctx     context.Context
	bucket  *Mem
	key     string
	section *io.SectionReader
}

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.bucket.check(r.ctx, OpRead, r.key); err != nil {
		return 0, err
	}
	return r.section.Read(p)
}

func (r *memReader) Close() error { return nil }

// Stat implements Bucket.
func (m *Mem) Stat(ctx context.Context, key string) (Info, error) {
	if err := errors.Join(ValidateKey(key), m.check(ctx, OpStat, key)); err != nil {
		return Info{}, err
	}
	o, err := m.object(key)
	if err != nil {
		return Info{}, err
	}
	sum := md5.Sum(o.data)
	return Info{Key: key, Size: int64(len(o.data)), Modified: o.modified, MD5: sum[:]}, nil
}

// List implements Bucket.
func (m *Mem) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := m.check(ctx, OpList, prefix); err != nil {
			yield(Info{}, err)
			return
		}
		for _, key := range m.Keys() {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			o, err := m.object(key)
			if err != nil {
				continue // deleted meanwhile
			}
			if !yield(Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}, nil) {
				return
			}
		}
	}
}

// Delete implements Bucket.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ValidateKey(key), m.check(ctx, OpDelete, key)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// SignedURL implements Bucket. The URL leads nowhere.
func (m *Mem) SignedURL(_ context.Context, key string, ttl time.Duration) (string, error) {
	return m.URL(key) + "?ttl=" + ttl.String(), ValidateKey(key)
}

// URL implements Bucket.
func (m *Mem) URL(key string) string { return makeURL("mem", m.name, key) }

// KeyOf implements Bucket.
func (m *Mem) KeyOf(url string) (string, error) { return splitURL("mem", m.name, url) }

// Close implements Bucket.
func (m *Mem) Close() error { return nil }
