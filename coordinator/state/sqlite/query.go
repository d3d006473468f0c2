package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	fromPrefixes = `SELECT ` + row.PrefixColumns + ` FROM prefixes p WHERE `
	fromStreams  = `SELECT ` + row.StreamColumns + ` FROM streams s JOIN prefixes p ON p.seq = s.prefix WHERE `
)

// Prefix implements state.Store.
func (s *Store) Prefix(ctx context.Context, project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	p, err := prefixBy(ctx, &s.queries, project, prefix)
	return p, s.after(err)
}

// Stream implements state.Store.
func (s *Store) Stream(ctx context.Context, project types.Project, id types.StreamID) (*state.Stream, error) {
	v, err := streamBy(ctx, &s.queries, project, id)
	return v, s.after(err)
}

func prefixBy(ctx context.Context, db *statements, project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	rows, err := db.query(ctx, fromPrefixes+`p.project = ? AND p.prefix = ?`, string(project), string(prefix))
	if err != nil {
		return nil, wrap(err, "read prefix %s of project %s", prefix, project)
	}
	p, err := first(rows, row.Prefix)
	if p == nil && err == nil {
		err = fault.New(fault.NotFound, "no prefix %s in project %s", prefix, project)
	}
	return p, wrap(err, "read prefix %s of project %s", prefix, project)
}

func streamBy(ctx context.Context, db *statements, project types.Project, id types.StreamID) (*state.Stream, error) {
	rows, err := db.query(ctx, fromStreams+`s.project = ? AND s.id = ?`, string(project), string(id))
	if err != nil {
		return nil, wrap(err, "read stream %s of project %s", id, project)
	}
	v, err := first(rows, row.Stream)
	if v == nil && err == nil {
		err = fault.New(fault.NotFound, "no such stream in project %s", project)
	}
	return v, wrap(err, "read stream %s of project %s", id, project)
}

// Registered implements state.Store.
func (s *Store) Registered(
	ctx context.Context, project types.Project, prefix types.StreamName, id types.StreamID,
) (*state.Prefix, *state.Stream, error) {
	v, err := s.Stream(ctx, project, id)
	if err == nil {
		return v.Prefix, v, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, nil, err
	}
	p, err := s.Prefix(ctx, project, prefix)
	if fault.Is(err, fault.NotFound) {
		return nil, nil, nil
	}
	return p, nil, err
}

// FindPrefixes implements state.Store.
func (s *Store) FindPrefixes(ctx context.Context, q state.PrefixQuery) ([]*state.Prefix, error) {
	text, args := findPrefixes(q)
	rows, err := s.queries.query(ctx, text, args...)
	if err != nil {
		return nil, s.after(wrap(err, "find prefixes of project %s", q.Project))
	}
	var found []*state.Prefix
	err = each(rows, row.Prefix, func(p *state.Prefix) bool {
		if q.Match(p) {
			found = append(found, p)
		}
		return len(found) < q.Limit
	})
	return found, s.after(wrap(err, "find prefixes of project %s", q.Project))
}

func findPrefixes(q state.PrefixQuery) (string, []any) {
	span := q.Span()
	text := fromPrefixes + `p.project = ? AND (p.created, p.seq) < (?, ?) AND (p.created, p.seq) >= (?, ?) AND p.deleted IS NULL`
	args := []any{
		string(q.Project), span.Before.Created.UnixMicro(), span.Before.Seq, span.From.Created.UnixMicro(), span.From.Seq,
	}
	text, args = glob(text, args, "p.prefix", q.Prefix)
	return text + ` ORDER BY p.created DESC, p.seq DESC`, args
}

const (
	oldestOfPrefix = `SELECT ` + row.StreamColumns + ` FROM streams s INDEXED BY streams_prefix CROSS JOIN prefixes p ON p.seq = s.prefix
		WHERE s.prefix = ? AND (s.created, s.seq) > (?, ?) AND (s.purged IS NULL OR ?) ORDER BY s.created, s.seq LIMIT ?`
	oldestOfProject = `SELECT ` + row.StreamColumns + ` FROM streams s INDEXED BY streams_newest CROSS JOIN prefixes p ON p.seq = s.prefix
		WHERE s.project = ? AND (s.created, s.seq) > (?, ?) AND s.created < ? AND s.ended < ? AND s.purged IS NULL
		ORDER BY s.created, s.seq LIMIT ?`
	emptyPrefixes = `SELECT ` + row.PrefixColumns + ` FROM prefixes p INDEXED BY prefixes_newest
		WHERE p.project = ? AND (p.created, p.seq) > (?, ?) AND p.created < ? AND p.expires < ?
			AND NOT EXISTS (SELECT 1 FROM streams s WHERE s.prefix = p.seq)
		ORDER BY p.created, p.seq LIMIT ?`
	deletedPrefixes = fromPrefixes + `p.deleted IS NOT NULL ORDER BY p.deleted LIMIT ?`
	allTasks        = fromTasks + `t.seq > ? ORDER BY t.seq LIMIT ?`
	deadTasks       = fromTasks + `t.dead IS NOT NULL AND t.seq > ? ORDER BY t.seq LIMIT ?`
)

