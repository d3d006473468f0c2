package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

// position is what is remembered of a stream.
type position struct {
	// next is a bound of the run without gaps: every index below it is stored.
	next types.MessageIndex
	// high is the highest index stored, -1 for none. It is known once the stream was written.
	high  types.MessageIndex
	known bool
}

// remembered returns what is known of a stream, and the count of expunges at this moment.
func (s *Storage) remembered(id streamID) (position, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, _ := s.positions.Get(id)
	return p, s.expunges
}

// Put implements storage.Storage.
func (s *Storage) Put(ctx context.Context, r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Size() > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage/pebble: put %s: more than %d bytes at once", r.Stream, storage.MaxBatchSize)
	}
	if err := s.commit(ctx, []storage.PutRequest{r}, nil); err != nil {
		return fmt.Errorf("storage/pebble: put %s from index %d: %w", r.Stream, r.Index, err)
	}
	return nil
}

// NewBatch implements storage.Storage.
func (s *Storage) NewBatch() storage.Batch { return &batch{store: s} }

type batch struct {
	store       *Storage
	puts        []storage.PutRequest
	checkpoints map[string]int64
	size        int
}

func (b *batch) Put(r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	size := r.Size()
	if b.size+size > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage/pebble: put %s: the batch would exceed %d bytes", r.Stream, storage.MaxBatchSize)
	}
	b.puts = append(b.puts, r)
	b.size += size
	return nil
}

func (b *batch) SetCheckpoint(reader string, offset int64) {
	if b.checkpoints == nil {
		b.checkpoints = make(map[string]int64)
	}
	b.checkpoints[reader] = offset
}

func (b *batch) Size() int { return b.size }

func (b *batch) Commit(ctx context.Context) error {
	if err := b.store.commit(ctx, b.puts, b.checkpoints); err != nil {
		return fmt.Errorf("storage/pebble: commit a batch of %d puts: %w", len(b.puts), err)
	}
	return b.Close()
}

func (b *batch) Close() error {
	clear(b.puts) // lets go of the values and keeps the room
	clear(b.checkpoints)
	b.puts, b.size = b.puts[:0], 0
	return nil
}

// commit applies puts and checkpoints in one Pebble batch, leaving out the entries that are there already.
func (s *Storage) commit(ctx context.Context, puts []storage.PutRequest, checkpoints map[string]int64) error {
	return s.change(ctx, func() (func() error, error) {
		size := 0
		for i := range puts {
			size += puts[i].Size() + len(puts[i].Values)*(entryKeySize+8)
		}
		w := &writer{store: s, batch: s.db.NewBatchWithSize(size + 4096), streams: make(map[storage.Stream]*pending, 1)}
		if err := w.fill(puts, checkpoints); err != nil {
			return nil, errors.Join(err, w.batch.Close())
		}
		return w.apply, nil
	})
}

// change makes a change, one at a time. It is prepared, and then made by the function that prepare returns, which may have to
// wait for space and must not use what belongs to the caller.
func (s *Storage) change(ctx context.Context, prepare func() (change func() error, err error)) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	select {
	case s.commits <- struct{}{}:
	case <-s.space.lacking():
		done()
		return s.space.refusal()
	case <-ctx.Done():
		done()
		return ctx.Err()
	}
	unlock := func() {
		<-s.commits
		done()
	}
	if err := s.space.err(); err != nil {
		unlock()
		return err
	}
	change, err := prepare()
	if err != nil {
		unlock()
		return err
	}
	return s.write(ctx, unlock, change)
}

// writer fills a Pebble batch and applies it. It is used with the commits lock held.
type writer struct {
	store                    *Storage
	batch                    *pebble.Batch
	streams                  map[storage.Stream]*pending
	bytes, entries, repeated int
}

func (w *writer) fill(puts []storage.PutRequest, checkpoints map[string]int64) error {
	for i := range puts {
		w.repeated += len(puts[i].Values) // less what is stored
	}
	for _, s := range runs.Collect(puts) {
		p, err := w.stream(s.Name)
		if err != nil {
			return err
		}
		for _, r := range s.Runs {
			if err := w.put(p, r); err != nil {
				return err
			}
		}
	}
	w.repeated -= w.entries
	for reader, offset := range checkpoints {
		recorded, err := w.store.checkpoint(reader)
		if err != nil {
			return fmt.Errorf("checkpoint of %s: %w", reader, err)
		}
		if offset <= recorded {
			continue
		}
		if err := w.batch.Set(checkpointKey(reader), binary.BigEndian.AppendUint64(nil, uint64(offset)), nil); err != nil {
			return kinded(err)
		}
	}
	return nil
}

