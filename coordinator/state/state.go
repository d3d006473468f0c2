// Package state is what the Coordinator remembers: prefixes, streams, and the tasks that their life still needs. It holds the
// vocabulary, the one place where transitions are checked (lifecycle.go), the search for streams (find.go), and the interface of
// the stores that keep it (packages sqlite and postgres, both held to the tests of package statetest).
//
// One row a stream holds its whole state machine. A task lives in the row's neighbourhood: it is written in the transaction that
// brings the stream into the state which needs it, so neither can exist without the other.
//
//	err := store.Update(ctx, func(tx state.Tx) error {
//		s, err := tx.Stream(project, id)
//		if err != nil {
//			return err
//		}
//		if _, err := s.Terminate(now, end, note); err != nil {
//			return err
//		}
//		return tx.PutStream(s)
//	})
//
// Times are UTC and rounded to microseconds. Stores are safe for concurrent use; values they return belong to the caller.
package state

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// ErrClosed is returned by every method of a store after Close.
var ErrClosed = fault.New(fault.Transient, "coordinator state: closed")

// Prefix is a registered prefix.
type Prefix struct {
	// Seq numbers prefixes in the order of their registration. It is given by the store.
	Seq     int64
	Project types.Project
	Prefix  types.StreamName
	// Realm is the realm's name within the project.
	Realm  string
	Secret types.PrefixSecret
	// OpNonce identifies the registration, so that a retry is recognized; empty if the registrant gave none.
	OpNonce []byte
	// Source describes the registrant.
	Source  []string
	Created time.Time
	// Expires ends the time in which new streams may be registered.
	Expires time.Time
	// Deleted is when the prefix was deleted; zero if it was not. Nothing below a deleted prefix is shown, and its name is free again when
	// the last of its streams was removed.
	Deleted time.Time
}

// Position returns the prefix's place in a listing, newest first.
func (p *Prefix) Position() Position { return Position{Created: p.Created, Seq: p.Seq} }

// Phase is where a stream is in its life.
type Phase int

const (
	// Open streams may get more entries.
	Open Phase = iota
	// Terminated streams have a known end and are not yet archived.
	Terminated
	// Complete streams are archived with every entry.
	Complete
	// Incomplete streams are archived, and some entries will never come.
	Incomplete
)

// End is what the producer reported about the end of a stream. The zero value is an end not yet known.
type End struct {
	Known bool
	// Index is that of the last entry; -1 for a stream without any.
	Index types.MessageIndex
}

// Note is what else the producer reported about the end.
type Note struct {
	// Reason is empty for a stream that ended by itself.
	Reason string
	// Tags join those of the descriptor; those that are there stay.
	Tags map[string]string
}

// Range is a range of missing indices, both ends included.
type Range struct {
	First types.MessageIndex `json:"first"`
	Last  types.MessageIndex `json:"last"`
	// Reason says why, if the entries arrived and could not be kept. Empty: they never arrived.
	Reason string `json:"reason,omitempty"`
}

// Archive is where and what an archived stream is.
type Archive struct {
	At                    time.Time
	StreamURL, IndexURL   string
	StreamSize, IndexSize int64
	// LastIndex is the highest archived index, -1 if there is none. The reported end is kept apart from it.
	LastIndex  types.MessageIndex
	EntryCount int64
	// ContentSize and Lines are the bytes of content, and the lines or datagrams.
	ContentSize, Lines int64
}

// Stream is a registered stream.
type Stream struct {
	// Seq numbers streams in the order of their registration. It is given by the store.
	Seq int64
	// Prefix is the stream's prefix, which owns project, realm and secret.
	Prefix       *Prefix
	ID           types.StreamID
	Name         types.StreamName
	ProtoVersion string
	// Descriptor is the serialized descriptor as registered, with the tags that its end brought.
	Descriptor       []byte
	Created, Updated time.Time

	Phase Phase
	End   End
	// EndReason says why the stream ended, if it did not end by itself.
	EndReason string
	// Ended is when the end was reported, or when a stream was archived whose end never was.
	Ended time.Time
	// Archive is zero until the stream is archived.
	Archive Archive
	// Missing are the entries that will never come, ascending.
	Missing []Range
	// Purged is when the stream was hidden; zero if it is not.
	Purged time.Time
	// Replaced are archives that a later one took the place of, and that are still to be removed.
	Replaced []Objects
	// Stored is what the store counts for the stream. It is the store's own.
	Stored Volume
}

