// Package bigtable keeps entries in a Cloud Bigtable table, laid out as LogDog does: a table that LogDog filled can be read, and one that we
// filled can be read by LogDog. The rows' page is docs/formats/entries-bigtable.md.
//
// Entries of a stream that are put together lie together in rows. There are no transactions: a batch looks which of its entries are there
// already, adds rows of the others, and records its checkpoints when all of them are there. Rows of a stream overlap when two
// processes put the same entries at the same moment, or where LogDog's Collectors cut them differently; a read shows each entry
// once and hides none. What is acknowledged is on stable storage.
//
// Watchers are woken at once within the process. Rows that other processes add are found with one request every 40 ms for the keys
// behind and between those that are known of the watched streams.
//
// Readers that ask for the same at the same time, as followers of a stream do, share an answer.
//
// All methods are safe for concurrent use. No request is open while a callback runs.
package bigtable

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/share"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// pollInterval is the time between two looks for rows that other processes added.
	pollInterval = 40 * time.Millisecond
	// maxPositions is how many streams' ends are remembered, at about 150 bytes each.
	maxPositions = 1 << 16
	// checkpointPrefix begins the keys of checkpoints. No stream's key has a slash.
	checkpointPrefix = "daybook/checkpoint/"
	// checkpointTime is the time of a checkpoint's cell, in microseconds: it is late enough for a table's age limit never to be
	// reached, and being the same for all makes each one replace the one before.
	checkpointTime = 4_000_000_000_000_000
)

// Options of Open. The zero value is good.
type Options struct {
	// Logger receives what goes on in the background; nil drops it.
	Logger *slog.Logger
	// Registerer receives the store's metrics; nil is none.
	Registerer prometheus.Registerer
}

// Storage is a storage.Storage.
type Storage struct {
	table *table
	log   *slog.Logger

	// life ends with Close, which waits for calls.
	life   context.Context
	end    context.CancelFunc
	mu     sync.RWMutex
	closed bool

	positions positions
	pages     *share.Group[pageQuery, page]
	hub       wake.Hub[storage.Stream]
	watch     watch
	metrics   *metrics
}

var _ storage.Storage = (*Storage)(nil)

// Open opens a table, which has to be there with a column family named log. Its address is bigtable://PROJECT/INSTANCE/TABLE, to which
// ?app_profile=NAME may be added. The credentials are the application default ones. With BIGTABLE_EMULATOR_HOST set, it is the
// emulator there that is used.
func Open(ctx context.Context, address string, o Options) (*Storage, error) {
	return open(ctx, address, o, pollInterval)
}

func open(ctx context.Context, address string, o Options, interval time.Duration) (*Storage, error) {
	t, err := openTable(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("storage/bigtable: open: %w", err)
	}
	s := &Storage{table: t, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.pages = share.NewGroup[pageQuery, page](storage.ErrClosed)
	s.positions.ends, _ = simplelru.NewLRU[streamID, types.MessageIndex](maxPositions, nil) // fails only for sizes below one
	// A read tells whether the table is there, and whether it may be read.
	if _, err := s.Checkpoint(ctx, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", t.name, err), t.conn.Close())
	}
	if s.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("storage/bigtable: register metrics: %w", err), t.conn.Close())
	}
	s.watch.start(s, interval)
	return s, nil
}

// use keeps the store open until done is called, and does so for ctx.
func (s *Storage) use(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, storage.ErrClosed
	}
	return s.mu.RUnlock, nil
}

// explain says what failed. A context's error comes as a status from below.
func explain(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("storage/bigtable: "+format+": %w", append(args, err)...)
}

// Checkpoint implements storage.Storage.
func (s *Storage) Checkpoint(ctx context.Context, reader string) (position int64, err error) {
	done, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	rows := &rowSet{RowKeys: [][]byte{[]byte(checkpointPrefix + reader)}}
	err = s.table.read(ctx, rows, positionColumn, false, 1, func(c cell) (bool, error) {
		if !c.found {
			return true, nil
		}
		if len(c.value) != 8 || binary.BigEndian.Uint64(c.value) > math.MaxInt64 {
			return false, fault.New(fault.DataLoss, "%x is no position", c.value)
		}
		position = int64(binary.BigEndian.Uint64(c.value))
		return true, nil
	})
	return position, explain(ctx, err, "checkpoint of %s", reader)
}

// Sync implements storage.Storage: what the service acknowledged is synced.
func (s *Storage) Sync(ctx context.Context) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	done()
	return nil
}

// Close waits for the calls under way.
func (s *Storage) Close() error {
	s.end()
	s.watch.poller.Wait()
	s.pages.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return storage.ErrClosed
	}
	s.closed = true
	s.metrics.unregister()
	if err := s.table.conn.Close(); err != nil {
		return fmt.Errorf("storage/bigtable: close: %w", err)
	}
	return nil
}

// positions remembers how far streams are known to be there without a gap. It may be wrong about streams that another process expunged.
type positions struct {
	mu   sync.Mutex
	ends *simplelru.LRU[streamID, types.MessageIndex]
}

// of returns the end of the run without gaps, as far as it is known.
func (p *positions) of(id streamID) types.MessageIndex {
	p.mu.Lock()
	defer p.mu.Unlock()
	end, _ := p.ends.Get(id)
	return end
}

func (p *positions) set(id streamID, end types.MessageIndex) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends.Add(id, end)
}

func (p *positions) forget(id streamID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends.Remove(id)
}
