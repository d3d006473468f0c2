// Package backend is the life of a stream: it moves streams from state to state and keeps, in the same transaction, the tasks
// that each state needs. Everything durable that a stream still has to go through is a task; there are no timers to lose.
//
// A registered stream has an archive task that is due when nothing was heard of the stream for long, so that a stream whose end is never
// reported does not stay open for ever, and one that produces lives as long as it does: Collectors register the streams that they
// get entries of every few minutes, which are signs of life. When the end is reported, the task becomes due at once. Whether everything has
// arrived is for the Archivist to see: it hands the task back while entries are missing. When it reports the archive, the task makes way for
// another one, due after a grace period, which asks to verify the archive and to remove the entries from storage.
//
// If entries come for a stream that was archived without them, its registration reopens it: it gets an archive task again, and its next
// archive is made of the one before and of what came. Archives that were replaced are removed with the entries. What is purged, deleted, or
// older than its project's retention gets a task to remove it for good (removal.go, sweep.go).
//
// All methods are safe for concurrent use.
package backend

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Policy says when things happen. Zero fields mean the defaults.
type Policy struct {
	// Settle is how long after its end a stream is archived; at once by default.
	Settle time.Duration
	// OpenLimit is how long nothing is heard of a stream that has not ended before it is offered for archival; 48 hours. It should be
	// several times as long as Collectors remember streams, which is 10 minutes. Signs of life are recorded every eighth of it.
	OpenLimit time.Duration
	// ExpungeGrace is how long storage keeps the entries of a stream that is completely archived; one minute.
	ExpungeGrace time.Duration
	// RemoveDelay is how long Collectors may go on to store entries of a stream that they have seen open. For so long, storage keeps the
	// entries of a stream that is archived incompletely, in case more come, and is nothing removed that was deleted. 15 minutes.
	RemoveDelay time.Duration
	// MaxFailures is how many attempts at a task may fail before it is given up; 100.
	MaxFailures int
}

func (p Policy) withDefaults() Policy {
	p.OpenLimit = cmp.Or(p.OpenLimit, 48*time.Hour)
	p.ExpungeGrace = cmp.Or(p.ExpungeGrace, time.Minute)
	p.RemoveDelay = cmp.Or(p.RemoveDelay, 15*time.Minute)
	p.MaxFailures = cmp.Or(p.MaxFailures, 100)
	return p
}

// Backend applies a policy, and the settings of projects, to the streams of a store.
type Backend struct {
	store    state.Store
	policy   Policy
	settings *config.Authority
	log      *slog.Logger
	metrics  *metrics
	news     groups
}

// New returns a Backend. It has nothing to close.
func New(store state.Store, policy Policy, settings *config.Authority, log *slog.Logger, reg prometheus.Registerer) (*Backend, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	return &Backend{store: store, policy: policy.withDefaults(), settings: settings, log: log, metrics: m, news: groups{store: store}}, nil
}

// project returns a project's settings. Of one that is no longer configured, nothing is removed by time.
func (b *Backend) project(name types.Project) *config.Project {
	if p, err := b.settings.Project(name); err == nil {
		return p
	}
	return &config.Project{Name: name}
}

// unconfiguredGrace is how long what was purged can be taken back in a project that has no settings.
const unconfiguredGrace = 7 * 24 * time.Hour

