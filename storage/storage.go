// Package storage holds the recent entries of streams, between ingest and archive. The interface is implemented by several
// engines (memory, pebble, …), all held to the same tests (package storagetest).
//
// A Collector puts entries, a reader gets them while they are fresh, the Archivist copies them all to the archive and, when
// the archive has been verified and a grace period has passed, expunges them.
//
// Entries are keyed by (project, path, index). An entry that arrives again changes nothing and is no error: every message may be
// delivered twice. However rows are packed inside, overlapping and repeated runs never hide or repeat an entry.
//
// All methods are safe for concurrent use, return errors with a kind (package fault; transient is one), and never swallow a
// failure: a store that cannot be read is never an empty stream.
package storage

import (
	"context"
	"math"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// MaxEntrySize is the largest serialized entry, in bytes (spec archive 3.3).
	MaxEntrySize = 10 << 20
	// MaxBatchSize is the most bytes of values in one batch.
	MaxBatchSize = 1 << 30
)

var (
	// ErrDoesNotExist is returned by Tail for a stream without entries.
	ErrDoesNotExist = fault.New(fault.NotFound, "storage: no such entry")
	// ErrReadOnly is returned by stores that cannot be written.
	ErrReadOnly = fault.New(fault.Unimplemented, "storage: read only")
	// ErrClosed is returned by every method after Close.
	ErrClosed = fault.New(fault.Transient, "storage: closed")
)

// Stream names a stream.
type Stream struct {
	Project types.Project
	Path    types.StreamPath
}

// String returns project/path.
func (s Stream) String() string { return string(s.Project) + "/" + string(s.Path) }

// PutRequest is a run of serialized entries: Values[k] has the index Index+k.
type PutRequest struct {
	Stream
	Index  types.MessageIndex
	Values [][]byte
}

// Validate refuses a run that no store can hold: negative indices, indices that overflow, values above MaxEntrySize.
func (r *PutRequest) Validate() error {
	if r.Index < 0 || int64(r.Index) > math.MaxInt64-int64(len(r.Values)) {
		return fault.New(fault.Invalid, "storage: put %s: %d entries from index %d: no such indices", r.Stream, len(r.Values), r.Index)
	}
	for i, v := range r.Values {
		if len(v) > MaxEntrySize {
			return fault.New(fault.Invalid, "storage: put %s: entry %d has %d bytes; at most %d are allowed",
				r.Stream, r.Index+types.MessageIndex(i), len(v), MaxEntrySize)
		}
	}
	return nil
}

// Size is the bytes of the values.
func (r *PutRequest) Size() int {
	n := 0
	for _, v := range r.Values {
		n += len(v)
	}
	return n
}

// GetRequest selects entries with an index of at least Index, in ascending order.
type GetRequest struct {
	Stream
	Index types.MessageIndex
	// Limit is the most entries wanted; zero or less is no limit.
	Limit int
	// KeysOnly permits to leave out the entries' data.
	KeysOnly bool
}

// Entry is a stored entry.
type Entry struct {
	Index types.MessageIndex
	// Data is the serialized logpb.LogEntry; nil when only keys were asked for. It is valid during the callback of Get, and
	// for ever when returned by Tail. It must not be changed.
	Data []byte
}

// GetCallback receives one entry. It returns false to stop.
type GetCallback func(Entry) bool

// Storage is a store of entries.
type Storage interface {
	// Put stores a run of entries. It may return before they are on stable storage (see Sync), but not before Get sees them.
	// Indices that are already there are left as they are, whatever the new value, and the others are stored. The values may
	// be kept and must not be changed afterwards.
	Put(ctx context.Context, r PutRequest) error
	// Get calls cb for each entry, with gaps where there are gaps. A stream without entries gives none and no error. It may
	// stop early for its own reasons: fewer entries than wanted do not mean the end.
	Get(ctx context.Context, r GetRequest, cb GetCallback) error
	// Tail returns the last entry of the run that begins at index 0 without a gap, or ErrDoesNotExist.
	Tail(ctx context.Context, s Stream) (Entry, error)
	// Expunge removes all entries of the stream. They are gone for good when it returns.
	Expunge(ctx context.Context, s Stream) error
	// Watch wakes a reader after entries of the stream became visible to Get: at once when this process put them, and within
	// 100 ms when another one did. The channel's wake-ups are coalesced, and there may be some without a reason; stop must be called
	// once. Subscribe before looking.
	Watch(s Stream) (changed <-chan struct{}, stop func())
	// NewBatch begins a batch of puts.
	NewBatch() Batch
	// Checkpoint returns the furthest position of that reader that a committed batch recorded; zero if there was none.
	Checkpoint(ctx context.Context, reader string) (int64, error)
	// Sync returns when everything that was committed before the call is on stable storage.
	Sync(ctx context.Context) error
	// Close releases the store. It may be called once.
	Close() error
}

// Batch collects puts that become visible, and survive a crash, together or not at all; with them the position of the reader
// of the journal they came from. So after a crash the reader goes on exactly behind what is stored, and loses and repeats nothing.
// An engine without transactions stores the position last, so that the reader repeats what was stored in part, which changes nothing.
// A Batch is used by one goroutine at a time.
type Batch interface {
	// Put adds a run of entries. The values must not be changed afterwards.
	Put(r PutRequest) error
	// SetCheckpoint records the reader's position: the journal offset of the first byte not covered by the batch. A position behind
	// the one that is recorded already changes nothing: of two processes that read a journal at the same time, the slower one must not
	// take back what the faster one has done.
	SetCheckpoint(reader string, offset int64)
	// Size is the bytes of the values put so far.
	Size() int
	// Commit applies the batch and wakes the watchers. The batch is empty afterwards and can be used again. If it fails, nothing
	// was applied, or, when the connection to an engine broke, nobody knows. The batch is as it was and can be committed again,
	// which does not repeat what was applied.
	Commit(ctx context.Context) error
	// Close releases the batch without applying it. After Commit it does nothing.
	Close() error
}