func (w *writer) apply() (err error) {
	defer func() { err = errors.Join(err, kinded(w.batch.Close())) }()
	s := w.store
	if !w.batch.Empty() {
		if err := s.db.Apply(w.batch, pebble.NoSync); err != nil {
			return kinded(err)
		}
	}
	s.metrics.written.Add(float64(w.bytes))
	s.metrics.entries.Add(float64(w.entries))
	s.metrics.repeated.Add(float64(w.repeated))

	s.mu.Lock()
	for _, p := range w.streams {
		// A Tail may have got further meanwhile.
		if now, ok := s.positions.Peek(p.id); ok {
			p.next = max(p.next, now.next)
		}
		s.positions.Add(p.id, p.position)
	}
	s.mu.Unlock()
	for name := range w.streams {
		s.hub.Wake(name)
	}
	return nil
}

// pending is a stream's position as it will be after the batch.
type pending struct {
	id streamID
	position
}

// put adds a run to the batch, which has none of its entries.
func (w *writer) put(p *pending, r runs.Run) error {
	span := r.Span()
	var have map[types.MessageIndex]struct{}
	if span.First <= p.high {
		var err error
		if have, err = w.store.existing(p.id, span); err != nil {
			return err
		}
	}
	for i, v := range r.Values {
		index := span.First + types.MessageIndex(i)
		if _, ok := have[index]; ok {
			continue
		}
		op := w.batch.SetDeferred(entryKeySize, len(v))
		appendEntryKey(op.Key[:0], p.id, index)
		copy(op.Value, v)
		if err := op.Finish(); err != nil {
			return kinded(err)
		}
		w.bytes += len(v)
		w.entries++
	}
	p.high = max(p.high, span.End-1)
	if span.First <= p.next {
		p.next = max(p.next, span.End)
	}
	return nil
}

// stream returns the position of a stream, from the memory or the disk.
func (w *writer) stream(name storage.Stream) (*pending, error) {
	p := &pending{id: idOf(name)}
	p.position, _ = w.store.remembered(p.id)
	if !p.known {
		high, err := w.store.highest(p.id)
		if err != nil {
			return nil, err
		}
		p.high, p.known = high, true
	}
	w.streams[name] = p
	return p, nil
}

// highest returns the highest index stored, -1 for none.
func (s *Storage) highest(id streamID) (_ types.MessageIndex, err error) {
	it, err := s.iterate(id, 0)
	if err != nil {
		return 0, err
	}
	defer closeIterator(it, &err)
	if !it.Last() {
		return -1, nil
	}
	return indexOf(it.Key())
}

// existing returns which of the indices are stored.
func (s *Storage) existing(id streamID, span runs.Span) (_ map[types.MessageIndex]struct{}, err error) {
	have := make(map[types.MessageIndex]struct{})
	it, err := s.iterate(id, span.First)
	if err != nil {
		return nil, err
	}
	defer closeIterator(it, &err)
	for ok := it.First(); ok; ok = it.Next() {
		index, err := indexOf(it.Key())
		if err != nil {
			return nil, err
		}
		if index >= span.End {
			break
		}
		have[index] = struct{}{}
	}
	return have, nil
}

// Expunge implements storage.Storage.
func (s *Storage) Expunge(ctx context.Context, name storage.Stream) error {
	id := idOf(name)
	first, end := appendEntryKey(make([]byte, 0, entryKeySize), id, 0), endKey(id)
	err := s.change(ctx, func() (func() error, error) {
		size, err := s.db.EstimateDiskUsage(first, end)
		if err != nil {
			return nil, kinded(err)
		}
		return func() error {
			if err := s.db.DeleteRange(first, end, pebble.Sync); err != nil {
				return kinded(err)
			}
			s.reclaim.expunged(size)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.positions.Remove(id)
			s.expunges++
			return nil
		}, nil
	})
	if err != nil {
		return fmt.Errorf("storage/pebble: expunge %s: %w", name, err)
	}
	return nil
}
