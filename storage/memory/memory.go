// Package memory is a store of entries that lives and dies with the process. It is the model that the other stores are
// compared with, and what the tests of other packages put entries into.
//
// It is stricter than it has to be, so that mistakes of its users show: the data given to a callback of Get is destroyed when
// the callback returns. It can be told to fail (SetErr) and to stop early (MaxGetCount).
//
// All methods are safe for concurrent use. No lock is held while a callback runs.
package memory

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// Storage is a storage.Storage. The zero value is ready for use.
type Storage struct {
	// MaxGetCount, if positive, is the most entries that one Get returns. Set it before use.
	MaxGetCount int

	mu          sync.Mutex
	err         error // what every method returns; ErrClosed after Close
	streams     map[storage.Stream]*stream
	checkpoints map[string]int64
	hub         wake.Hub[storage.Stream]
}

var _ storage.Storage = (*Storage)(nil)

// stream holds the entries of one stream.
type stream struct {
	order []types.MessageIndex // ascending
	data  map[types.MessageIndex][]byte
}

// New returns an empty store.
func New() *Storage { return &Storage{} }

// SetErr makes every method fail with err until it is called with nil. A closed store stays closed.
func (s *Storage) SetErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(s.err, storage.ErrClosed) {
		s.err = err
	}
}

// check is called with the lock held.
func (s *Storage) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.err
}

// Put implements storage.Storage.
func (s *Storage) Put(ctx context.Context, r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return s.commit(ctx, []storage.PutRequest{r}, nil)
}

func (s *Storage) commit(ctx context.Context, puts []storage.PutRequest, checkpoints map[string]int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	for _, r := range puts {
		if len(r.Values) == 0 {
			continue
		}
		if s.streams == nil {
			s.streams = make(map[storage.Stream]*stream)
		}
		st := s.streams[r.Stream]
		if st == nil {
			st = &stream{data: make(map[types.MessageIndex][]byte)}
			s.streams[r.Stream] = st
		}
		for i, v := range r.Values {
			st.put(r.Index+types.MessageIndex(i), v)
		}
		s.hub.Wake(r.Stream)
	}
	for reader, offset := range checkpoints {
		if s.checkpoints == nil {
			s.checkpoints = make(map[string]int64)
		}
		s.checkpoints[reader] = max(s.checkpoints[reader], offset)
	}
	return nil
}

func (st *stream) put(index types.MessageIndex, v []byte) {
	if _, ok := st.data[index]; ok {
		return
	}
	st.data[index] = bytes.Clone(v)
	i, _ := slices.BinarySearch(st.order, index)
	st.order = slices.Insert(st.order, i, index)
}

// Get implements storage.Storage.
func (s *Storage) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	next, given := r.Index, 0
	for (r.Limit <= 0 || given < r.Limit) && (s.MaxGetCount <= 0 || given < s.MaxGetCount) {
		e, err := s.at(ctx, r.Stream, next)
		if err != nil {
			return err
		}
		if e.Index < 0 {
			return nil
		}
		if r.KeysOnly {
			e.Data = nil
		}
		more := cb(e)
		clear(e.Data)
		if !more {
			return nil
		}
		given++
		next = e.Index + 1
	}
	return nil
}

// at returns a copy of the first entry at or behind index; its index is negative if there is none.
func (s *Storage) at(ctx context.Context, name storage.Stream, index types.MessageIndex) (storage.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return storage.Entry{}, err
	}
	st := s.streams[name]
	if st == nil {
		return storage.Entry{Index: -1}, nil
	}
	i, _ := slices.BinarySearch(st.order, index)
	if i == len(st.order) {
		return storage.Entry{Index: -1}, nil
	}
	found := st.order[i]
	return storage.Entry{Index: found, Data: append([]byte{}, st.data[found]...)}, nil
}

// Tail implements storage.Storage.
func (s *Storage) Tail(ctx context.Context, name storage.Stream) (storage.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return storage.Entry{}, err
	}
	st := s.streams[name]
	if st == nil {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	last := types.MessageIndex(-1)
	for _, index := range st.order {
		if index != last+1 {
			break
		}
		last = index
	}
	if last < 0 {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	return storage.Entry{Index: last, Data: append([]byte{}, st.data[last]...)}, nil
}

// Expunge implements storage.Storage.
func (s *Storage) Expunge(ctx context.Context, name storage.Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	delete(s.streams, name)
	return nil
}

// Watch implements storage.Storage.
func (s *Storage) Watch(name storage.Stream) (<-chan struct{}, func()) { return s.hub.Watch(name) }

// Checkpoint implements storage.Storage.
func (s *Storage) Checkpoint(ctx context.Context, reader string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return 0, err
	}
	return s.checkpoints[reader], nil
}

// Sync implements storage.Storage. There is nothing more stable than memory here.
func (s *Storage) Sync(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(ctx)
}

// Close implements storage.Storage.
func (s *Storage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, storage.ErrClosed) {
		return storage.ErrClosed
	}
	s.err = storage.ErrClosed
	s.streams, s.checkpoints = nil, nil
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
	if b.size+r.Size() > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage: put %s: the batch would exceed %d bytes", r.Stream, storage.MaxBatchSize)
	}
	b.puts = append(b.puts, r)
	b.size += r.Size()
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
		return err
	}
	return b.Close()
}

func (b *batch) Close() error {
	b.puts, b.checkpoints, b.size = nil, nil, 0
	return nil
}