// grace is how long a purge can be taken back.
func (b *Backend) grace(p *state.Prefix) time.Duration {
	return max(cmp.Or(b.project(p.Project).PurgeGrace, unconfiguredGrace), b.policy.RemoveDelay)
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

// Register registers a stream, or returns the one that is registered, whatever else the registration says. The time in which streams may be
// registered limits new streams only. Who registers a stream has entries of it, so one that was archived without all of its entries
// gets open for them again.
func (b *Backend) Register(ctx context.Context, r Registration) (*state.Stream, error) {
	id := r.Prefix.Join(r.Name).ID()
	for n := 1; ; n++ {
		p, s, err := b.store.Registered(ctx, r.Project, r.Prefix, id)
		switch {
		case err != nil:
		case s != nil:
			s, err = b.registerAgain(ctx, s, r.Secret)
		default:
			s, err = b.register(ctx, p, id, r)
		}
		if err == nil {
			return s, nil
		}
		// Somebody else may have been faster, or the stream be removed meanwhile.
		if !fault.Is(err, fault.Exists) && (s == nil || !fault.Is(err, fault.NotFound)) || n == maxRaces {
			return nil, err
		}
	}
}

// maxRaces is how often a registration begins anew that others got in the way of.
const maxRaces = 5

// registerAgain records that there are entries of a stream that is registered.
func (b *Backend) registerAgain(ctx context.Context, s *state.Stream, secret types.PrefixSecret) (*state.Stream, error) {
	if err := checkSecret(s.Prefix, secret); err != nil || !b.stirs(s, clock()) {
		return s, err
	}
	var reopened bool
	err := b.store.Update(ctx, func(tx state.Tx) error {
		now, err := tx.Stream(s.Prefix.Project, s.ID)
		if err != nil {
			return err
		}
		s = now
		reopened, err = b.stir(tx, s, clock())
		return err
	})
	if err == nil && reopened {
		b.metrics.reopened.Inc()
		b.log.Info("stream reopened: entries come that its archive may lack", "project", string(s.Prefix.Project), "path", string(s.Path()))
	}
	return s, err
}

// stirs reports whether a registration of the stream changes it.
func (b *Backend) stirs(s *state.Stream, now time.Time) bool {
	return s.Phase == state.Incomplete && !s.Hidden() || s.Phase == state.Open && now.Sub(s.Updated) >= b.policy.OpenLimit/8
}

// stir records a sign of life, which may reopen the stream.
func (b *Backend) stir(tx state.Tx, s *state.Stream, now time.Time) (reopened bool, err error) {
	if !b.stirs(s, now) {
		return false, nil
	}
	if s.Phase == state.Open {
		s.Updated = now
		return false, tx.PutStream(s)
	}
	expunge, err := tx.Task(s, state.ExpungeTask)
	if err != nil {
		return false, err
	}
	if expunge != nil {
		if expunge.LeaseEnd.After(now) {
			// Its holder removes entries that the archive has, and what came now would go with them.
			return false, fault.New(fault.Transient, "entries of stream %s are being removed from storage, because the archive has them; try again", s.ID)
		}
		if err := tx.DeleteTask(expunge); err != nil {
			return false, err
		}
	}
	s.Reopen(now)
	if err := tx.PutStream(s); err != nil {
		return false, err
	}
	due := now.Add(b.policy.Settle)
	if s.Phase == state.Open {
		due = now.Add(b.policy.OpenLimit)
	}
	return true, schedule(tx, s, state.ArchiveTask, due)
}

// register stores a new stream and its archive task. p is its prefix, or nil.
func (b *Backend) register(ctx context.Context, p *state.Prefix, id types.StreamID, r Registration) (*state.Stream, error) {
	now := clock()
	switch {
	case p == nil:
		return nil, fault.New(fault.Precondition, "prefix is not registered")
	case !p.Deleted.IsZero():
		return nil, fault.New(fault.Precondition, "prefix was deleted")
	case !now.Before(p.Expires):
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
	return s, b.news.add(ctx, s, due)
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
		if s.Archived() || s.Hidden() {
			return nil
		}
		return schedule(tx, s, state.ArchiveTask, now.Add(b.policy.Settle))
	})
}

// Archive records that a stream was archived. The task that asked for it makes way for the one that expunges. replaces is the URL of the
// archive whose entries the new one has, too; empty if there was none.
func (b *Backend) Archive(
	ctx context.Context, project types.Project, id types.StreamID, a state.Archive, missing []state.Range, replaces string,
) error {
	return b.store.Update(ctx, func(tx state.Tx) error {
		s, task, err := tasked(tx, project, id)
		if err != nil || s.Archived() {
			return err
		}
		now := clock()
		if _, err := s.SetArchive(now, a, missing, replaces); err != nil {
			return err
		}
		if err := tx.PutStream(s); err != nil {
			return err
		}
		if err := tx.DeleteTask(task); err != nil {
			return err
		}
		grace := b.policy.ExpungeGrace
		if s.Phase == state.Incomplete {
			grace = max(grace, b.policy.RemoveDelay)
		}
		return schedule(tx, s, state.ExpungeTask, now.Add(grace))
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
