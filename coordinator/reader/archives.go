package reader

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// FromArchive returns the archives that r opens.
func FromArchive(r *archive.Reader) Archives { return archives{r} }

type archives struct{ reader *archive.Reader }

func (a archives) Open(ctx context.Context, streamURL, indexURL string) (Archive, error) {
	s, err := a.reader.Open(ctx, streamURL, indexURL)
	if err != nil {
		return nil, err
	}
	return archived{s}, nil
}

func (a archives) SignedURL(ctx context.Context, url string, ttl time.Duration) (string, error) {
	return a.reader.SignedURL(ctx, url, ttl)
}

// archived gives the entries of an archive as those of storage.
type archived struct{ stream *archive.Stream }

func (a archived) Get(ctx context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error {
	return a.stream.Get(ctx, index, limit, func(e archive.Entry) bool { return cb(storage.Entry(e)) })
}

func (a archived) Tail(ctx context.Context) (storage.Entry, error) {
	e, err := a.stream.Tail(ctx)
	return storage.Entry(e), err
}
