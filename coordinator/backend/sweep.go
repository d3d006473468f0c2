package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// sweepEvery is the time between two sweeps.
	sweepEvery = 5 * time.Minute
	// sweepLease is the lease of the one process that sweeps.
	sweepLease = "coordinator/sweep"
)

// Run looks every five minutes for what has come to its end by time alone, and schedules its removal: streams older than their project's
// retention, prefixes without streams of that age, and what is left of deleted prefixes. It returns when ctx ends. Of several processes one
// does it at a time.
func (b *Backend) Run(ctx context.Context) {
	holder := rand.Text()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		ok, err := b.store.AcquireLease(ctx, sweepLease, holder, 2*sweepEvery)
		if ok && err == nil {
			err = b.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			b.log.Warn("streams that are to be removed are looked for again in some minutes", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = b.store.ReleaseLease(end, sweepLease, holder) // it ends by itself
			return
		}
	}
}

// Sweep does once what Run does again and again.
func (b *Backend) Sweep(ctx context.Context) error {
	deleted, err := b.store.DeletedPrefixes(ctx, page)
	if err != nil {
		return err
	}
	var failed error
	for _, p := range deleted {
		failed = errors.Join(failed, b.clear(ctx, p, false))
	}
	projects, err := b.store.Projects(ctx)
	if err != nil {
		return errors.Join(failed, err)
	}
	for _, project := range projects {
		if set := b.project(project); set.Retention > 0 {
			failed = errors.Join(failed, b.expire(ctx, project, clock().Add(-set.Retention)))
		}
	}
	return failed
}

// expire schedules the removal of a project's streams that ended before the time, and removes empty prefixes from before it.
func (b *Backend) expire(ctx context.Context, project types.Project, before time.Time) error {
	n, err := b.each(ctx, state.OldestQuery{Project: project, Before: before, Limit: page}, func(tx state.Tx, s *state.Stream) (bool, error) {
		if !s.Purge(clock()) {
			return false, nil
		}
		return true, errors.Join(tx.PutStream(s), schedule(tx, s, state.RemoveTask, clock().Add(b.policy.RemoveDelay)))
	})
	if n > 0 {
		b.metrics.expired.Add(float64(n))
		b.log.Info("streams are removed, because their retention is over", "project", string(project), "streams", n)
	}
	if err != nil {
		return err
	}
	for after := (state.Position{}); ; {
		empty, err := b.store.EmptyPrefixes(ctx, project, before, after, page)
		if err != nil || len(empty) == 0 {
			return err
		}
		err = b.store.Update(ctx, func(tx state.Tx) error {
			for _, p := range empty {
				if _, err := tx.DeletePrefix(p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		after = empty[len(empty)-1].Position()
	}
}
