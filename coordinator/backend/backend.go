// Package backend is the life of a stream: it moves streams from state to state and keeps, in the same transaction, the tasks
// that each state needs. Everything durable that a stream still has to go through is a task; there are no timers to lose.
//
// A registered stream has an archive task due far in the future, so that a stream whose end is never reported does not
// stay open for ever. When the end is reported, the task becomes due at once. Whether everything has arrived is for the
// Archivist to see: it hands the task back while entries are missing. When it reports the archive, the task makes way for
// another one, due after a grace period, which asks to verify the archive and to remove the entries from storage.
//
// All methods are safe for concurrent use.
package backend

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Policy says when things happen. Zero fields mean the defaults.
type Policy struct {
	// Settle is how long after its end a stream is archived; at once by default.
	Settle time.Duration
	// OpenLimit is how long after its registration a stream that has not ended is offered for archival; 48 hours.
	OpenLimit time.Duration
	// ExpungeGrace is how long storage keeps the entries of an archived stream; one minute.
	ExpungeGrace time.Duration
	// MaxFailures is how many attempts at a task may fail before it is given up; 100.
	MaxFailures int
}

func (p Policy) withDefaults() Policy {
	p.OpenLimit = cmp.Or(p.OpenLimit, 48*time.Hour)
	p.ExpungeGrace = cmp.Or(p.ExpungeGrace, time.Minute)
	p.MaxFailures = cmp.Or(p.MaxFailures, 100)
	return p
}

// Backend applies a policy to the streams of a store.
type Backend struct {
	store   state.Store
	policy  Policy
	log     *slog.Logger
	metrics *metrics
}

// New returns a Backend. It has nothing to close.
func New(store state.Store, policy Policy, log *slog.Logger, reg prometheus.Registerer) (*Backend, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	return &Backend{store: store, policy: policy.withDefaults(), log: log, metrics: m}, nil
}

// Registration is the wish to register a stream.
type Registration struct {
	Project      types.Project
	Prefix, Name types.StreamName
	Secret       types.PrefixSecret
	ProtoVersion string
	// Descriptor is serialized, and has been checked.
	Descriptor []byte
	// End is the end of the stream, if it is known already.
	End state.End
	// Note is what there is to say of it.
	Note state.Note
}

