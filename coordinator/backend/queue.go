package backend

import (
	"context"
	"slices"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
)

// Lease hands out up to limit tasks until the lease ends. If there is none it waits for at most the given time until
// one becomes available.
func (b *Backend) Lease(ctx context.Context, limit int, lease, wait time.Duration) ([]*state.Task, error) {
	changed, stop := b.store.WatchTasks()
	defer stop()
	expired := time.NewTimer(wait)
	defer expired.Stop()
	for {
		next, any, err := b.store.NextTask(ctx)
		if err != nil {
			return nil, err
		}
		var due <-chan time.Time
		if any {
			if d := time.Until(next); d > 0 {
				due = time.After(d)
			} else if tasks, err := b.lease(ctx, limit, lease); err != nil || len(tasks) > 0 {
				return tasks, err
			} else {
				continue // somebody else was faster, or all were given up
			}
		}
		if wait <= 0 {
			return nil, nil
		}
		select {
		case <-changed:
		case <-due:
		case <-expired.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lease takes what is available now, and gives up what has failed too often.
func (b *Backend) lease(ctx context.Context, limit int, lease time.Duration) (leased []*state.Task, err error) {
	err = b.store.Update(ctx, func(tx state.Tx) error {
		leased = leased[:0]
		now := clock()
		tasks, err := tx.AvailableTasks(now, limit)
		if err != nil {
			return err
		}
		// A removal takes the place of other work on its stream, so it is looked at first.
		slices.SortStableFunc(tasks, func(a, b *state.Task) int { return int(b.Kind) - int(a.Kind) })
		ending := make(map[int64]bool)
		for _, t := range tasks {
			if ending[t.Stream.Seq] {
				continue
			}
			if t.Failures >= b.policy.MaxFailures {
				if err := b.bury(tx, t, ""); err != nil {
					return err
				}
				continue
			}
			if ok, err := b.ripe(tx, t, now); err != nil {
				return err
			} else if !ok {
				continue
			}
			ending[t.Stream.Seq] = t.Kind == state.RemoveTask
			if !t.LeaseEnd.IsZero() {
				t.LastError = "the lease ended without a word from its holder"
			}
			t.Lease(now.Add(lease))
			if err := tx.PutTask(t); err != nil {
				return err
			}
			leased = append(leased, t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.metrics.leased.Add(float64(len(leased)))
	return leased, nil
}

// ripe decides whether the time of an available task has come. If not, it puts the task off.
func (b *Backend) ripe(tx state.Tx, t *state.Task, now time.Time) (bool, error) {
	if t.Kind == state.RemoveTask {
		return begin(tx, t, now)
	}
	if s := t.Stream; t.Kind == state.ArchiveTask && s.Phase == state.Open {
		if silent := s.Updated.Add(b.policy.OpenLimit); now.Before(silent) {
			t.Available, t.LeaseEnd = silent, time.Time{}
			return false, tx.PutTask(t)
		}
	}
	return true, nil
}

// Done is what a holder says of a task.
type Done struct {
	// Seq names the task.
	Seq int64
	// RetryAfter hands the task back, to be leased again after this time, if it is positive; otherwise the task is finished.
	RetryAfter time.Duration
	// Reason says why it is handed back.
	Reason string
	// Failed says that this attempt failed, and did not just come too early.
	Failed bool
	// Removed says that the objects which the task asked to remove are gone: those of archives that were replaced, or everything.
	Removed bool
}

// Finish takes back leased tasks. Unknown ones are ignored: they were finished already, or overtaken.
func (b *Backend) Finish(ctx context.Context, done []Done) error {
	var finished, back, gone int
	err := b.store.Update(ctx, func(tx state.Tx) error {
		finished, back, gone = 0, 0, 0
		now := clock()
		for _, d := range done {
			t, err := tx.TaskBySeq(d.Seq)
			if err != nil {
				return err
			}
			if t == nil || !t.Dead.IsZero() {
				continue
			}
			switch {
			case d.RetryAfter > 0:
			case t.Kind == state.RemoveTask && !d.Removed:
				// An Archivist of old took it for another task.
				d.RetryAfter, d.Failed, d.Reason = time.Minute, true, "its holder cannot remove streams"
			case t.Kind == state.ArchiveTask && !t.Stream.Archived():
				// An Archivist of old drops what it cannot archive, and relies on the task that is due when a stream was silent for long.
				d.RetryAfter, d.Reason = b.policy.OpenLimit, "its holder dropped it, and the stream is not archived"
			}
			if d.RetryAfter <= 0 {
				finished++
				if t.Kind == state.RemoveTask {
					gone++
				}
				err = end(tx, t, d)
			} else {
				back++
				err = b.handBack(tx, t, now, d)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.metrics.finished.Add(float64(finished))
	b.metrics.back.Add(float64(back))
	b.metrics.removed.Add(float64(gone))
	return nil
}

// end removes a task that was done.
func end(tx state.Tx, t *state.Task, d Done) error {
	switch {
	case t.Kind == state.RemoveTask:
		return removed(tx, t)
	case t.Kind == state.ExpungeTask && d.Removed && len(t.Stream.Replaced) > 0:
		// The task would not be there if the stream had been reopened since.
		s, err := tx.Stream(t.Stream.Prefix.Project, t.Stream.ID)
		if err != nil {
			return err
		}
		s.Replaced = nil
		if err := tx.PutStream(s); err != nil {
			return err
		}
	}
	return tx.DeleteTask(t)
}

func (b *Backend) handBack(tx state.Tx, t *state.Task, now time.Time, d Done) error {
	t.HandBack(now.Add(d.RetryAfter), d.Reason, d.Failed)
	if t.Failures >= b.policy.MaxFailures {
		return b.bury(tx, t, d.Reason)
	}
	return tx.PutTask(t)
}

// bury gives a task up. It stays for the operator to see.
func (b *Backend) bury(tx state.Tx, t *state.Task, reason string) error {
	t.Bury(clock(), reason)
	b.metrics.dead.Inc()
	b.log.Error("task given up; the entries stay in storage", "task", t.Kind.String(), "project", string(t.Stream.Prefix.Project),
		"path", string(t.Stream.Path()), "attempts", t.Attempts, "reason", t.LastError)
	return tx.PutTask(t)
}

// Pending counts the tasks that can be leased now or are leased: work that a shutdown may want to see done.
func (b *Backend) Pending(ctx context.Context) (int, error) {
	return b.store.PendingTasks(ctx, clock())
}
