// Package pebble keeps entries in Pebble, an embedded LSM tree: the store of an installation on one machine.
//
// Puts are written to Pebble's log without waiting for the disk. A crash loses the youngest of them, but always whole batches
// together with their checkpoints, so the reader of the journal begins again exactly behind what survived. Sync waits for the
// disk.
//
// An index that is already stored is left as it is. That costs nothing in the usual case: the store remembers the highest
// index of the streams that were written lately, and looks for existing entries only below it.
//
// While the disk is full, whatever writes is refused with a transient error, and reads go on; so do writes when space has been freed.
//
// All methods are safe for concurrent use. Commits are applied one at a time; reads never wait for them, nor they for reads.
// No lock and no iterator is held while a callback runs, so a slow reader holds up nothing and pins no memory.
//
// The bytes are described in docs/formats/entries.md.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/storage"
)

// formatVersion is the version of the keys and values. A store with a higher one is refused.
const formatVersion = 1

// maxPositions is how many streams' positions are remembered, at about 200 bytes each.
const maxPositions = 1 << 16

// Options of Open. The zero value is good.
type Options struct {
	// FS is where the files are; nil is the disk.
	FS vfs.FS
	// Logger receives Pebble's messages; nil drops them.
	Logger *slog.Logger
	// Registerer receives the store's metrics; nil is none.
	Registerer prometheus.Registerer
}

// Storage is a storage.Storage.
type Storage struct {
	// life is held for reading by whoever uses db, and for writing when it is closed.
	life   sync.RWMutex
	closed atomic.Bool
	// shut is closed when all is closed, with shutErr, and told set when a call of Close has returned that.
	shut    chan struct{}
	shutErr error
	told    atomic.Bool
	db      *pebble.DB
	space   *space

	// commits is held, by being full, by whoever changes entries.
	commits chan struct{}

	mu        sync.Mutex
	positions *simplelru.LRU[streamID, position]
	// expunges counts the calls of Expunge, so that what was read before one is not remembered after it.
	expunges uint64

	hub     wake.Hub[storage.Stream]
	reclaim *reclaimer
	metrics *metrics
}

var _ storage.Storage = (*Storage)(nil)

// Open opens or creates the store in dir. One process at a time can have it open.
func Open(dir string, o Options) (*Storage, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	room := newSpace()
	o.FS = patientFS{o.FS, room}
	db, err := openDB(dir, o, room)
	if err != nil {
		return nil, fmt.Errorf("storage/pebble: open %s: %w", dir, err)
	}
	s := &Storage{db: db, space: room, shut: make(chan struct{}), commits: make(chan struct{}, 1)}
	s.positions, _ = simplelru.NewLRU[streamID, position](maxPositions, nil) // fails only for sizes below one
	if err := s.checkFormat(); err != nil {
		return nil, errors.Join(fmt.Errorf("storage/pebble: open %s: %w", dir, err), db.Close())
	}
	s.reclaim = newReclaimer(db, func(err error) { o.Logger.Warn("storage/pebble: compact after expunge", "error", err) })
	s.metrics, err = newMetrics(o.Registerer, s)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("storage/pebble: register metrics: %w", err), db.Close())
	}
	return s, nil
}

// openDB opens Pebble's database. On a full disk, which Pebble may have to write to before it is open, it fails. What it began ends when
// there is room, or with the process.
func openDB(dir string, o Options, room *space) (*pebble.DB, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		db, err := pebble.Open(dir, tuned(dir, o))
		select {
		case opened <- result{db, err}:
		case <-abandoned:
			if err == nil {
				_ = db.Close() // nobody waits for it
			}
		}
	}()
	select {
	case r := <-opened:
		return r.db, kinded(r.err)
	case <-room.lacking():
		close(abandoned)
		return nil, room.refusal()
	}
}

