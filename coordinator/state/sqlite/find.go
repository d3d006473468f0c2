package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/logs/types"
)

// FindStreams implements state.Store.
func (s *Store) FindStreams(ctx context.Context, q state.StreamQuery) ([]*state.Stream, state.Position, error) {
	found, next, err := state.Find(ctx, index{&s.queries}, q)
	return found, next, s.after(wrap(err, "find streams of project %s", q.Project))
}

// index implements state.Index. Which index of the database serves is said in the statements, not left to guesses.
type index struct{ db *statements }

// way returns the start of a statement after its columns, and what positions are called in it.
func way(project types.Project, p state.Path, span state.Span, joined bool) (text string, args []any, created, seq string) {
	created, seq = "s.created", "s.seq"
	switch {
	case p.Label != nil:
		created, seq = "l.created", "l.stream"
		text = ` FROM labels l`
		if joined {
			text += ` CROSS JOIN streams s ON s.seq = l.stream`
		}
		text, args = text+joinPrefixes(joined)+` WHERE l.label = ?`, []any{int64(*p.Label)}
	case p.Prefix != nil:
		text = ` FROM streams s INDEXED BY streams_prefix` + joinPrefixes(joined) +
			` WHERE s.prefix = (SELECT seq FROM prefixes WHERE project = ? AND prefix = ?)`
		args = []any{string(project), string(*p.Prefix)}
	case p.Phase != nil:
		text = ` FROM streams s INDEXED BY streams_phase` + joinPrefixes(joined) + ` WHERE s.project = ? AND s.phase = ?`
		args = []any{string(project), int64(*p.Phase)}
	default:
		text = ` FROM streams s INDEXED BY streams_newest` + joinPrefixes(joined) + ` WHERE s.project = ?`
		args = []any{string(project)}
	}
	text += ` AND (` + created + `, ` + seq + `) < (?, ?) AND (` + created + `, ` + seq + `) >= (?, ?)`
	args = append(args, span.Before.Created.UnixMicro(), span.Before.Seq, span.From.Created.UnixMicro(), span.From.Seq)
	return text, args, created, seq
}

func joinPrefixes(joined bool) string {
	if joined {
		return ` CROSS JOIN prefixes p ON p.seq = s.prefix`
	}
	return ""
}

func edge(project types.Project, p state.Path, span state.Span, n int) (string, []any) {
	text, args, created, seq := way(project, p, span, false)
	return `SELECT ` + created + `, ` + seq + text + ` ORDER BY ` + created + ` DESC, ` + seq + ` DESC LIMIT 1 OFFSET ?`, append(args, n-1)
}

func read(project types.Project, p state.Path, span state.Span, r state.Rest, limit int) (string, []any) {
	text, args, created, seq := way(project, p, span, true)
	text, args = glob(text, args, "p.prefix", r.Prefix)
	text, args = glob(text, args, "s.name", r.Name)
	for _, l := range r.Labels {
		text += ` AND EXISTS (SELECT 1 FROM labels o WHERE o.label = ? AND o.created = ` + created + ` AND o.stream = ` + seq + `)`
		args = append(args, int64(l))
	}
	if len(r.Phases) > 0 {
		text += ` AND s.phase IN (?` + strings.Repeat(`, ?`, len(r.Phases)-1) + `)`
		for _, phase := range r.Phases {
			args = append(args, int64(phase))
		}
	}
	switch {
	case r.OnlyPurged:
		text += ` AND s.purged IS NOT NULL`
	case !r.Purged:
		text += ` AND s.purged IS NULL`
	}
	return `SELECT ` + row.StreamColumns + text + ` ORDER BY ` + created + ` DESC, ` + seq + ` DESC LIMIT ?`, append(args, limit)
}

// Edge implements state.Index.
func (x index) Edge(ctx context.Context, project types.Project, p state.Path, span state.Span, n int) (state.Position, error) {
	text, args := edge(project, p, span, n)
	stmt, err := x.db.get(ctx, text)
	if err != nil {
		return state.Position{}, err
	}
	var micros int64
	var last state.Position
	err = stmt.QueryRowContext(ctx, args...).Scan(&micros, &last.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return state.Position{}, nil
	}
	last.Created = time.UnixMicro(micros).UTC()
	return last, err
}

// Read implements state.Index.
func (x index) Read(
	ctx context.Context, project types.Project, p state.Path, span state.Span, r state.Rest, limit int,
) ([]*state.Stream, error) {
	text, args := read(project, p, span, r, limit)
	rows, err := x.db.query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	found := make([]*state.Stream, 0, min(limit, state.Window))
	size := 0
	err = each(rows, row.Stream, func(s *state.Stream) bool {
		found = append(found, s)
		size += len(s.Descriptor)
		return size < state.ReadBytes
	})
	return found, err
}
