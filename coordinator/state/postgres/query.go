package postgres

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	fromPrefixes = `SELECT ` + row.PrefixColumns + ` FROM prefixes p WHERE `
	fromStreams  = `SELECT ` + row.StreamColumns + ` FROM streams s JOIN prefixes p ON p.seq = s.prefix WHERE `

	// A prefix is found by its hash. Names hold nothing that is special in this notation of bytes.
	thatPrefix = `project = $1 AND sha256(prefix::bytea) = sha256($2::text::bytea)`
	thatStream = `s.id = $2 AND s.project = $1`
)

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, text string, args ...any) pgx.Row
}

// all returns all rows of a query. Statements are prepared, once for each connection.
func all[T any](ctx context.Context, db querier, targets func(*T) ([]any, func() error), text string, args ...any) ([]*T, error) {
	rows, err := db.Query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (*T, error) {
		v := new(T)
		to, done := targets(v)
		if err := r.Scan(to...); err != nil {
			return nil, err
		}
		return v, done()
	})
}

// first returns the first row, or nil.
func first[T any](ctx context.Context, db querier, targets func(*T) ([]any, func() error), text string, args ...any) (*T, error) {
	found, err := all(ctx, db, targets, text, args...)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

func prefixBy(ctx context.Context, db querier, project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	p, err := first(ctx, db, row.Prefix, fromPrefixes+thatPrefix, string(project), string(prefix))
	if p == nil && err == nil {
		err = fault.New(fault.NotFound, "no prefix %s in project %s", prefix, project)
	}
	return p, err
}

func streamBy(ctx context.Context, db querier, project types.Project, id types.StreamID, lock string) (*state.Stream, error) {
	s, err := first(ctx, db, row.Stream, fromStreams+thatStream+lock, string(project), string(id))
	if s == nil && err == nil {
		err = fault.New(fault.NotFound, "no such stream in project %s", project)
	}
	return s, err
}

// Prefix implements state.Store.
func (s *Store) Prefix(ctx context.Context, project types.Project, prefix types.StreamName) (p *state.Prefix, err error) {
	err = s.read(ctx, func(db querier) (err error) { p, err = prefixBy(ctx, db, project, prefix); return err })
	return p, wrap(err, "read prefix %s of project %s", prefix, project)
}

// Stream implements state.Store.
func (s *Store) Stream(ctx context.Context, project types.Project, id types.StreamID) (v *state.Stream, err error) {
	err = s.read(ctx, func(db querier) (err error) { v, err = streamBy(ctx, db, project, id, ""); return err })
	return v, wrap(err, "read stream %s of project %s", id, project)
}

// FindPrefixes implements state.Store.
func (s *Store) FindPrefixes(ctx context.Context, q state.PrefixQuery) ([]*state.Prefix, error) {
	var found []*state.Prefix
	before := q.Before
	if before <= 0 {
		before = math.MaxInt64
	}
	for {
		text, args := findPrefixes(q, before)
		var page []*state.Prefix
		err := s.read(ctx, func(db querier) (err error) { page, err = all(ctx, db, row.Prefix, text, args...); return err })
		if err != nil {
			return nil, wrap(err, "find prefixes of project %s", q.Project)
		}
		for _, p := range page {
			before = p.Seq
			if len(found) < q.Limit && q.Prefix.Match(p.Prefix) {
				found = append(found, p)
			}
		}
		if len(page) < q.Limit || len(found) == q.Limit {
			return found, nil
		}
	}
}

func findPrefixes(q state.PrefixQuery, before int64) (string, []any) {
	if prefix, ok := q.Prefix.Literal(); ok {
		return fromPrefixes + thatPrefix + ` AND p.seq < $3`, []any{string(q.Project), string(prefix), before}
	}
	b := &statement{}
	b.add(fromPrefixes+`p.project = `, string(q.Project))
	b.add(` AND -p.seq > `, -before)
	b.like(`p.prefix`, q.Prefix)
	b.add(` ORDER BY -p.seq LIMIT `, q.Limit)
	return b.text.String(), b.args
}

// Projects implements state.Store.
func (s *Store) Projects(ctx context.Context) (projects []types.Project, err error) {
	err = s.read(ctx, func(db querier) error {
		rows, err := db.Query(ctx, allProjects)
		if err == nil {
			projects, err = pgx.CollectRows(rows, pgx.RowTo[types.Project])
		}
		return err
	})
	return projects, wrap(err, "list projects")
}

// allProjects steps from project to project over the index instead of reading all prefixes.
const allProjects = `WITH RECURSIVE found (project) AS (
		(SELECT project FROM prefixes ORDER BY project LIMIT 1)
		UNION ALL
		SELECT (SELECT p.project FROM prefixes p WHERE p.project > found.project ORDER BY p.project LIMIT 1) FROM found
		WHERE found.project IS NOT NULL
	) SELECT project FROM found WHERE project IS NOT NULL`

const nextTask = `SELECT min(available) FROM tasks WHERE dead IS NULL`

// NextTask implements state.Store.
func (s *Store) NextTask(ctx context.Context) (time.Time, bool, error) {
	var next *int64
	err := s.read(ctx, func(db querier) error { return db.QueryRow(ctx, nextTask).Scan(&next) })
	if err != nil || next == nil {
		return time.Time{}, false, wrap(err, "read next task")
	}
	return time.UnixMicro(*next).UTC(), true, nil
}

const pendingTasks = `SELECT (SELECT count(*) FROM tasks WHERE dead IS NULL AND available <= $1)
	+ (SELECT count(*) FROM tasks WHERE lease_end > $1)`

// PendingTasks implements state.Store.
func (s *Store) PendingTasks(ctx context.Context, now time.Time) (n int, err error) {
	err = s.read(ctx, func(db querier) error { return db.QueryRow(ctx, pendingTasks, now.UnixMicro()).Scan(&n) })
	return n, wrap(err, "count pending tasks")
}

// like adds what the database can tell of a pattern. The underscore, which names may hold, is special to LIKE.
func (b *statement) like(column string, p state.Pattern) {
	if name, ok := p.Literal(); ok {
		b.add(` AND `+column+` = `, string(name))
	} else if coarse := p.Coarse(); coarse != "*" {
		b.add(` AND `+column+` LIKE `, strings.NewReplacer(`_`, `\_`, `*`, `%`).Replace(coarse))
	}
}
