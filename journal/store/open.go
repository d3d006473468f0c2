package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/cloud"
	"github.com/daybook-dev/daybook/internal/fault"
)

// opener returns the function that opens buckets. Directories lie below root.
func opener(root string) func(context.Context, *url.URL, map[string]string) (bucket.Bucket, error) {
	return func(ctx context.Context, u *url.URL, args map[string]string) (bucket.Bucket, error) {
		if u.Scheme != "file" {
			return cloud.OpenWhole(ctx, u, args)
		}
		if root == "" {
			return nil, fault.New(fault.Precondition, "no directory is configured for file stores")
		}
		root, err := filepath.Abs(root)
		if err != nil {
			return nil, fault.New(fault.Precondition, "directory of file stores: %w", err)
		}
		return &tree{root: root}, nil
	}
}

func isMissing(err error) bool { return errors.Is(err, bucket.ErrMissing) }

// tree is the directory of file stores. It is opened when it is used, and again when it was away: a disk that is mounted late
// or again is no reason to start the broker anew.
type tree struct {
	root string

	mu   sync.Mutex
	open *bucket.Dir
}

// use returns the open directory. Whoever sees that it is gone calls it again with what was returned before.
func (t *tree) use(not *bucket.Dir) (*bucket.Dir, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open != nil && t.open != not {
		return t.open, nil
	}
	open, err := bucket.OpenTree(t.root, "files")
	if err != nil {
		return nil, err
	}
	if t.open != nil {
		// Files that are open stay so.
		err = t.open.Close()
	}
	t.open = open
	return open, err
}

// try does something in the directory, again if the directory has been replaced.
func (t *tree) try(do func(*bucket.Dir) error) error {
	dir, err := t.use(nil)
	if err == nil {
		err = do(dir)
	}
	if !isMissing(err) || dir == nil {
		return err
	}
	if dir, err = t.use(dir); err != nil {
		return err
	}
	return do(dir)
}

func (t *tree) Create(ctx context.Context, key string) (w bucket.Writer, err error) {
	err = t.try(func(d *bucket.Dir) error {
		w, err = d.Create(ctx, key)
		return err
	})
	return w, err
}

func (t *tree) Upload(ctx context.Context, key string, o bucket.Object) error {
	return t.try(func(d *bucket.Dir) error { return d.Upload(ctx, key, o) })
}

func (t *tree) Get(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	err = t.try(func(d *bucket.Dir) error {
		r, err = d.Get(ctx, key, offset, length)
		return err
	})
	return r, err
}

func (t *tree) Stat(ctx context.Context, key string) (info bucket.Info, err error) {
	err = t.try(func(d *bucket.Dir) error {
		info, err = d.Stat(ctx, key)
		return err
	})
	return info, err
}

func (t *tree) List(ctx context.Context, prefix string) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		err := t.try(func(d *bucket.Dir) error {
			for info, err := range d.List(ctx, prefix) {
				if isMissing(err) {
					return err // which is the first, if any
				}
				if !yield(info, err) {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(bucket.Info{}, err)
		}
	}
}

func (t *tree) Delete(ctx context.Context, key string) error {
	return t.try(func(d *bucket.Dir) error { return d.Delete(ctx, key) })
}

func (t *tree) SignedURL(context.Context, string, time.Duration) (string, error) {
	return "", fault.New(fault.Unimplemented, "a directory has no URLs that others can use")
}

func (t *tree) URL(key string) string { return (&url.URL{Scheme: "file", Path: "/" + key}).String() }

func (t *tree) KeyOf(string) (string, error) {
	return "", fault.New(fault.Unimplemented, "the URL of a file does not tell its store")
}

func (t *tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		return nil
	}
	return t.open.Close()
}
