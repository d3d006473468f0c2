package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/logs/types"
)

// FindStreams implements state.Store.
func (s *Store) FindStreams(ctx context.Context, q state.StreamQuery) (found []*state.Stream, next state.Position, err error) {
	err = s.read(ctx, func(db querier) (err error) { found, next, err = state.Find(ctx, index{db}, q); return err })
	return found, next, wrap(err, "find streams of project %s", q.Project)
}

// index implements state.Index.
type index struct{ db querier }

// statement is a statement that grows, with its parameters.
type statement struct {
	text strings.Builder
	args []any
}

// add adds text and a parameter.
func (b *statement) add(text string, arg any) {
	b.args = append(b.args, arg)
	b.text.WriteString(text + "$" + strconv.Itoa(len(b.args)))
}

// way adds what is between the columns and the rest of a statement, and returns what positions are called in it.
func (b *statement) way(project types.Project, p state.Path, span state.Span, joined bool) (created, seq string) {
	created, seq = "s.created", "s.seq"
	join := ""
	if joined {
		join = ` JOIN prefixes p ON p.seq = s.prefix`
	}
	switch {
	case p.Label != nil:
		created, seq = "l.created", "l.stream"
		b.text.WriteString(` FROM labels l`)
		if joined {
			b.text.WriteString(` JOIN streams s ON s.seq = l.stream`)
		}
		b.add(join+` WHERE l.label = `, int64(*p.Label))
	case p.Prefix != nil:
		b.add(` FROM streams s`+join+` WHERE s.prefix = (SELECT seq FROM prefixes WHERE (project = `, string(project))
		b.add(`) IS TRUE AND sha256(prefix::bytea) = sha256(`, string(*p.Prefix))
		b.text.WriteString(`::text::bytea))`)
	case p.Phase != nil:
		b.add(` FROM streams s`+join+` WHERE s.project = `, string(project))
		b.add(` AND s.phase = `, int64(*p.Phase))
	default:
		b.add(` FROM streams s`+join+` WHERE s.project = `, string(project))
	}
	position := ` AND (` + created + `, ` + seq + `)`
	b.add(position+` < (`, span.Before.Created.UnixMicro())
	b.add(`, `, span.Before.Seq)
	b.add(`)`+position+` >= (`, span.From.Created.UnixMicro())
	b.add(`, `, span.From.Seq)
	b.text.WriteString(`)`)
	return created, seq
}

func edge(project types.Project, p state.Path, span state.Span, n int) (string, []any) {
	b := new(statement)
	created, seq := b.way(project, p, span, false)
	b.add(` ORDER BY `+created+` DESC, `+seq+` DESC LIMIT 1 OFFSET `, n-1)
	return `SELECT ` + created + `, ` + seq + b.text.String(), b.args
}

func read(project types.Project, p state.Path, span state.Span, r state.Rest, limit int) (string, []any) {
	b := new(statement)
	created, seq := b.way(project, p, span, true)
	b.like("p.prefix", r.Prefix)
	b.like("s.name", r.Name)
	for _, l := range r.Labels {
		b.add(` AND EXISTS (SELECT FROM labels o WHERE o.label = `, int64(l))
		b.text.WriteString(` AND o.created = ` + created + ` AND o.stream = ` + seq + `)`)
	}
	if len(r.Phases) > 0 {
		b.add(` AND s.phase = ANY(`, r.Phases)
		b.text.WriteString(`)`)
	}
	switch {
	case r.OnlyPurged:
		b.text.WriteString(` AND s.purged IS NOT NULL`)
	case !r.Purged:
		b.text.WriteString(` AND s.purged IS NULL`)
	}
	b.add(` ORDER BY `+created+` DESC, `+seq+` DESC LIMIT `, limit)
	return `SELECT ` + row.StreamColumns + b.text.String(), b.args
}

// Edge implements state.Index.
func (x index) Edge(ctx context.Context, project types.Project, p state.Path, span state.Span, n int) (state.Position, error) {
	text, args := edge(project, p, span, n)
	var micros int64
	var last state.Position
	err := x.db.QueryRow(ctx, text, args...).Scan(&micros, &last.Seq)
	if errors.Is(err, pgx.ErrNoRows) {
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
	rows, err := x.db.Query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	var found []*state.Stream
	size := 0
	err = each(rows, row.Stream, func(s *state.Stream) bool {
		found = append(found, s)
		size += len(s.Descriptor)
		return size < state.ReadBytes
	})
	return found, err
}
