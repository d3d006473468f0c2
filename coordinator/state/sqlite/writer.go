package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
)

// maxGroup is the most updates that share a commit.
const maxGroup = 256

// update is a call of Update that waits for the writer.
type update struct {
	ctx  context.Context
	fn   func(state.Tx) error
	done chan error
}

// Update implements state.Store. fn runs on the writer's goroutine.
func (s *Store) Update(ctx context.Context, fn func(state.Tx) error) error {
	u := &update{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case s.updates <- u:
		return <-u.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return state.ErrClosed
	}
}

// ReleaseLeases makes all leased tasks available now. Only a process that knows itself to be the only one that works on the
// tasks may call it: a process that died holds its leases until they end.
func (s *Store) ReleaseLeases(ctx context.Context, now time.Time) error {
	return s.Update(ctx, func(t state.Tx) error {
		w := t.(*tx)
		_, err := w.change(`UPDATE tasks SET available = ?, lease_end = NULL WHERE lease_end IS NOT NULL AND dead IS NULL`, row.Micros(now))
		w.tasksChanged = true
		return wrap(err, "release leases")
	})
}

// writeLoop commits updates in groups: those that arrived while the group before was being synced.
func (s *Store) writeLoop(conn *sql.Conn) {
	w := &writer{conn: conn, statements: statements{prepare: conn.PrepareContext}}
	defer func() {
		w.statements.close()
		_ = conn.Close() // returns it to the pool
	}()
	group := make([]*update, 0, maxGroup)
	for {
		select {
		case u := <-s.updates:
			group = append(group[:0], u)
		case <-s.closing:
			return
		}
		for more := true; more && len(group) < maxGroup; {
			select {
			case u := <-s.updates:
				group = append(group, u)
			default:
				more = false
			}
		}
		s.commit(w, group)
	}
}

// commit runs a group of updates in one transaction and answers them.
func (s *Store) commit(w *writer, group []*update) {
	errs := make([]error, len(group))
	t := &tx{writer: w}
	err := t.transact(func() error {
		for i, u := range group {
			if errs[i] = u.ctx.Err(); errs[i] != nil {
				continue
			}
			var err error
			if errs[i], err = t.attempt(u.fn); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.streams.Wake(t.changed...)
		if t.tasksChanged {
			s.tasks.Wake(struct{}{})
		}
	}
	for i, u := range group {
		if errs[i] == nil && err != nil {
			errs[i] = fmt.Errorf("coordinator state: commit: %w", err)
		}
		u.done <- errs[i]
	}
}

// writer is the connection that writes.
type writer struct {
	conn *sql.Conn
	statements
}

func (w *writer) exec(text string, args ...any) (sql.Result, error) {
	// Once begun, a group is finished: a caller that goes away must not take the others with it.
	stmt, err := w.get(context.Background(), text)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(context.Background(), args...)
}

// transact runs fn in a transaction.
func (t *tx) transact(fn func() error) error {
	if _, err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		if _, err = t.exec("COMMIT"); err == nil {
			return nil
		}
	}
	if _, rerr := t.exec("ROLLBACK"); rerr != nil {
		// The failure may have ended the transaction already.
		return fmt.Errorf("%w (rollback: %w)", err, rerr)
	}
	return err
}

// attempt runs one update of a group. If it fails, what it did is undone. The second error is one that ends the group.
func (t *tx) attempt(fn func(state.Tx) error) (failed, fatal error) {
	t.dirty = false
	changed, tasksChanged := len(t.changed), t.tasksChanged
	failed = fn(t)
	if !t.dirty {
		return failed, nil
	}
	if failed != nil {
		t.changed, t.tasksChanged = t.changed[:changed], tasksChanged
		if _, err := t.exec("ROLLBACK TO one"); err != nil {
			return failed, err
		}
	}
	_, err := t.exec("RELEASE one")
	return failed, err
}
