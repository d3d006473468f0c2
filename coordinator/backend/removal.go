package backend

import (
	"context"
	"errors"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
)

// page is how many streams are changed in one transaction.
const page = 200

// Purge hides a stream at once, and has it removed for good when the project's grace period is over. It reports whether the stream was
// shown until now, and when the removal begins.
func (b *Backend) Purge(ctx context.Context, s *state.Stream) (changed bool, until time.Time, err error) {
	grace := b.grace(s.Prefix)
	err = b.store.Update(ctx, func(tx state.Tx) error {
		until = clock().Add(grace)
		changed, err = purge(tx, s, until)
		return err
	})
	return changed, until, err
}

// PurgePrefix purges the streams that the prefix has now.
func (b *Backend) PurgePrefix(ctx context.Context, p *state.Prefix) (n int, until time.Time, err error) {
	until = clock().Add(b.grace(p))
	n, err = b.each(ctx, state.OldestQuery{Prefix: p, Limit: page}, func(tx state.Tx, s *state.Stream) (bool, error) {
		return purge(tx, s, until)
	})
	return n, until, err
}

// Undelete shows a purged stream again. It fails with kind Precondition when the removal has begun.
func (b *Backend) Undelete(ctx context.Context, s *state.Stream) (changed bool, err error) {
	err = b.store.Update(ctx, func(tx state.Tx) error {
		changed, err = b.undelete(tx, s)
		return err
	})
	return changed, err
}

// UndeletePrefix shows those purged streams of a prefix again whose removal has not begun.
func (b *Backend) UndeletePrefix(ctx context.Context, p *state.Prefix) (int, error) {
	return b.each(ctx, state.OldestQuery{Prefix: p, Purged: true, Limit: page}, func(tx state.Tx, s *state.Stream) (bool, error) {
		changed, err := b.undelete(tx, s)
		if fault.Is(err, fault.Precondition) {
			return false, nil
		}
		return changed, err
	})
}

// DeletePrefix hides all that is below a prefix for good, refuses new streams below it, and has everything removed: entries, archives, and
// what is remembered of the streams. When the last of them is gone the name of the prefix is free again. It returns when all removals are
// scheduled; if it does not come to that, they are scheduled later (see Run).
func (b *Backend) DeletePrefix(ctx context.Context, p *state.Prefix) error {
	err := b.store.Update(ctx, func(tx state.Tx) error {
		now, err := tx.Prefix(p.Project, p.Prefix)
		if err != nil {
			return err
		}
		if now.Seq != p.Seq || !now.Delete(clock()) {
			return fault.New(fault.NotFound, "no prefix %s in project %s", p.Prefix, p.Project)
		}
		*p = *now
		return tx.PutPrefix(p)
	})
	if err != nil {
		return err
	}
	return b.clear(ctx, p, true)
}

// clear schedules the removal of the streams of a deleted prefix, and removes the prefix if it has none.
func (b *Backend) clear(ctx context.Context, p *state.Prefix, purged bool) error {
	_, err := b.each(ctx, state.OldestQuery{Prefix: p, Purged: purged, Limit: page}, func(tx state.Tx, s *state.Stream) (bool, error) {
		at := clock().Add(b.policy.RemoveDelay)
		if s.Purge(clock()) {
			return true, errors.Join(tx.PutStream(s), schedule(tx, s, state.RemoveTask, at))
		}
		// What was purged before need not be kept until its grace is over.
		task, err := tx.Task(s, state.RemoveTask)
		if err != nil || task != nil && (task.Attempts > 0 || !at.Before(task.Available)) {
			return false, err
		}
		return false, schedule(tx, s, state.RemoveTask, at)
	})
	if err != nil {
		return err
	}
	return b.store.Update(ctx, func(tx state.Tx) error {
		_, err := tx.DeletePrefix(p)
		return err
	})
}