// checkFormat marks a new store with the format version and refuses one of the future.
func (s *Storage) checkFormat() error {
	v, closer, err := s.db.Get(formatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return kinded(s.db.Set(formatKey, binary.BigEndian.AppendUint64(nil, formatVersion), pebble.Sync))
	}
	if err != nil {
		return kinded(err)
	}
	defer closer.Close()
	if len(v) != 8 {
		return fault.New(fault.DataLoss, "the format version has %d bytes; want 8", len(v))
	}
	if got := binary.BigEndian.Uint64(v); got != formatVersion {
		return fault.New(fault.Precondition, "the store has format version %d; this program reads %d: use a newer program", got, formatVersion)
	}
	return nil
}

// use keeps the store open until done is called.
func (s *Storage) use(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Who closes the store may wait for long, and others with him.
	if s.closed.Load() {
		return nil, storage.ErrClosed
	}
	s.life.RLock()
	if s.closed.Load() {
		s.life.RUnlock()
		return nil, storage.ErrClosed
	}
	return s.life.RUnlock, nil
}

// write calls fn, which may have to wait for space, and then done. It waits for them, but no longer than there is room and ctx lasts:
// then they go on, and what they do happens when there is room again.
func (s *Storage) write(ctx context.Context, done func(), fn func() error) error {
	lacking := s.space.lacking()
	result := make(chan error, 1)
	go func() { // Close waits for done
		err := fn()
		done()
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-lacking:
		return s.space.refusal()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ready returns nil unless nothing can be written because the disk is full.
func (s *Storage) Ready() error { return s.space.err() }

// Watch implements storage.Storage.
func (s *Storage) Watch(name storage.Stream) (<-chan struct{}, func()) { return s.hub.Watch(name) }

// Checkpoint implements storage.Storage.
func (s *Storage) Checkpoint(ctx context.Context, reader string) (int64, error) {
	done, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	offset, err := s.checkpoint(reader)
	if err != nil {
		return 0, fmt.Errorf("storage/pebble: checkpoint of %s: %w", reader, err)
	}
	return offset, nil
}

func (s *Storage) checkpoint(reader string) (int64, error) {
	v, closer, err := s.db.Get(checkpointKey(reader))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, kinded(err)
	}
	defer closer.Close()
	if len(v) != 8 {
		return 0, fault.New(fault.DataLoss, "it has %d bytes; want 8", len(v))
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

// Sync implements storage.Storage: a synced record in Pebble's log makes all records before it durable.
func (s *Storage) Sync(ctx context.Context) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	if err = s.space.err(); err != nil {
		done()
	} else {
		err = s.write(ctx, done, func() error { return kinded(s.db.LogData(nil, pebble.Sync)) })
	}
	if err != nil {
		return fmt.Errorf("storage/pebble: sync: %w", err)
	}
	return nil
}

// Close waits for the calls under way, makes everything durable and releases the files. If the disk is full it fails without waiting for
// space, and may be called again; what is not durable then is as after a crash.
func (s *Storage) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		go s.close()
	}
	select {
	case <-s.shut:
		if s.told.Swap(true) {
			return storage.ErrClosed
		}
		return s.shutErr
	case <-s.space.lacking():
		return fmt.Errorf("storage/pebble: close: %w", s.space.refusal())
	}
}

func (s *Storage) close() {
	defer close(s.shut)
	s.life.Lock()
	defer s.life.Unlock()
	s.reclaim.close()
	s.metrics.unregister()
	syncErr := s.db.LogData(nil, pebble.Sync)
	if err := errors.Join(syncErr, s.db.Close()); err != nil {
		s.shutErr = fmt.Errorf("storage/pebble: close: %w", kinded(err))
	}
}

// kinded gives an error of Pebble its kind. What is not known to be damage may be a full disk, which an operator can empty.
func kinded(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrCorruption):
		return fault.Wrap(fault.DataLoss, err)
	default:
		return fault.Wrap(fault.Transient, err)
	}
}
