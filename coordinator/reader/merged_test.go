package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// listed is an archive of these indices.
type listed []types.MessageIndex

func (l listed) Get(_ context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error {
	n := 0
	for _, i := range l {
		if i < index {
			continue
		}
		if n++; !cb(storage.Entry{Index: i, Data: fmt.Append(nil, i)}) || n == limit {
			break
		}
	}
	return nil
}

func (l listed) Tail(context.Context) (storage.Entry, error) {
	if len(l) == 0 {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	i := l[len(l)-1]
	return storage.Entry{Index: i, Data: fmt.Append(nil, i)}, nil
}

// What is read of a reopened stream is what is in the archive or in storage, each entry once and in order.
func TestMergedReadsEachEntryOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := func(name string) []types.MessageIndex {
			all := rapid.SliceOfNDistinct(rapid.Int64Range(0, 20), 0, 15, rapid.ID[int64]).Draw(t, name)
			slices.Sort(all)
			out := make([]types.MessageIndex, len(all))
			for i, v := range all {
				out[i] = types.MessageIndex(v)
			}
			return out
		}
		archived, stored := set("archived"), set("stored")
		rows := memory.New()
		stream := storage.Stream{Project: "p", Path: "a/+/b"}
		for _, i := range stored {
			if err := rows.Put(context.Background(), storage.PutRequest{Stream: stream, Index: i, Values: [][]byte{fmt.Append(nil, i)}}); err != nil {
				t.Fatal(err)
			}
		}
		both := slices.Concat(archived, stored)
		slices.Sort(both)
		both = slices.Compact(both)
		m := merged{listed(archived), recent{rows, stream}}

		from := types.MessageIndex(rapid.Int64Range(0, 22).Draw(t, "from"))
		limit := rapid.IntRange(0, 25).Draw(t, "limit")
		stopAfter := rapid.IntRange(1, 30).Draw(t, "stop after")
		var want, got []types.MessageIndex
		for _, i := range both {
			if i >= from && (limit == 0 || len(want) < limit) && len(want) < stopAfter {
				want = append(want, i)
			}
		}
		err := m.Get(context.Background(), from, limit, func(e storage.Entry) bool {
			if string(e.Data) != fmt.Sprint(e.Index) {
				t.Errorf("entry %d has the data %q", e.Index, e.Data)
			}
			got = append(got, e.Index)
			return len(got) < stopAfter
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("from %d, at most %d: %v, want %v, error %v", from, limit, got, want, err)
		}

		last, err := m.Tail(context.Background())
		switch {
		case len(both) == 0 && !fault.Is(err, fault.NotFound):
			t.Errorf("the last of nothing is %v, %v", last, err)
		case len(both) > 0 && (err != nil || last.Index != both[len(both)-1] || string(last.Data) != fmt.Sprint(last.Index)):
			t.Errorf("the last is %v, %v; want %d", last, err, both[len(both)-1])
		}
	})
}

// brokenStorage fails at an entry.
type brokenStorage struct {
	storage.Storage
	at types.MessageIndex
}

var errBroken = errors.New("broken")

func (b brokenStorage) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	failed := false
	err := b.Storage.Get(ctx, r, func(e storage.Entry) bool {
		failed = e.Index >= b.at
		return !failed && cb(e)
	})
	if failed {
		return errBroken
	}
	return err
}

// A failure of storage is no gap: nothing behind it is given.
func TestMergedDoesNotReadPastAFailure(t *testing.T) {
	rows := memory.New()
	stream := storage.Stream{Project: "p", Path: "a/+/b"}
	for _, i := range []types.MessageIndex{1, 3} {
		if err := rows.Put(t.Context(), storage.PutRequest{Stream: stream, Index: i, Values: [][]byte{{1}}}); err != nil {
			t.Fatal(err)
		}
	}
	m := merged{listed{0, 2, 4}, recent{brokenStorage{rows, 3}, stream}}
	var got []types.MessageIndex
	err := m.Get(t.Context(), 0, 0, func(e storage.Entry) bool { got = append(got, e.Index); return true })
	if !errors.Is(err, errBroken) || !slices.Equal(got, []types.MessageIndex{0, 1}) && !slices.Equal(got, []types.MessageIndex{0, 1, 2}) {
		t.Errorf("got %v, %v", got, err)
	}
}