// Objects are the addresses of an archive's two objects.
type Objects struct {
	StreamURL string `json:"stream"`
	IndexURL  string `json:"index"`
}

// Volume is the size of what is archived.
type Volume struct {
	// Entries are log entries, ContentSize the bytes of content in them, StoredSize the bytes of the archives' objects.
	Entries, ContentSize, StoredSize int64
}

// Volume returns the size of the stream's archive.
func (s *Stream) Volume() Volume {
	return Volume{Entries: s.Archive.EntryCount, ContentSize: s.Archive.ContentSize, StoredSize: s.Archive.StreamSize + s.Archive.IndexSize}
}

// Minus returns the difference.
func (v Volume) Minus(o Volume) Volume {
	return Volume{Entries: v.Entries - o.Entries, ContentSize: v.ContentSize - o.ContentSize, StoredSize: v.StoredSize - o.StoredSize}
}

// Hidden reports whether the stream is shown to nobody but administrators, because it was purged or its prefix was deleted.
func (s *Stream) Hidden() bool { return !s.Purged.IsZero() || !s.Prefix.Deleted.IsZero() }

// Path returns the path of the stream.
func (s *Stream) Path() types.StreamPath { return s.Prefix.Prefix.Join(s.Name) }

// Archived reports whether the stream is read from the archive.
func (s *Stream) Archived() bool { return s.Phase == Complete || s.Phase == Incomplete }

// LastIndex is the end as readers are told it: as reported, or as archived when it never was; -1 while it is not known, and for
// a stream without entries.
func (s *Stream) LastIndex() types.MessageIndex {
	switch {
	case s.End.Known:
		return s.End.Index
	case s.Archived():
		return s.Archive.LastIndex
	}
	return -1
}

// TaskKind says what a task asks for.
type TaskKind int

const (
	// ArchiveTask asks to archive the stream.
	ArchiveTask TaskKind = iota
	// ExpungeTask asks to verify the archive and to remove the entries from storage.
	ExpungeTask
	// RemoveTask asks to remove the stream for good: its entries, its archive, and what is remembered of it.
	RemoveTask
)

// Task is work that is due at a time. There is at most one of a kind for a stream.
type Task struct {
	// Seq names the task. It is given by the store and never used again.
	Seq    int64
	Stream *Stream
	Kind   TaskKind
	// Available is when the task can be leased: its due time, or the end of its lease.
	Available time.Time
	// LeaseEnd is zero unless the task is leased.
	LeaseEnd time.Time
	// Attempts counts leases; Failures those that did not end well.
	Attempts, Failures int
	LastError          string
	// Dead is when the task was given up; zero if it was not. Dead tasks are kept for the operator and never leased.
	Dead time.Time
}

// TaskQuery selects tasks in the order of their Seq.
type TaskQuery struct {
	// Dead selects the tasks that were given up, and no others.
	Dead bool
	// After is the Seq of the last task of the page before.
	After int64
	// Limit is the most tasks wanted; it must be positive.
	Limit int
}

// OldestQuery selects streams, oldest first.
type OldestQuery struct {
	// Prefix is the prefix whose streams are wanted. If it is nil, those of the project are.
	Prefix  *Prefix
	Project types.Project
	// Before is the time before which the streams of a project were created and have ended.
	Before time.Time
	// Purged also selects those streams of a prefix that are purged.
	Purged bool
	// After is the place of the last stream of the page before.
	After Position
	// Limit is the most streams wanted; it must be positive.
	Limit int
}

