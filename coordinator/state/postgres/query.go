package postgres

import (
	"context"
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

	// A prefix is found by its hash. Names hold nothing that is special in this notation of bytes. The project is compared so that no index
	// beginning with it will do.
	thatPrefix = `(project = $1) IS TRUE AND sha256(prefix::bytea) = sha256($2::text::bytea)`
	thatStream = `s.id = $2 AND (s.project = $1) IS TRUE`
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
	return collect(rows, targets)
}

// collect returns all rows.
func collect[T any](rows pgx.Rows, targets func(*T) ([]any, func() error)) (found []*T, err error) {
	err = each(rows, targets, func(v *T) bool { found = append(found, v); return true })
	return found, err
}

// each visits rows until visit returns false.
func each[T any](rows pgx.Rows, targets func(*T) ([]any, func() error), visit func(*T) bool) error {
	defer rows.Close()
	for more := true; more && rows.Next(); {
		v := new(T)
		to, done := targets(v)
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := done(); err != nil {
			return err
		}
		more = visit(v)
	}
	rows.Close() // so that Err is of all
	return rows.Err()
}

// orMissing makes a row that is not there an error.
func orMissing[T any](v *T, err error, format string, args ...any) (*T, error) {
	if v == nil && err == nil {
		err = fault.New(fault.NotFound, format, args...)
	}
	return v, err
}

// first returns the first row, or nil.
func first[T any](ctx context.Context, db querier, targets func(*T) ([]any, func() error), text string, args ...any) (*T, error) {
	found, err := all(ctx, db, targets, text, args...)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// Prefix implements state.Store.
func (s *Store) Prefix(ctx context.Context, project types.Project, prefix types.StreamName) (p *state.Prefix, err error) {
	err = s.read(ctx, func(db querier) (err error) {
		p, err = first(ctx, db, row.Prefix, fromPrefixes+thatPrefix, string(project), string(prefix))
		return err
	})
	return orMissing(p, wrap(err, "read prefix %s of project %s", prefix, project), "no prefix %s in project %s", prefix, project)
}

// Stream implements state.Store.
func (s *Store) Stream(ctx context.Context, project types.Project, id types.StreamID) (v *state.Stream, err error) {
	err = s.read(ctx, func(db querier) (err error) {
		v, err = first(ctx, db, row.Stream, fromStreams+thatStream, string(project), string(id))
		return err
	})
	return orMissing(v, wrap(err, "read stream %s of project %s", id, project), "no such stream in project %s", project)
}

// Registered implements state.Store. It takes one round trip.
func (s *Store) Registered(
	ctx context.Context, project types.Project, prefix types.StreamName, id types.StreamID,
) (p *state.Prefix, v *state.Stream, err error) {
	err = s.retry(ctx, func() error {
		p, v = nil, nil
		b := new(pgx.Batch)
		b.Queue(fromPrefixes+thatPrefix, string(project), string(prefix)).Query(func(rows pgx.Rows) error {
			found, err := collect(rows, row.Prefix)
			if len(found) > 0 {
				p = found[0]
			}
			return err
		})
		b.Queue(fromStreams+thatStream, string(project), string(id)).Query(func(rows pgx.Rows) error {
			found, err := collect(rows, row.Stream)
			if len(found) > 0 {
				v = found[0]
			}
			return err
		})
		return s.pool.SendBatch(ctx, b).Close()
	})
	return p, v, wrap(err, "look up stream %s of project %s", id, project)
}

// FindPrefixes implements state.Store.
func (s *Store) FindPrefixes(ctx context.Context, q state.PrefixQuery) ([]*state.Prefix, error) {
	var found []*state.Prefix
	for {
		text, args := findPrefixes(q)
		page, err := listed(ctx, s, row.Prefix, text, args...)
		if err != nil {
			return nil, wrap(err, "find prefixes of project %s", q.Project)
		}
		for _, p := range page {
			q.After = p.Position()
			if len(found) < q.Limit && q.Match(p) {
				found = append(found, p)
			}
		}
		if len(page) < q.Limit || len(found) == q.Limit {
			return found, nil
		}
	}
}

func findPrefixes(q state.PrefixQuery) (string, []any) {
	span, b := q.Span(), &statement{}
	const position = ` AND (p.created, p.seq)`
	if prefix, ok := q.Prefix.Literal(); ok {
		b.add(fromPrefixes+`(project = `, string(q.Project))
		b.add(`) IS TRUE AND sha256(prefix::bytea) = sha256(`, string(prefix))
		b.text.WriteString(`::text::bytea)`)
	} else {
		b.add(fromPrefixes+`p.project = `, string(q.Project))
		b.like(`p.prefix`, q.Prefix)
	}
	b.add(position+` < (`, span.Before.Created.UnixMicro())
	b.add(`, `, span.Before.Seq)
	b.add(`)`+position+` >= (`, span.From.Created.UnixMicro())
	b.add(`, `, span.From.Seq)
	b.text.WriteString(`) AND p.deleted IS NULL`)
	if _, ok := q.Prefix.Literal(); !ok {
		b.add(` ORDER BY p.created DESC, p.seq DESC LIMIT `, q.Limit)
	}
	return b.text.String(), b.args
}

const (
	oldestOfPrefix = fromStreams + `s.prefix = $1 AND (s.created, s.seq) > ($2, $3) AND (s.purged IS NULL OR $4)
		ORDER BY s.created, s.seq LIMIT $5`
	oldestOfProject = fromStreams + `s.project = $1 AND (s.created, s.seq) > ($2, $3) AND s.created < $4 AND s.ended < $4 AND s.purged IS NULL
		ORDER BY s.created, s.seq LIMIT $5`
	emptyPrefixes = fromPrefixes + `p.project = $1 AND (p.created, p.seq) > ($2, $3) AND p.created < $4 AND p.expires < $4
		AND NOT EXISTS (SELECT FROM streams s WHERE s.prefix = p.seq) ORDER BY p.created, p.seq LIMIT $5`
	deletedPrefixes = fromPrefixes + `p.deleted IS NOT NULL ORDER BY p.deleted LIMIT $1`
	allTasks        = fromTasks + `t.seq > $1 ORDER BY t.seq LIMIT $2`
	deadTasks       = fromTasks + `t.dead IS NOT NULL AND t.seq > $1 ORDER BY t.seq LIMIT $2`
)

// OldestStreams implements state.Store.
func (s *Store) OldestStreams(ctx context.Context, q state.OldestQuery) (found []*state.Stream, err error) {
	created, seq := q.After.Created.UnixMicro(), q.After.Seq
	if q.Prefix != nil {
		found, err = listed(ctx, s, row.Stream, oldestOfPrefix, q.Prefix.Seq, created, seq, q.Purged, q.Limit)
	} else {
		found, err = listed(ctx, s, row.Stream, oldestOfProject, string(q.Project), created, seq, q.Before.UnixMicro(), q.Limit)
	}
	return found, wrap(err, "list the oldest streams")
}

// EmptyPrefixes implements state.Store.
func (s *Store) EmptyPrefixes(
	ctx context.Context, project types.Project, before time.Time, after state.Position, limit int,
) ([]*state.Prefix, error) {
	found, err := listed(ctx, s, row.Prefix, emptyPrefixes, string(project), after.Created.UnixMicro(), after.Seq, before.UnixMicro(), limit)
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
func listed[T any](ctx context.Context, s *Store, targets func(*T) ([]any, func() error), text string, args ...any) (found []*T, err error) {
	err = s.read(ctx, func(db querier) (err error) { found, err = all(ctx, db, targets, text, args...); return err })
	return found, err
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