// OldestStreams implements state.Store.
func (s *Store) OldestStreams(ctx context.Context, q state.OldestQuery) ([]*state.Stream, error) {
	after := []any{q.After.Created.UnixMicro(), q.After.Seq}
	text, args := oldestOfProject, append(append([]any{string(q.Project)}, after...), row.Micros(q.Before), row.Micros(q.Before), q.Limit)
	if q.Prefix != nil {
		text, args = oldestOfPrefix, append(append([]any{q.Prefix.Seq}, after...), q.Purged, q.Limit)
	}
	found, err := listed(ctx, s, row.Stream, text, args...)
	return found, wrap(err, "list the oldest streams")
}

// EmptyPrefixes implements state.Store.
func (s *Store) EmptyPrefixes(
	ctx context.Context, project types.Project, before time.Time, after state.Position, limit int,
) ([]*state.Prefix, error) {
	found, err := listed(ctx, s, row.Prefix, emptyPrefixes,
		string(project), after.Created.UnixMicro(), after.Seq, before.UnixMicro(), before.UnixMicro(), limit)
	return found, wrap(err, "list empty prefixes of project %s", project)
}

// DeletedPrefixes implements state.Store.
func (s *Store) DeletedPrefixes(ctx context.Context, limit int) ([]*state.Prefix, error) {
	found, err := listed(ctx, s, row.Prefix, deletedPrefixes, limit)
	return found, wrap(err, "list deleted prefixes")
}

// Tasks implements state.Store.
func (s *Store) Tasks(ctx context.Context, q state.TaskQuery) ([]*state.Task, error) {
	text := allTasks
	if q.Dead {
		text = deadTasks
	}
	found, err := listed(ctx, s, row.Task, text, q.After, q.Limit)
	return found, wrap(err, "list tasks")
}

// listed returns all rows of a query.
func listed[T any](ctx context.Context, s *Store, targets func(*T) ([]any, func() error), text string, args ...any) ([]*T, error) {
	rows, err := s.queries.query(ctx, text, args...)
	if err != nil {
		return nil, s.after(err)
	}
	var found []*T
	err = each(rows, targets, func(v *T) bool { found = append(found, v); return true })
	return found, s.after(err)
}

// glob adds what the database can tell of a pattern. Names hold none of the characters that are special to GLOB.
func glob(text string, args []any, column string, p state.Pattern) (string, []any) {
	if name, ok := p.Literal(); ok {
		return text + ` AND ` + column + ` = ?`, append(args, string(name))
	}
	if coarse := p.Coarse(); coarse != "*" {
		return text + ` AND ` + column + ` GLOB ?`, append(args, coarse)
	}
	return text, args
}

// Projects implements state.Store.
func (s *Store) Projects(ctx context.Context) ([]types.Project, error) {
	// Steps from project to project over the index instead of reading all prefixes.
	rows, err := s.queries.query(ctx, `WITH RECURSIVE found (project) AS (
			SELECT min(project) FROM prefixes
			UNION ALL
			SELECT (SELECT min(project) FROM prefixes WHERE project > found.project) FROM found WHERE found.project IS NOT NULL
		) SELECT project FROM found WHERE project IS NOT NULL`)
	if err != nil {
		return nil, s.after(wrap(err, "list projects"))
	}
	var projects []types.Project
	err = each(rows, func(p *types.Project) ([]any, func() error) {
		return []any{p}, func() error { return nil }
	}, func(p *types.Project) bool { projects = append(projects, *p); return true })
	return projects, s.after(wrap(err, "list projects"))
}

// NextTask implements state.Store.
func (s *Store) NextTask(ctx context.Context) (time.Time, bool, error) {
	next, err := s.number(ctx, `SELECT min(available) FROM tasks WHERE dead IS NULL`)
	return time.UnixMicro(next.Int64).UTC(), next.Valid, s.after(wrap(err, "read next task"))
}

// PendingTasks implements state.Store.
func (s *Store) PendingTasks(ctx context.Context, now time.Time) (int, error) {
	n, err := s.number(ctx, `SELECT (SELECT count(*) FROM tasks WHERE dead IS NULL AND available <= ?)
		+ (SELECT count(*) FROM tasks WHERE lease_end > ?)`, now.UnixMicro(), now.UnixMicro())
	return int(n.Int64), s.after(wrap(err, "count pending tasks"))
}

func (s *Store) number(ctx context.Context, text string, args ...any) (n sql.NullInt64, err error) {
	stmt, err := s.queries.get(ctx, text)
	if err == nil {
		err = stmt.QueryRowContext(ctx, args...).Scan(&n)
	}
	return n, err
}

// after translates the error of a query that met a closed store.
func (s *Store) after(err error) error {
	if err == nil {
		return err
	}
	select {
	case <-s.closing:
		return state.ErrClosed
	default:
		return err
	}
}

// each scans all rows until visit returns false.
func each[T any](rows *sql.Rows, targets func(*T) ([]any, func() error), visit func(*T) bool) error {
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		v := new(T)
		to, done := targets(v)
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := done(); err != nil {
			return err
		}
		if !visit(v) {
			break
		}
	}
	return rows.Err()
}

// first returns the first row, or nil.
func first[T any](rows *sql.Rows, targets func(*T) ([]any, func() error)) (found *T, err error) {
	err = each(rows, targets, func(v *T) bool { found = v; return false })
	return found, err
}
