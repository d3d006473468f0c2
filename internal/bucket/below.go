package bucket

import (
	"context"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Below returns the part of a bucket whose keys begin with dir and a slash, as a bucket whose keys lack that. URLs are those of the
// whole bucket. Keys can be shorter than those of the whole one only. Closing it closes the whole one.
func Below(b Bucket, dir string) (Bucket, error) {
	if err := ValidateKey(dir); err != nil {
		return nil, err
	}
	return &below{whole: b, prefix: dir + "/"}, nil
}

type below struct {
	whole  Bucket
	prefix string
}

func (b *below) Create(ctx context.Context, key string) (Writer, error) {
	if err := ValidateKey(key); err != nil {
		return nil, err
	}
	return b.whole.Create(ctx, b.prefix+key)
}

func (b *below) Upload(ctx context.Context, key string, o Object) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	return b.whole.Upload(ctx, b.prefix+key, o)
}

func (b *below) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := ValidateKey(key); err != nil {
		return nil, err
	}
	return b.whole.Get(ctx, b.prefix+key, offset, length)
}

func (b *below) Stat(ctx context.Context, key string) (Info, error) {
	if err := ValidateKey(key); err != nil {
		return Info{}, err
	}
	info, err := b.whole.Stat(ctx, b.prefix+key)
	info.Key = strings.TrimPrefix(info.Key, b.prefix)
	return info, err
}

func (b *below) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for info, err := range b.whole.List(ctx, b.prefix+prefix) {
			info.Key = strings.TrimPrefix(info.Key, b.prefix)
			if !yield(info, err) {
				return
			}
		}
	}
}

func (b *below) Delete(ctx context.Context, key string) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	return b.whole.Delete(ctx, b.prefix+key)
}

func (b *below) SignedURL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := ValidateKey(key); err != nil {
		return "", err
	}
	return b.whole.SignedURL(ctx, b.prefix+key, ttl)
}

func (b *below) URL(key string) string { return b.whole.URL(b.prefix + key) }

func (b *below) KeyOf(url string) (string, error) {
	key, err := b.whole.KeyOf(url)
	if err != nil {
		return "", err
	}
	key, ok := strings.CutPrefix(key, b.prefix)
	if !ok {
		return "", fault.New(fault.Invalid, "bucket: %s does not lie below %s", url, b.whole.URL(b.prefix))
	}
	return key, ValidateKey(key)
}

func (b *below) Close() error { return b.whole.Close() }
