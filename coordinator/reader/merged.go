package reader

import (
	"context"
	"errors"
	"iter"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// merged is a stream that was reopened: an archive, and the entries in storage that came since or were not removed yet. Each entry is
// given once, wherever it is.
type merged struct {
	archive Archive
	recent  recent
}

// Get implements Archive.
func (m merged) Get(ctx context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error {
	var storageErr error
	next, stop := iter.Pull(m.rows(ctx, index, limit, &storageErr))
	defer stop()
	row, ok := next()
	given, more := 0, true
	give := func(e storage.Entry) bool {
		more = cb(e)
		given++
		more = more && given != limit
		return more
	}
	err := m.archive.Get(ctx, index, limit, func(e storage.Entry) bool {
		for ok && row.Index <= e.Index {
			if row.Index < e.Index && !give(row) {
				return false
			}
			row, ok = next()
		}
		// After a failure nobody knows what comes before this entry.
		return storageErr == nil && give(e)
	})
	for more && err == nil && ok {
		if !give(row) {
			break
		}
		row, ok = next()
	}
	return errors.Join(err, storageErr)
}

// rows gives the entries in storage. An entry's data is valid until the next one.
func (m merged) rows(ctx context.Context, index types.MessageIndex, limit int, failed *error) iter.Seq[storage.Entry] {
	return func(yield func(storage.Entry) bool) {
		for more := true; more; {
			more = false
			*failed = m.recent.Get(ctx, index, limit, func(e storage.Entry) bool {
				index = e.Index + 1
				more = yield(e)
				return more
			})
			if *failed != nil {
				return
			}
		}
	}
}

// Tail implements Archive: it returns the last entry, gaps or not.
func (m merged) Tail(ctx context.Context) (storage.Entry, error) {
	last, err := m.archive.Tail(ctx)
	next := last.Index + 1
	if fault.Is(err, fault.NotFound) {
		next = 0
	} else if err != nil {
		return storage.Entry{}, err
	}
	for more := true; more; {
		more = false
		r := storage.GetRequest{Stream: m.recent.stream, Index: next, KeysOnly: true}
		geterr := m.recent.storage.Get(ctx, r, func(e storage.Entry) bool {
			more, next = true, e.Index+1
			return true
		})
		if geterr != nil {
			return storage.Entry{}, geterr
		}
	}
	if err == nil && next == last.Index+1 || err != nil && next == 0 {
		return last, err
	}
	r := storage.GetRequest{Stream: m.recent.stream, Index: next - 1, Limit: 1}
	err = m.recent.storage.Get(ctx, r, func(e storage.Entry) bool {
		last = storage.Entry{Index: e.Index, Data: append([]byte(nil), e.Data...)}
		return false
	})
	return last, err
}
