package pebble

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// pageSize is the bytes of values that Get copies before it calls back; one entry may exceed it.
const pageSize = 256 << 10

// pageEntries is the most entries of a page.
const pageEntries = 4096

// iterate returns an iterator over a stream's entries from index on. It sees the store as it is now.
func (s *Storage) iterate(id streamID, index types.MessageIndex) (*pebble.Iterator, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendEntryKey(make([]byte, 0, entryKeySize), id, max(index, 0)),
		UpperBound: endKey(id),
	})
	return it, kinded(err)
}

// closeIterator adds the iterator's failure, which looks like the end of the data to a loop, to *err.
func closeIterator(it *pebble.Iterator, err *error) {
	if e := it.Close(); e != nil && *err == nil {
		*err = kinded(e)
	}
}

// Get implements storage.Storage. It copies a page at a time, so that neither locks nor iterators outlive a callback.
func (s *Storage) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	p := page{id: idOf(r.Stream), next: r.Index, left: r.Limit, unlimited: r.Limit <= 0, keysOnly: r.KeysOnly}
	for p.more() {
		if err := s.fill(ctx, &p); err != nil {
			return fmt.Errorf("storage/pebble: get %s from index %d: %w", r.Stream, p.next, err)
		}
		for _, e := range p.entries {
			entry := storage.Entry{Index: e.index}
			if !r.KeysOnly {
				entry.Data = p.data[e.start:e.end:e.end]
			}
			if !cb(entry) {
				return nil
			}
		}
	}
	return nil
}

// page is the part of a Get that is in memory.
type page struct {
	id        streamID
	next      types.MessageIndex
	left      int
	unlimited bool
	keysOnly  bool
	end       bool

	entries []span
	data    []byte
}

type span struct {
	index      types.MessageIndex
	start, end int
}

func (p *page) more() bool { return !p.end && (p.unlimited || p.left > 0) }

func (s *Storage) fill(ctx context.Context, p *page) (err error) {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	it, err := s.iterate(p.id, p.next)
	if err != nil {
		return err
	}
	defer closeIterator(it, &err)
	p.entries, p.data = p.entries[:0], p.data[:0]
	ok := it.First()
	for ; ok; ok = it.Next() {
		if !p.more() || len(p.data) >= pageSize || len(p.entries) >= pageEntries {
			return nil
		}
		index, err := indexOf(it.Key())
		if err != nil {
			return err
		}
		start := len(p.data)
		if !p.keysOnly {
			v, err := it.ValueAndErr()
			if err != nil {
				return kinded(err)
			}
			p.data = append(p.data, v...)
		}
		p.entries = append(p.entries, span{index, start, len(p.data)})
		p.next = index + 1
		p.left--
	}
	p.end = true
	return nil
}

// Tail implements storage.Storage. Streams that were written or asked for lately are answered without a scan.
func (s *Storage) Tail(ctx context.Context, name storage.Stream) (storage.Entry, error) {
	done, err := s.use(ctx)
	if err != nil {
		return storage.Entry{}, err
	}
	defer done()
	e, err := s.tail(ctx, idOf(name))
	if err != nil && !errors.Is(err, storage.ErrDoesNotExist) {
		err = fmt.Errorf("storage/pebble: tail of %s: %w", name, err)
	}
	return e, err
}

func (s *Storage) tail(ctx context.Context, id streamID) (storage.Entry, error) {
	for {
		p, expunges := s.remembered(id)
		next, err := s.gapFree(ctx, id, p.next)
		if err != nil {
			return storage.Entry{}, err
		}
		s.mu.Lock()
		expunged := s.expunges != expunges
		if !expunged && next > p.next {
			now, _ := s.positions.Peek(id)
			now.next = max(now.next, next)
			s.positions.Add(id, now)
		}
		s.mu.Unlock()
		if next == 0 {
			return storage.Entry{}, storage.ErrDoesNotExist
		}
		v, closer, err := s.db.Get(appendEntryKey(make([]byte, 0, entryKeySize), id, next-1))
		if errors.Is(err, pebble.ErrNotFound) && expunged {
			continue
		}
		if err != nil {
			return storage.Entry{}, kinded(err)
		}
		e := storage.Entry{Index: next - 1, Data: append([]byte{}, v...)}
		return e, kinded(closer.Close())
	}
}

// gapFree returns the end of the run without gaps that reaches at least to next.
func (s *Storage) gapFree(ctx context.Context, id streamID, next types.MessageIndex) (_ types.MessageIndex, err error) {
	it, err := s.iterate(id, next)
	if err != nil {
		return 0, err
	}
	defer closeIterator(it, &err)
	for ok := it.First(); ok; ok = it.Next() {
		index, err := indexOf(it.Key())
		if err != nil {
			return 0, err
		}
		if index != next {
			break
		}
		next++
		if next%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
	}
	return next, nil
}
