package bigtable

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"cloud.google.com/go/bigtable/apiv2/bigtablepb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

const (
	// pageSize is the bytes of entries that Get reads at a time, at least; the row in which it lies is read as a whole.
	pageSize = 1 << 20
	// pageRows is the most rows that it reads at a time.
	pageRows = 1024
)

// Get implements storage.Storage.
func (s *Storage) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	g := &getter{store: s, pageQuery: pageQuery{id: idOf(r.Stream), next: max(r.Index, 0), keysOnly: r.KeysOnly}}
	for given := 0; ; {
		g.most = pageRows
		if r.Limit > 0 {
			g.most = min(g.most, r.Limit-given) // a row has at least one of the entries
		}
		portions, err := g.more(ctx)
		if err != nil {
			if s.life.Err() != nil {
				return storage.ErrClosed // what was closed under us fails in several ways
			}
			return explain(ctx, err, "get %s from index %d", r.Stream, g.next)
		}
		if len(portions) == 0 {
			return nil
		}
		for _, p := range portions {
			for index := p.from; index < p.row.End; index++ {
				e := storage.Entry{Index: index}
				if !r.KeysOnly {
					e.Data = p.values[index-p.row.First]
				}
				given++
				if !cb(e) || given == r.Limit {
					return nil
				}
			}
		}
	}
}

// getter is a Get under way.
//
// Rows come in the order of their last entries. As long as each begins where the one before ends, or earlier, nothing can be hidden
// behind another row, and they are read as they come. When one begins later, a row that ends later may begin before it. So the keys
// of all that follows are read, and a plan is made of them.
type getter struct {
	store *Storage
	pageQuery
	plan []step
	// ended is set when there was no more behind what has been read.
	ended bool
}

// pageQuery asks for the rows that follow.
type pageQuery struct {
	id       streamID
	next     types.MessageIndex // not yet given
	most     int                // rows
	keysOnly bool
}

// page is the answer, up to a gap or the end if there is one.
type page struct {
	portions   []portion
	next       types.MessageIndex
	gap, ended bool
}

// step reads the entries of a row from an index on.
type step struct {
	row  runs.Span
	from types.MessageIndex
}

// portion is a step done.
type portion struct {
	step
	values [][]byte // of the row
}

// more returns the entries that follow, and none at the end.
func (g *getter) more(ctx context.Context) ([]portion, error) {
	done, err := g.store.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if g.ended {
		return nil, nil
	}
	if len(g.plan) == 0 {
		at := *g
		p, err := g.store.pages.Do(ctx, g.pageQuery, at.inOrder)
		if err != nil {
			return nil, err
		}
		g.next, g.ended = p.next, p.ended
		if len(p.portions) > 0 || !p.gap {
			return p.portions, nil
		}
		if g.plan, err = g.lookAhead(ctx); err != nil {
			return nil, err
		}
	}
	for len(g.plan) > 0 {
		// Rows that were expunged meanwhile are not there.
		if portions, err := g.planned(ctx); err != nil || len(portions) > 0 {
			return portions, err
		}
	}
	return nil, nil
}

func (g *getter) rest() *rowSet {
	return &rowSet{RowRanges: []*bigtablepb.RowRange{rowRange(g.id.from(g.next), g.id.end())}}
}

// inOrder reads rows as they come.
func (g *getter) inOrder(ctx context.Context) (page, error) {
	p, size := page{next: g.next}, 0
	err := g.scan(ctx, g.rest(), g.most, func(row runs.Span, value []byte) (bool, error) {
		if row.First > p.next {
			p.gap = true
			return false, nil
		}
		part, err := g.read(step{row, p.next}, value)
		p.portions, size, p.next = append(p.portions, part), size+len(value), row.End
		return size < pageSize, err
	})
	p.ended = !p.gap && size < pageSize && len(p.portions) < g.most
	return p, err
}

// lookAhead plans how to read what is there now behind a gap.
func (g *getter) lookAhead(ctx context.Context) ([]step, error) {
	var rows []runs.Span
	err := g.store.table.read(ctx, g.rest(), dataColumn, true, 0, func(c cell) (bool, error) {
		_, row, err := parseKey(c.key)
		rows = append(rows, row)
		return true, err
	})
	return plan(rows, g.next), err
}

