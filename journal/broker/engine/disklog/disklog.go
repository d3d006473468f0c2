// Package disklog is the journal engine on a local disk: one log for all journals, and a file for each fragment.
//
// An append is durable once its record is in the log. Whatever waits is written at once and synced once, so that many appends
// share a sync and a single one waits for no timer. Small content lies in the record and, by way of the page cache, in the
// fragment's file; large content lies in the file only, which is synced first. Readers are served from the files, and see
// what is durable. Checkpoints tell what the log said so far, so that its segments can be used again.
//
//	log/<number>           segments of the log
//	checkpoint/<number>    the two last checkpoints
//	journals/<id>/         the fragments of a journal: <begin>.open grows, <begin>-<end>-<sha1>.raw is finished
//	staging/               content of appends that are on their way
//
// The bytes are described in docs/formats/journal-log.md.
//
// At start the log is replayed from the last checkpoint on. A torn tail, which is what a crash in the middle of a write leaves, is
// cut; nothing in it has been acknowledged. Damage elsewhere costs the records that it hit: what can be told of the ranges
// they covered is reported and marked, reads of these fail with fault.DataLoss, and all else goes on.
//
// A sync that failed is final, since nobody can tell what is on the disk: appends fail until a restart, reads go on, and
// Ready tells. A full disk is not final: appends fail as long as it is full. With a Budget that does not come about by us.
//
// The directory must be used by one process only; to ensure that is the caller's business. A Log is safe for concurrent use.
package disklog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	logDir        = "log"
	checkpointDir = "checkpoint"
	journalsDir   = "journals"
	stagingDir    = "staging"
)

var errClosed = fault.New(fault.Transient, "journal log: closed")