// Store keeps the state.
type Store interface {
	// Update runs fn in a transaction of its own: all of its changes survive a crash, or none happened. They have reached
	// stable storage when Update returns nil. fn may be run more than once, must not block, and must not use the Tx
	// afterwards. An error of fn undoes its changes and is returned as it is.
	Update(ctx context.Context, fn func(Tx) error) error

	// Prefix returns a prefix, or an error of kind NotFound.
	Prefix(ctx context.Context, project types.Project, prefix types.StreamName) (*Prefix, error)
	// Stream returns a stream, or an error of kind NotFound.
	Stream(ctx context.Context, project types.Project, id types.StreamID) (*Stream, error)
	// Registered returns a stream, or nil if there is none, and its prefix, or nil.
	Registered(ctx context.Context, project types.Project, prefix types.StreamName, id types.StreamID) (*Prefix, *Stream, error)
	// FindStreams returns streams that the query selects, and where to go on. It looks at no more than Window streams in a call, so
	// that there may be fewer than wanted, or none, although there are more; there are no more when next is zero.
	FindStreams(ctx context.Context, q StreamQuery) (found []*Stream, next Position, err error)
	// FindPrefixes returns what the query selects.
	FindPrefixes(ctx context.Context, q PrefixQuery) ([]*Prefix, error)
	// Folders returns the folders of prefixes within a folder, by name.
	Folders(ctx context.Context, q FolderQuery) ([]Folder, error)
	// Usage returns what a project holds. It costs the same however much that is.
	Usage(ctx context.Context, project types.Project) (Usage, error)
	// ArchivedSince returns how many bytes of content of a project were archived from a time on. It costs more, the more streams
	// that were.
	ArchivedSince(ctx context.Context, project types.Project, since time.Time) (int64, error)
	// OldestStreams returns what the query selects.
	OldestStreams(ctx context.Context, q OldestQuery) ([]*Stream, error)
	// EmptyPrefixes returns prefixes without streams, created and expired before the time, oldest first, from behind a place.
	EmptyPrefixes(ctx context.Context, project types.Project, before time.Time, after Position, limit int) ([]*Prefix, error)
	// DeletedPrefixes returns prefixes that were deleted and of which something is left.
	DeletedPrefixes(ctx context.Context, limit int) ([]*Prefix, error)
	// Projects returns the projects that have a prefix, by name.
	Projects(ctx context.Context) ([]types.Project, error)
	// NextTask returns when the next task can be leased, and false if there is no task.
	NextTask(ctx context.Context) (time.Time, bool, error)
	// PendingTasks counts the tasks that can be leased now or are leased.
	PendingTasks(ctx context.Context, now time.Time) (int, error)
	// Tasks returns tasks, for the operator.
	Tasks(ctx context.Context, q TaskQuery) ([]*Task, error)

	Leases
	Tokens

	// WatchStream wakes after the stream was added or changed. Subscribe before looking; stop must be called once. A store that other
	// processes share also wakes when one of them changed something, within 100 ms, and may wake without a reason.
	WatchStream(project types.Project, id types.StreamID) (changed <-chan struct{}, stop func())
	// WatchTasks wakes after tasks were added or became available at another time; when another process did it, if that changed
	// what NextTask says.
	WatchTasks() (changed <-chan struct{}, stop func())

	// Close waits for the running transactions and releases the store.
	Close() error
}

// Tx is a transaction. It is used by one goroutine.
type Tx interface {
	// Prefix and Stream return what Store's methods of the same names return.
	Prefix(project types.Project, prefix types.StreamName) (*Prefix, error)
	Stream(project types.Project, id types.StreamID) (*Stream, error)
	// OpenStreams counts the open streams of a project, and RecentPrefixes its prefixes that were registered from a time on; both
	// stop at a limit. Transactions that run at once may not see each other's.
	OpenStreams(project types.Project, limit int64) (int64, error)
	RecentPrefixes(project types.Project, since time.Time, limit int64) (int64, error)
	// AddPrefix and AddStream store something new, and set its Seq when Update returns or something is read. If the name is taken, the error
	// of this call or of Update is of kind Exists.
	AddPrefix(p *Prefix) error
	AddStream(s *Stream) error
	// PutStream stores a changed stream. Its identity and prefix do not change.
	PutStream(s *Stream) error
	// PutPrefix stores the changed times of a prefix.
	PutPrefix(p *Prefix) error
	// DeleteStream removes a stream, with its tasks.
	DeleteStream(s *Stream) error
	// DeletePrefix removes a prefix unless it has streams. It reports whether it did.
	DeletePrefix(p *Prefix) (bool, error)

	// AddTask stores a new task and sets its Seq, as AddStream does.
	AddTask(t *Task) error
	// PutTask stores a changed task.
	PutTask(t *Task) error
	// DeleteTask removes a task.
	DeleteTask(t *Task) error
	// Task returns the stream's task of a kind, or nil.
	Task(s *Stream, kind TaskKind) (*Task, error)
	// TaskBySeq returns a task, or nil.
	TaskBySeq(seq int64) (*Task, error)
	// AvailableTasks returns tasks that can be leased now, the longest available first.
	AvailableTasks(now time.Time, limit int) ([]*Task, error)
}
