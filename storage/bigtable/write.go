package bigtable

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"cloud.google.com/go/bigtable/apiv2/bigtablepb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

const (
	// rowSize is the most bytes of a row, unless it has but one entry. LogDog allows ten times as much; but a row is read as a whole.
	rowSize = 1 << 20
	// longRow is more than a row has entries, as a rule.
	longRow = 1 << 16
	// maxRanges is the most ranges of keys in a request.
	maxRanges = 1000
	// expungeRows is the most rows that are deleted at a time.
	expungeRows = 25_000
)

// Put implements storage.Storage.
func (s *Storage) Put(ctx context.Context, r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Size() > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage/bigtable: put %s: more than %d bytes at once", r.Stream, storage.MaxBatchSize)
	}
	return explain(ctx, s.commit(ctx, []storage.PutRequest{r}, nil), "put %s from index %d", r.Stream, r.Index)
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
		return fault.New(fault.Exhausted, "storage/bigtable: put %s: the batch would exceed %d bytes", r.Stream, storage.MaxBatchSize)
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
		return explain(ctx, err, "commit a batch of %d puts", len(b.puts))
	}
	return b.Close()
}

func (b *batch) Close() error {
	clear(b.puts) // lets go of the values and keeps the room
	clear(b.checkpoints)
	b.puts, b.size = b.puts[:0], 0
	return nil
}

// commit stores what is new of the puts, and then the checkpoints.
func (s *Storage) commit(ctx context.Context, puts []storage.PutRequest, checkpoints map[string]int64) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	streams := runs.Collect(puts)
	have, err := s.existing(ctx, streams)
	if err != nil {
		return err
	}
	var c counts
	var rows []*mutation
	size := 0
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		err := s.table.mutate(ctx, rows)
		rows, size = rows[:0], 0
		return err
	}
	for _, stream := range streams {
		id := idOf(stream.Name)
		missing := runs.Missing(stream.Runs, have[id])
		c.add(stream.Runs, missing)
		for _, r := range missing {
			for _, row := range r.Cut(rowSize) {
				value := row.AppendPacked(make([]byte, 0, row.Size()))
				rows = append(rows, &mutation{RowKey: []byte(id.key(row.Span())), Mutations: set(dataColumn, serverTime, value)})
				if size += len(value); size >= mutationsBytes || len(rows) >= maxMutationsInCall {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for reader, offset := range checkpoints {
		value := binary.BigEndian.AppendUint64(nil, uint64(offset))
		if err := s.table.raise(ctx, checkpointPrefix+reader, positionColumn, checkpointTime, value); err != nil {
			return err
		}
	}
	s.metrics.count(c)
	for _, stream := range streams {
		s.watch.own(stream)
		s.hub.Wake(stream.Name)
	}
	return nil
}

// existing returns which entries of the streams are there, of those that the batch has. A row of more than longRow entries may be
// missed, so that some are stored again.
func (s *Storage) existing(ctx context.Context, streams []*runs.Stream) (map[streamID][]runs.Span, error) {
	have := make(map[streamID][]runs.Span, len(streams))
	var ranges []*bigtablepb.RowRange
	look := func() error {
		if len(ranges) == 0 {
			return nil
		}
		err := s.table.read(ctx, &rowSet{RowRanges: ranges}, dataColumn, true, 0, func(c cell) (bool, error) {
			id, row, err := parseKey(c.key)
			have[id] = append(have[id], row)
			return true, err
		})
		ranges = ranges[:0]
		return err
	}
	for _, stream := range streams {
		id := idOf(stream.Name)
		for _, r := range stream.Runs {
			span := r.Span()
			ranges = append(ranges, rowRange(id.from(span.First), id.from(behind(span.End, longRow))))
			if len(ranges) == maxRanges {
				if err := look(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := look(); err != nil {
		return nil, err
	}
	for _, spans := range have {
		slices.SortFunc(spans, func(a, b runs.Span) int { return cmp.Compare(a.First, b.First) })
	}
	return have, nil
}

// Expunge implements storage.Storage.
func (s *Storage) Expunge(ctx context.Context, name storage.Stream) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	id := idOf(name)
	s.positions.forget(id)
	return explain(ctx, s.expunge(ctx, id), "expunge %s", name)
}

func (s *Storage) expunge(ctx context.Context, id streamID) error {
	all := &rowSet{RowRanges: []*bigtablepb.RowRange{rowRange(id.from(0), id.end())}}
	for {
		var rows []*mutation
		err := s.table.read(ctx, all, dataColumn, true, expungeRows, func(c cell) (bool, error) {
			rows = append(rows, &mutation{RowKey: c.key, Mutations: remove()})
			return true, nil
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := s.table.mutate(ctx, rows); err != nil {
			return err
		}
	}
}
