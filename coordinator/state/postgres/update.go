package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/pgdb"
)

const (
	// maxAttempts is how often something runs that loses conflicts, or meets connections that the server has closed.
	maxAttempts = 8
	// maxDuplicates is how often an update runs that adds what is there already, or adds to what is gone. The first time another one may have
	// been faster.
	maxDuplicates = 2
	// rollbackTimeout bounds what is done for a caller that has gone away.
	rollbackTimeout = 5 * time.Second
)

// Update implements state.Store. fn runs on the caller's goroutine.
func (s *Store) Update(ctx context.Context, fn func(state.Tx) error) error {
	select {
	case <-s.closing:
		return state.ErrClosed
	default:
	}
	return s.retry(ctx, func() error { return s.attempt(ctx, fn) })
}

// unknownOutcome marks the error of a commit that was sent and never answered.
type unknownOutcome struct{ error }

func (e unknownOutcome) Unwrap() error { return e.error }

// retry runs fn until it succeeds, fails for good, or has failed often enough.
func (s *Store) retry(ctx context.Context, fn func() error) error {
	for n := 1; ; n++ {
		err := fn()
		if err == nil || !again(err, n) || ctx.Err() != nil {
			return s.after(err)
		}
		// Those who met should not meet again.
		pause := time.NewTimer(rand.N(time.Duration(n*n) * time.Millisecond)) //nolint:gosec // no secret
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-s.closing:
			pause.Stop()
			return state.ErrClosed
		}
	}
}

// again reports whether something that failed for the nth time should be tried again at once.
func again(err error, n int) bool {
	var unknown unknownOutcome
	if errors.As(err, &unknown) {
		return false
	}
	switch c := pgdb.Code(err); c {
	case pgdb.SerializationFailure, pgdb.DeadlockDetected, pgdb.AdminShutdown:
		return n < maxAttempts
	case pgdb.UniqueViolation, pgdb.ForeignKeyViolation:
		return n < maxDuplicates
	default:
		// Each attempt may meet another connection from before the server's restart. With no server at all, the first says enough.
		return c == "" && pgdb.Lost(err) && !pgdb.Refused(err) && n < maxAttempts
	}
}

// attempt runs fn in a transaction.
func (s *Store) attempt(ctx context.Context, fn func(state.Tx) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return wrap(err, "connect")
	}
	defer conn.Release()
	t := &tx{ctx: ctx, conn: conn.Conn()}
	if err := fn(t); err != nil {
		t.rollback()
		return err
	}
	if t.failed != nil {
		// The server commits nothing after an error, even if fn went on.
		t.rollback()
		return t.failed
	}
	if err := t.commit(); err != nil {
		t.rollback()
		return err
	}
	s.streams.Wake(t.changed...)
	if t.tasksChanged {
		s.tasks.Wake(struct{}{})
	}
	return nil
}

// commit sends what is queued, and the end of the transaction.
func (t *tx) commit() error {
	if !t.begun {
		return nil
	}
	t.queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return fault.New(fault.Internal, "coordinator state: the server answered a commit with %s", tag)
		}
		return nil
	})
	err := t.conn.SendBatch(t.ctx, &t.queued).Close()
	t.queued = pgx.Batch{}
	if err == nil {
		return nil
	}
	// What the server refused before the commit it has not committed. When nothing more is heard of it, it may have.
	c := pgdb.Code(err)
	if ((c == "" && !pgconn.SafeToRetry(err)) || c == pgdb.AdminShutdown && t.open == 0) && t.ctx.Err() == nil {
		err = unknownOutcome{fault.New(fault.Transient, "the connection to the database broke, and whether the changes were made is not known: %w", err)}
	}
	return wrap(err, "commit")
}

// rollback undoes what was sent.
func (t *tx) rollback() {
	if t.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), rollbackTimeout)
	defer cancel()
	// If it fails the connection is closed, which has the same effect.
	if _, err := t.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = t.conn.Close(ctx)
	}
}

// read runs fn on a connection. fn may run more than once.
func (s *Store) read(ctx context.Context, fn func(querier) error) error {
	return s.retry(ctx, func() error {
		return s.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return fn(c) })
	})
}