// Options adjust a Log. Zero values mean what each field says.
type Options struct {
	// FS is the file system; nil is the real one.
	FS vfs.FS
	// SegmentSize is the size of the log's segments; 0 is 64 MiB. No record is larger. It may differ from start to start.
	SegmentSize int64
	// InlineSize is the largest content that is written to the log; 0 is 256 KiB.
	InlineSize int
	// AdoptSize is the least size of staged content that becomes a fragment as it is, without being copied; 0 is 16 MiB.
	AdoptSize int64
	// OpenFiles is how many files of fragments that nobody reads or writes may be open; 0 is 256.
	OpenFiles int
	// CheckpointInterval is the longest time from a change to a checkpoint; 0 is a minute.
	CheckpointInterval time.Duration
	// Budget bounds the disk space that journals take.
	Budget Budget
	// Space tells the space of a directory's file system; nil is vfs.SpaceOf. With a file system that is not the real one,
	// nil is none.
	Space func(dir string) (vfs.Space, error)
	// Logger takes reports; nil drops them.
	Logger *slog.Logger
	// Registerer takes metrics; nil drops them.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.Space == nil {
		o.Space = vfs.SpaceOf
		if o.FS != nil {
			o.Space = func(string) (vfs.Space, error) { return vfs.Space{Free: math.MaxInt64}, nil }
		}
	}
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.InlineSize == 0 {
		o.InlineSize = 256 << 10
	}
	if o.AdoptSize == 0 {
		o.AdoptSize = 16 << 20
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = 256
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Log is an engine. It is made by Open.
type Log struct {
	dir      string
	opts     Options
	identity engine.Identity
	metrics  *metrics
	writer   *writer
	segments *segments
	files    files
	budget   budget
	buffers  sync.Pool // of *[]byte, 1 MiB each
	blocks   sync.Pool // of *[]byte, as large as a block
	staged   atomic.Uint64

	hub      wake.Hub[protocol.Journal]
	specsHub wake.Hub[struct{}]

	applyMu sync.Mutex // held by Apply until its change is published
	nextID  uint64     // guarded by applyMu

	mu       sync.RWMutex
	specs    *engine.Specs
	specsSeq uint64 // of the last apply record in specs
	journals map[protocol.Journal]*journal
	dirty    map[*journal]struct{} // changed since the last checkpoint

	// checkpoints asks the checkpointer for one.
	checkpoints chan struct{}
	stop        chan struct{}
	stopped     chan struct{}
	kept        []checkpointFile // guarded by checkpointMu
	checkMu     sync.Mutex
}

var _ engine.Engine = (*Log)(nil)

// Open opens the log in a directory, which is created if it does not exist, and recovers what is there.
func Open(ctx context.Context, dir string, opts Options) (*Log, error) {
	l := &Log{
		dir:         dir,
		opts:        opts.withDefaults(),
		metrics:     newMetrics(opts.Registerer),
		journals:    make(map[protocol.Journal]*journal),
		dirty:       make(map[*journal]struct{}),
		checkpoints: make(chan struct{}, 1),
		stop:        make(chan struct{}),
		stopped:     make(chan struct{}),
	}
	l.files.fs, l.files.most = l.opts.FS, l.opts.OpenFiles
	l.budget = budget{limits: l.opts.Budget, dir: dir, space: l.opts.Space, held: &l.files.held, logger: l.opts.Logger, metrics: l.metrics}
	l.buffers.New = func() any {
		b := make([]byte, 1<<20)
		return &b
	}
	l.blocks.New = func() any {
		b := make([]byte, blockSize)
		return &b
	}
	if l.opts.SegmentSize < 4<<10 || l.opts.SegmentSize > 1<<31 || int64(l.opts.InlineSize) > l.opts.SegmentSize/2 {
		return nil, fault.New(fault.Invalid, "open journal log in %s: segments of %d bytes do not fit content of %d bytes",
			dir, l.opts.SegmentSize, l.opts.InlineSize)
	}
	begin := time.Now()
	if err := l.recover(ctx); err != nil {
		err = fmt.Errorf("open journal log in %s: %w", dir, err)
		if l.writer != nil {
			err = errors.Join(err, l.writer.segment.file.Close())
		}
		return nil, errors.Join(err, l.files.closeAll())
	}
	l.metrics.recoverySeconds.Set(time.Since(begin).Seconds())
	go l.writer.run()
	go l.checkpointer()
	return l, nil
}

func (l *Log) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// Identity tells whose revisions these are.
func (l *Log) Identity() engine.Identity { return l.identity }

// Ready returns why appends are not possible, or nil.
func (l *Log) Ready() error {
	if err := l.writer.failure(); err != nil {
		return err
	}
	return l.budget.ready()
}

// Close writes what is queued, and a checkpoint so that the next start has nothing to replay.
func (l *Log) Close(context.Context) error {
	close(l.stop)
	<-l.stopped
	err := l.writer.close()
	if l.writer.failure() == nil && err == nil {
		err = l.checkpoint()
	}
	if err = errors.Join(err, l.files.closeAll()); err != nil {
		return fmt.Errorf("close journal log: %w", err)
	}
	return nil
}

// journal returns a journal that exists.
func (l *Log) journal(name protocol.Journal) (*journal, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if j := l.journals[name]; j != nil {
		return j, nil
	}
	return nil, unknownJournal(name)
}

func (l *Log) markDirty(j *journal) {
	l.mu.RLock()
	_, ok := l.dirty[j]
	l.mu.RUnlock()
	if ok {
		return
	}
	l.mu.Lock()
	l.dirty[j] = struct{}{}
	l.mu.Unlock()
}

// published wakes whoever waits for the changes of a batch.
func (l *Log) published(b *batch) {
	names := make([]protocol.Journal, 0, len(b.entries))
	for _, e := range b.entries {
		if c, ok := e.(*change); ok {
			names = append(names, c.journal.name)
		}
	}
	l.hub.Wake(names...)
}

// Load returns what is durable of a journal.
func (l *Log) Load(_ context.Context, name protocol.Journal) (engine.State, error) {
	j, err := l.journal(name)
	if err != nil {
		return engine.State{}, err
	}
	return j.durable.Load().load(j.created), nil
}

// Watch subscribes to changes of a journal.
func (l *Log) Watch(name protocol.Journal) (<-chan struct{}, func()) { return l.hub.Watch(name) }

// Stored notes that a store has a finished fragment. Its file goes as soon as nobody reads it.
func (l *Log) Stored(ctx context.Context, name protocol.Journal, f engine.StoredFragment) error {
	j, err := l.journal(name)
	if err != nil {
		return err
	}
	b, err := l.stored(j, f)
	if err == nil {
		// Not given up with the caller's context: the file is to be removed exactly when the record is durable.
		err = l.writer.await(context.WithoutCancel(ctx), b)
	}
	if err == nil {
		err = j.dropContent(f.Begin)
	}
	if err != nil {
		return fmt.Errorf("note that [%d, %d) of %s is stored: %w", f.Begin, f.End, name, err)
	}
	return nil
}

func (l *Log) stored(j *journal, f engine.StoredFragment) (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if j.gone {
			return nil, unknownJournal(j.name)
		}
		j.refresh(l.writer.current())
		i, ok := slices.BinarySearchFunc(j.next.finished, f.Begin, compareBegin)
		if !ok || j.next.finished[i].End != f.End || j.next.finished[i].Sum != f.Sum {
			return nil, fault.New(fault.NotFound, "there is no such fragment any more")
		}
		b, err := l.order(j, recordStored, encodeStored(j.id, f), nil, j.next.store(f))
		if !errors.Is(err, errStale) {
			return b, err
		}
	}
}

// Trim drops finished fragments. Their files go as soon as nobody reads them.
func (l *Log) Trim(ctx context.Context, name protocol.Journal, below protocol.Offset) error {
	j, err := l.journal(name)
	if err != nil {
		return err
	}
	dropped, b, err := l.trim(j, below)
	if err != nil {
		return fmt.Errorf("trim %s below %d: %w", name, below, err)
	}
	if b == nil {
		return nil
	}
	// Not given up with the caller's context: the files are to be removed exactly when the record is durable.
	if err := l.writer.await(context.WithoutCancel(ctx), b); err != nil {
		return fmt.Errorf("trim %s below %d: %w", name, below, err)
	}
	var errs []error
	for _, f := range dropped {
		errs = append(errs, j.dropContent(f.Begin))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("trim %s below %d: %w", name, below, err)
	}
	return nil
}

func (l *Log) trim(j *journal, below protocol.Offset) (dropped []engine.Fragment, b *batch, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if j.gone {
			return nil, nil, unknownJournal(j.name)
		}
		j.refresh(l.writer.current())
		next, dropped := j.next.trim(below)
		if next == j.next {
			return nil, nil, nil
		}
		b, err := l.order(j, recordTrim, encodeTrim(j.id, next.lowest()), nil, next)
		if !errors.Is(err, errStale) {
			return dropped, b, err
		}
	}
}
