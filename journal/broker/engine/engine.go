// Package engine is what a broker stands on: it keeps the specs of journals, orders appends, and holds content until
// fragments of it are stored elsewhere. The broker's RPCs, its index and its uploads are the same for all engines.
//
// An engine that returns no error has made the change durable: it survives the death of the process and a loss of power.
// What Load and Reader show is durable too. Nothing here assumes that there is one broker only, a leader, a lease or a
// local file: an engine may be a log on a local disk (package disklog) or a database with conditional writes that many
// brokers share. All engines pass the tests of package enginetest.
//
// Errors carry a kind (package fault): Transient where the same call may succeed later, NotFound for unknown journals, DataLoss
// for content that is damaged. All methods are safe for concurrent use.
package engine

import (
	"context"
	"io"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// Engine orders and keeps.
type Engine interface {
	// Identity tells whose revisions these are.
	Identity() Identity

	// Specs returns the latest known specs of all journals.
	Specs() *Specs
	// AwaitSpecs returns the specs as soon as their revision is greater than after.
	AwaitSpecs(ctx context.Context, after int64) (*Specs, error)
	// Apply changes specs: all, or none. The changes are valid, and no two are about the same journal. ErrRevision says
	// that an expected revision did not match. The result is the revision at which the changes, or without any the specs
	// as they are, can be seen through Specs of this engine.
	Apply(ctx context.Context, changes []*protocol.ApplyRequest_Change) (revision int64, err error)

	// Load returns what is durable of a journal.
	Load(ctx context.Context, journal protocol.Journal) (State, error)
	// Watch subscribes to changes of a journal: commits, trims, its deletion. The channel receives after each of them,
	// coalesced. A caller subscribes, loads, and waits when it finds nothing. stop must be called once.
	Watch(journal protocol.Journal) (changed <-chan struct{}, stop func())
	// Open returns a reader of a fragment that Load returned. NotFound says that it has been trimmed meanwhile.
	Open(ctx context.Context, journal protocol.Journal, fragment Fragment) (Reader, error)

	// Stage takes the content of an append that is too large for memory, before its place in the journal is known.
	Stage(ctx context.Context) (Stage, error)
	// Commit appends, if the journal's state at its turn allows it. When the context ends while the commit is under way,
	// the outcome is unknown to the caller, as it is after any error but a refusal.
	Commit(ctx context.Context, journal protocol.Journal, append *Append) (Result, error)
	// Stored notes that a store has a finished fragment now, and drops the engine's own copy. The fragment moves from
	// State.Finished to State.Stored at once. NotFound says that the engine has it no more.
	Stored(ctx context.Context, journal protocol.Journal, fragment StoredFragment) error
	// Trim drops whole fragments that end at or below an offset and are finished, also those that are stored. Readers jump
	// over what was dropped. Objects in stores are the caller's business.
	Trim(ctx context.Context, journal protocol.Journal, below protocol.Offset) error

	// Ready returns why appends are not possible, or nil.
	Ready() error
	// Tight reports whether space for content runs out, so that whatever can be stored elsewhere should be. It is cheap.
	Tight() bool
	// Close makes everything durable and ends. No other call may be under way or follow.
	Close(ctx context.Context) error
}

// Identity distinguishes one keeper of revisions from another. All fields are positive.
type Identity struct {
	// Cluster is drawn at random when the engine's data is created.
	Cluster uint64
	// Member is drawn at random for each keeper within it.
	Member uint64
	// Term grows with each start.
	Term uint64
}

// State is what is durable of a journal. It is not to be modified.
type State struct {
	// Created is the revision at which the journal was created. A journal that was deleted and created again has another.
	Created int64
	// Head is where the next append lands.
	Head protocol.Offset
	// Registers are the journal's registers; nil when there have never been any.
	Registers *protocol.LabelSet
	// Finished are the fragments that will not grow and that the engine holds, Stored those that stores have instead. Both are
	// ascending, and no two of all overlap. Content that is missing between them was trimmed, or skipped on purpose.
	Finished []Fragment
	Stored   []StoredFragment
	// Trimmed is the offset below which content was dropped, or zero.
	Trimmed protocol.Offset
	// Open is the fragment that grows. It is empty and begins at Head when there is none.
	Open Fragment
}

// Begin returns the lowest offset of content that the engine knows, and Head if it knows none.
func (s *State) Begin() protocol.Offset {
	begin := s.Open.Begin
	if len(s.Finished) != 0 {
		begin = s.Finished[0].Begin
	}
	if len(s.Stored) != 0 {
		begin = min(begin, s.Stored[0].Begin)
	}
	return begin
}

// Fragment is a run of a journal's content.
type Fragment struct {
	Begin, End protocol.Offset
	// Sum is the SHA-1 of the content. It is zero for an empty fragment, and for one that is damaged.
	Sum [20]byte
	// Codec is how the fragment is to be encoded once it is stored. It is fixed when the fragment begins.
	Codec protocol.CompressionCodec
	// FirstAppend and LastAppend are the times of the first and of the last append into the fragment, in Unix seconds; zero if
	// they are not known.
	FirstAppend, LastAppend int64
	// Postfix is part of the fragment's path in stores. It is fixed when the fragment is finished, so that the path is the same
	// however often the fragment is stored.
	Postfix string
}

// StoredFragment is a fragment that a store has.
type StoredFragment struct {
	Fragment
	// Store is the URL of the store.
	Store protocol.FragmentStore
	// Modified is when it was stored by the store's clock, in Unix seconds.
	Modified int64
}

// Len returns the number of bytes in the fragment.
func (f *Fragment) Len() int64 { return int64(f.End - f.Begin) }

// Reader reads the content of a fragment.
type Reader interface {
	// ReadAt reads bytes from the offset of the journal on, as io.ReaderAt does, up to the end that the fragment had when the
	// reader was opened. The error is of kind DataLoss where content is damaged.
	ReadAt(p []byte, off protocol.Offset) (int, error)
	io.Closer
}

// Stage holds the content of an append on its way. It is used by one goroutine.
type Stage interface {
	io.Writer
	// Close drops what Commit has not taken. It must be called in any case.
	io.Closer
}