// each calls fn for the streams that a query selects, as they are in the transaction, some in each transaction. It returns how many fn
// changed.
func (b *Backend) each(ctx context.Context, q state.OldestQuery, fn func(state.Tx, *state.Stream) (bool, error)) (total int, err error) {
	for {
		streams, err := b.store.OldestStreams(ctx, q)
		if err != nil || len(streams) == 0 {
			return total, err
		}
		changed := 0
		err = b.store.Update(ctx, func(tx state.Tx) error {
			changed = 0
			for _, s := range streams {
				s, err := tx.Stream(s.Prefix.Project, s.ID)
				if fault.Is(err, fault.NotFound) {
					continue
				}
				if err != nil {
					return err
				}
				did, err := fn(tx, s)
				if err != nil {
					return err
				}
				if did {
					changed++
				}
			}
			return nil
		})
		if err != nil {
			return total, err
		}
		total += changed
		q.After = streams[len(streams)-1].Position()
	}
}

// purge hides a stream and schedules its removal.
func purge(tx state.Tx, s *state.Stream, removal time.Time) (bool, error) {
	s, err := tx.Stream(s.Prefix.Project, s.ID)
	if err != nil || !s.Purge(clock()) {
		return false, err
	}
	if err := tx.PutStream(s); err != nil {
		return false, err
	}
	return true, tx.AddTask(&state.Task{Stream: s, Kind: state.RemoveTask, Available: removal})
}

// undelete shows a stream again and lets its life go on.
func (b *Backend) undelete(tx state.Tx, s *state.Stream) (bool, error) {
	s, err := tx.Stream(s.Prefix.Project, s.ID)
	if err != nil {
		return false, err
	}
	removal, err := tx.Task(s, state.RemoveTask)
	if err != nil {
		return false, err
	}
	if changed, err := s.Undelete(clock(), removal); err != nil || !changed {
		return false, err
	}
	if err := tx.PutStream(s); err != nil {
		return false, err
	}
	if removal != nil {
		if err := tx.DeleteTask(removal); err != nil {
			return false, err
		}
	}
	if s.Phase == state.Terminated {
		// Its end may have come while it was hidden. A task that was given up stays so.
		if task, err := tx.Task(s, state.ArchiveTask); err != nil || task != nil && !task.Dead.IsZero() {
			return true, err
		}
		return true, schedule(tx, s, state.ArchiveTask, clock().Add(b.policy.Settle))
	}
	return true, nil
}

// Removing reports whether a stream is about to be removed, or is already. What comes to one that is merely purged is still kept, since it may be
// shown again; Collectors learn early enough that it is not, see Policy.RemoveDelay.
func (b *Backend) Removing(ctx context.Context, s *state.Stream) (removing bool, err error) {
	if !s.Hidden() || !s.Prefix.Deleted.IsZero() {
		return s.Hidden(), nil
	}
	err = b.store.Update(ctx, func(tx state.Tx) error {
		removal, err := tx.Task(s, state.RemoveTask)
		removing = removal == nil || removal.Attempts > 0 || removal.Available.Before(clock().Add(b.policy.RemoveDelay))
		return err
	})
	return removing, err
}

// begin decides whether a removal can be given out: from then on, the stream is not shown again. Other work on the stream ends first.
func begin(tx state.Tx, removal *state.Task, now time.Time) (bool, error) {
	for _, kind := range []state.TaskKind{state.ArchiveTask, state.ExpungeTask} {
		task, err := tx.Task(removal.Stream, kind)
		if err != nil {
			return false, err
		}
		if task == nil {
			continue
		}
		if task.LeaseEnd.After(now) {
			removal.Available = task.LeaseEnd
			return false, tx.PutTask(removal)
		}
		if err := tx.DeleteTask(task); err != nil {
			return false, err
		}
	}
	return true, nil
}

// removed forgets a stream whose data is gone, and its prefix if it was deleted and this was its last stream.
func removed(tx state.Tx, t *state.Task) error {
	s, err := tx.Stream(t.Stream.Prefix.Project, t.Stream.ID)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := tx.DeleteStream(s); err != nil || s.Prefix.Deleted.IsZero() {
		return err
	}
	_, err = tx.DeletePrefix(s.Prefix)
	return err
}
