package sqlite

import (
	"context"
	"database/sql"
	"math"
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

// FindPrefixes implements state.Store.
func (s *Store) FindPrefixes(ctx context.Context, q state.PrefixQuery) ([]*state.Prefix, error) {
	text, args := glob(fromPrefixes+`p.project = ? AND p.seq < ?`, []any{string(q.Project), before(q.Before)}, "p.prefix", q.Prefix)
	rows, err := s.queries.query(ctx, text+` ORDER BY p.seq DESC`, args...)
	if err != nil {
		return nil, s.after(wrap(err, "find prefixes of project %s", q.Project))
	}
	var found []*state.Prefix
	err = each(rows, row.Prefix, func(p *state.Prefix) bool {
		if q.Prefix.Match(p.Prefix) {
			found = append(found, p)
		}
		return len(found) < q.Limit
	})
	return found, s.after(wrap(err, "find prefixes of project %s", q.Project))
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

func before(seq int64) int64 {
	if seq <= 0 {
		return math.MaxInt64
	}
	return seq
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
