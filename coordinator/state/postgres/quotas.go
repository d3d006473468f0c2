package postgres

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	openStreams = `SELECT count(*) FROM (SELECT FROM streams WHERE project = $1 AND phase = $2 LIMIT $3) open`

	recentPrefixes = `SELECT count(*) FROM (SELECT FROM prefixes WHERE project = $1 AND created >= $2 LIMIT $3) recent`

	archivedSince = `SELECT coalesce(sum(content_size), 0)::bigint FROM streams WHERE project = $1 AND archived >= $2`
)

func (t *tx) OpenStreams(project types.Project, limit int64) (int64, error) {
	n, err := t.count(openStreams, string(project), int(state.Open), limit)
	return n, t.fail(err, "count the open streams of project %s", project)
}

func (t *tx) RecentPrefixes(project types.Project, since time.Time, limit int64) (int64, error) {
	n, err := t.count(recentPrefixes, string(project), since.UnixMicro(), limit)
	return n, t.fail(err, "count the prefixes of project %s", project)
}

// count reads a number.
func (t *tx) count(text string, args ...any) (int64, error) {
	n, err := findOne(t, func(n *int64) ([]any, func() error) { return []any{n}, func() error { return nil } }, text, args...)
	if err != nil {
		return 0, err
	}
	return *n, nil
}

// ArchivedSince implements state.Store.
func (s *Store) ArchivedSince(ctx context.Context, project types.Project, since time.Time) (n int64, err error) {
	err = s.read(ctx, func(db querier) error {
		return db.QueryRow(ctx, archivedSince, string(project), since.UnixMicro()).Scan(&n)
	})
	return n, wrap(err, "sum what project %s archived", project)
}