// plan returns steps that read every entry of the rows from next on, and none twice. They are in the order of the rows' keys, too.
func plan(rows []runs.Span, next types.MessageIndex) []step {
	slices.SortFunc(rows, func(a, b runs.Span) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(b.End, a.End)) })
	var steps []step
	for i := 0; i < len(rows); {
		next = max(next, rows[i].First)
		longest := rows[i]
		for ; i < len(rows) && rows[i].First <= next; i++ {
			if rows[i].End > longest.End {
				longest = rows[i]
			}
		}
		if longest.End > next {
			steps = append(steps, step{longest, next})
			next = longest.End
		}
	}
	return steps
}

// planned does the next steps of the plan.
func (g *getter) planned(ctx context.Context) (portions []portion, err error) {
	steps := g.plan[:min(g.most, len(g.plan))]
	rows := new(rowSet)
	for _, s := range steps {
		rows.RowKeys = append(rows.RowKeys, []byte(g.id.key(s.row)))
	}
	done, size := len(steps), 0
	err = g.scan(ctx, rows, 0, func(row runs.Span, value []byte) (bool, error) {
		i := slices.IndexFunc(steps, func(s step) bool { return s.row == row })
		if i < 0 {
			return false, fault.New(fault.Internal, "row %v was not asked for", row)
		}
		p, err := g.read(steps[i], value)
		portions, size = append(portions, p), size+len(value)
		if size >= pageSize {
			done = i + 1
		}
		return size < pageSize, err
	})
	if err != nil {
		return nil, err
	}
	g.next, g.plan = steps[done-1].row.End, g.plan[done:]
	return portions, nil
}

// scan reads rows of the stream.
func (g *getter) scan(ctx context.Context, rows *rowSet, limit int, fn func(runs.Span, []byte) (bool, error)) error {
	return g.store.table.read(ctx, rows, dataColumn, g.keysOnly, limit, func(c cell) (bool, error) {
		_, row, err := parseKey(c.key)
		if err == nil && !c.found {
			err = fault.New(fault.DataLoss, "row %q has no cell %s:%s", c.key, family, dataColumn)
		}
		if err != nil {
			return false, err
		}
		return fn(row, c.value)
	})
}

// read takes the entries out of a row.
func (g *getter) read(s step, value []byte) (portion, error) {
	if g.keysOnly {
		return portion{step: s}, nil
	}
	count := s.row.End - s.row.First
	if count > types.MessageIndex(len(value)) { // what has no byte is no entry
		return portion{}, fault.New(fault.DataLoss, "row %q has %d bytes", g.id.key(s.row), len(value))
	}
	run, err := runs.Unpack(value, s.row.First, int(count))
	if err != nil {
		return portion{}, fault.New(fault.DataLoss, "row %q: %w", g.id.key(s.row), err)
	}
	return portion{s, run.Values}, nil
}

// Tail implements storage.Storage.
func (s *Storage) Tail(ctx context.Context, name storage.Stream) (storage.Entry, error) {
	id := idOf(name)
	for {
		known := s.positions.of(id)
		e, err := s.tail(ctx, name, id, known)
		if known > 0 && errors.Is(err, storage.ErrDoesNotExist) {
			// What is known is not so any more.
			s.positions.forget(id)
			continue
		}
		if err == nil || errors.Is(err, storage.ErrDoesNotExist) || errors.Is(err, storage.ErrClosed) {
			return e, err
		}
		return e, explain(ctx, err, "tail of %s", name)
	}
}

// tail looks for the tail of a stream that is known to be there up to an index.
func (s *Storage) tail(ctx context.Context, name storage.Stream, id streamID, known types.MessageIndex) (storage.Entry, error) {
	next, err := s.gapFree(ctx, id, known)
	if err != nil {
		return storage.Entry{}, err
	}
	if next == 0 {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	var found *storage.Entry
	err = s.Get(ctx, storage.GetRequest{Stream: name, Index: next - 1, Limit: 1}, func(e storage.Entry) bool {
		if e.Index == next-1 {
			found = &storage.Entry{Index: e.Index, Data: bytes.Clone(e.Data)}
		}
		return false
	})
	if err != nil {
		return storage.Entry{}, err
	}
	if found == nil {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	s.positions.set(id, next)
	return *found, nil
}

// gapFree returns the end of the run without gaps that reaches at least to known.
func (s *Storage) gapFree(ctx context.Context, id streamID, known types.MessageIndex) (types.MessageIndex, error) {
	done, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	var there runs.Spans
	there.Add(runs.Span{First: 0, End: known})
	rows := &rowSet{RowRanges: []*bigtablepb.RowRange{rowRange(id.from(known), id.end())}}
	err = s.table.read(ctx, rows, dataColumn, true, 0, func(c cell) (bool, error) {
		_, row, err := parseKey(c.key)
		there.Add(row)
		return true, err
	})
	return there.Next(), err
}
