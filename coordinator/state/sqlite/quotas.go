package sqlite

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	openStreams = `SELECT count(*) FROM (SELECT 1 FROM streams INDEXED BY streams_phase WHERE project = ? AND phase = ? LIMIT ?)`

	recentPrefixes = `SELECT count(*) FROM (SELECT 1 FROM prefixes INDEXED BY prefixes_newest WHERE project = ? AND created >= ? LIMIT ?)`

	archivedSince = `SELECT coalesce(sum(content_size), 0) FROM streams INDEXED BY streams_archived WHERE project = ? AND archived >= ?`
)

func (t *tx) OpenStreams(project types.Project, limit int64) (int64, error) {
	n, err := t.count(context.Background(), openStreams, string(project), int(state.Open), limit)
	return n, wrap(err, "count the open streams of project %s", project)
}

func (t *tx) RecentPrefixes(project types.Project, since time.Time, limit int64) (int64, error) {
	n, err := t.count(context.Background(), recentPrefixes, string(project), since.UnixMicro(), limit)
	return n, wrap(err, "count the prefixes of project %s", project)
}

// ArchivedSince implements state.Store.
func (s *Store) ArchivedSince(ctx context.Context, project types.Project, since time.Time) (int64, error) {
	n, err := s.queries.count(ctx, archivedSince, string(project), since.UnixMicro())
	return n, s.after(wrap(err, "sum what project %s archived", project))
}

// count executes a query that returns a number.
func (s *statements) count(ctx context.Context, text string, args ...any) (n int64, err error) {
	stmt, err := s.get(ctx, text)
	if err == nil {
		err = stmt.QueryRowContext(ctx, args...).Scan(&n)
	}
	return n, err
}