// Register registers a stream, or returns the one that is registered; then nothing changes, whatever else the registration says.
// The time in which streams may be registered limits new streams only.
func (b *Backend) Register(ctx context.Context, r Registration) (*state.Stream, error) {
	id := r.Prefix.Join(r.Name).ID()
	s, err := b.store.Stream(ctx, r.Project, id)
	if err == nil {
		return s, checkSecret(s.Prefix, r.Secret)
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	err = b.store.Update(ctx, func(tx state.Tx) error {
		s, err = tx.Stream(r.Project, id)
		if err == nil {
			return checkSecret(s.Prefix, r.Secret)
		}
		if !fault.Is(err, fault.NotFound) {
			return err
		}
		s, err = b.add(tx, id, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// add stores a new stream and its archive task.
func (b *Backend) add(tx state.Tx, id types.StreamID, r Registration) (*state.Stream, error) {
	p, err := tx.Prefix(r.Project, r.Prefix)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.Precondition, "prefix is not registered")
	}
	if err != nil {
		return nil, err
	}
	now := clock()
	if !now.Before(p.Expires) {
		return nil, fault.New(fault.Precondition, "time to register streams below this prefix ended at %s", p.Expires.Format(time.RFC3339))
	}
	if err := checkSecret(p, r.Secret); err != nil {
		return nil, err
	}
	s := &state.Stream{
		Prefix: p, ID: id, Name: r.Name, ProtoVersion: r.ProtoVersion, Descriptor: r.Descriptor,
		Created: now, Updated: now,
	}
	due := now.Add(b.policy.OpenLimit)
	if r.End.Known {
		if _, err := s.Terminate(now, r.End, r.Note); err != nil {
			return nil, err
		}
		due = now.Add(b.policy.Settle)
	}
	if err := tx.AddStream(s); err != nil {
		return nil, err
	}
	return s, tx.AddTask(&state.Task{Stream: s, Kind: state.ArchiveTask, Available: due})
}

// Terminate records the end of a stream.
func (b *Backend) Terminate(ctx context.Context, project types.Project, id types.StreamID, secret types.PrefixSecret, end state.End, note state.Note) error {
	return b.store.Update(ctx, func(tx state.Tx) error {
		s, err := tx.Stream(project, id)
		if err != nil {
			return err
		}
		if err := checkSecret(s.Prefix, secret); err != nil {
			return err
		}
		now := clock()
		changed, err := s.Terminate(now, end, note)
		if err != nil || !changed {
			return err
		}
		if err := tx.PutStream(s); err != nil {
			return err
		}
		if s.Archived() {
			return nil
		}
		return schedule(tx, s, state.ArchiveTask, now.Add(b.policy.Settle))
	})
}

// Archive records that a stream was archived. The task that asked for it makes way for the one that expunges.
func (b *Backend) Archive(ctx context.Context, project types.Project, id types.StreamID, a state.Archive, missing []state.Range) error {
	return b.store.Update(ctx, func(tx state.Tx) error {
		s, task, err := tasked(tx, project, id)
		if err != nil || s.Archived() {
			return err
		}
		now := clock()
		if _, err := s.SetArchive(now, a, missing); err != nil {
			return err
		}
		if err := tx.PutStream(s); err != nil {
			return err
		}
		if err := tx.DeleteTask(task); err != nil {
			return err
		}
		return tx.AddTask(&state.Task{Stream: s, Kind: state.ExpungeTask, Available: now.Add(b.policy.ExpungeGrace)})
	})
}

// ArchiveFailed gives up the archival of a stream. Its entries stay in storage, and it is read from there.
func (b *Backend) ArchiveFailed(ctx context.Context, project types.Project, id types.StreamID, reason string) error {
	return b.store.Update(ctx, func(tx state.Tx) error {
		s, task, err := tasked(tx, project, id)
		if err != nil || s.Archived() || !task.Dead.IsZero() {
			return err
		}
		return b.bury(tx, task, reason)
	})
}

// tasked returns a stream and its archive task. Only an archived stream may be without one.
func tasked(tx state.Tx, project types.Project, id types.StreamID) (*state.Stream, *state.Task, error) {
	s, err := tx.Stream(project, id)
	if err != nil {
		return nil, nil, err
	}
	task, err := tx.Task(s, state.ArchiveTask)
	if err == nil && task == nil && !s.Archived() {
		err = fault.New(fault.Precondition, "stream has no archive task")
	}
	return s, task, err
}

// schedule makes a task available at the given time at the latest. A task that is leased is replaced: what its holder does has been
// overtaken, and its word about the task no longer counts.
func schedule(tx state.Tx, s *state.Stream, kind state.TaskKind, due time.Time) error {
	task, err := tx.Task(s, kind)
	if err != nil {
		return err
	}
	if task != nil && task.Dead.IsZero() && task.LeaseEnd.IsZero() {
		if !due.Before(task.Available) {
			return nil
		}
		task.Available = due
		return tx.PutTask(task)
	}
	if task != nil {
		if err := tx.DeleteTask(task); err != nil {
			return err
		}
	}
	return tx.AddTask(&state.Task{Stream: s, Kind: kind, Available: due})
}

func checkSecret(p *state.Prefix, secret types.PrefixSecret) error {
	if !p.Secret.Equal(secret) {
		return fault.New(fault.Invalid, "secret is not that of the prefix")
	}
	return nil
}

// clock returns the time with the precision that the state has.
func clock() time.Time { return time.Now().UTC().Round(time.Microsecond) }
