package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

const (
	// statementSize is about the most bytes of blocks in a statement.
	statementSize = 8 << 20
	// rollbackTimeout bounds what is done for a caller that has gone away.
	rollbackTimeout = 5 * time.Second
)

// Put implements storage.Storage.
func (s *Storage) Put(ctx context.Context, r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Size() > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage/postgres: put %s: more than %d bytes at once", r.Stream, storage.MaxBatchSize)
	}
	if err := s.commit(ctx, []storage.PutRequest{r}, nil); err != nil {
		return fmt.Errorf("storage/postgres: put %s from index %d: %w", r.Stream, r.Index, err)
	}
	return nil
}

// NewBatch implements storage.Storage.
func (s *Storage) NewBatch() storage.Batch { return &batch{store: s} }

type batch struct {
	store       *Storage
	puts        []storage.PutRequest
	checkpoints map[string]int64
	size        int
}

func (b *batch) Put(r storage.PutRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	size := r.Size()
	if b.size+size > storage.MaxBatchSize {
		return fault.New(fault.Exhausted, "storage/postgres: put %s: the batch would exceed %d bytes", r.Stream, storage.MaxBatchSize)
	}
	b.puts = append(b.puts, r)
	b.size += size
	return nil
}

func (b *batch) SetCheckpoint(reader string, offset int64) {
	if b.checkpoints == nil {
		b.checkpoints = make(map[string]int64)
	}
	b.checkpoints[reader] = offset
}

func (b *batch) Size() int { return b.size }

func (b *batch) Commit(ctx context.Context) error {
	if err := b.store.commit(ctx, b.puts, b.checkpoints); err != nil {
		return fmt.Errorf("storage/postgres: commit a batch of %d puts: %w", len(b.puts), err)
	}
	return b.Close()
}

func (b *batch) Close() error {
	clear(b.puts) // lets go of the values and keeps the room
	clear(b.checkpoints)
	b.puts, b.size = b.puts[:0], 0
	return nil
}

// commit applies puts and checkpoints in one transaction.
func (s *Storage) commit(ctx context.Context, puts []storage.PutRequest, checkpoints map[string]int64) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	w := newWriter(puts, checkpoints)
	if w.empty() {
		return nil
	}
	s.watch.own(w)
	// Whether a commit was made that was sent and never answered is not known. It is made again, which changes nothing.
	if err := s.on(ctx, func(c *pgxpool.Conn) error { return w.run(ctx, c) }); err != nil {
		return err
	}
	for _, p := range w.streams {
		s.metrics.entries.Add(float64(p.entries))
		s.metrics.written.Add(float64(p.bytes))
		s.metrics.stored.Add(float64(p.stored))
		s.metrics.repeated.Add(float64(p.repeated))
		s.hub.Wake(p.name)
	}
	return nil
}

// writer is a commit.
type writer struct {
	streams []*pending // in the order of their ids, in which everyone locks them
	readers []string
	offsets []int64
	// change is the new value of that column, which no other commit has.
	change int64
}

// pending is a stream in a commit.
type pending struct {
	name storage.Stream
	id   streamID
	runs []runs.Run
	// ready are the blocks of all runs. They were made before anything was locked, in the hope that the runs are new.
	ready []*block

	// What follows belongs to an attempt.
	seq        int64 // zero until the stream is locked
	next, high types.MessageIndex
	blocks     []*block // to be stored
	// fills is set when they may fill a gap, so that next is somewhere behind others.
	fills bool

	entries, bytes, stored, repeated int
}

func newWriter(puts []storage.PutRequest, checkpoints map[string]int64) *writer {
	w := &writer{change: rand.Int64()} //nolint:gosec // no secret
	for _, s := range runs.Collect(puts) {
		p := &pending{name: s.Name, id: idOf(s.Name), runs: s.Runs}
		for _, r := range p.runs {
			p.ready = append(p.ready, encode(r)...)
		}
		w.streams = append(w.streams, p)
	}
	slices.SortFunc(w.streams, func(a, b *pending) int { return bytes.Compare(a.id[:], b.id[:]) })
	for reader, offset := range checkpoints {
		w.readers = append(w.readers, reader)
		w.offsets = append(w.offsets, offset)
	}
	return w
}

func (w *writer) empty() bool { return len(w.streams) == 0 && len(w.readers) == 0 }

// run makes an attempt.
func (w *writer) run(ctx context.Context, c *pgxpool.Conn) (err error) {
	defer func() {
		if err != nil {
			rollback(ctx, c)
		}
	}()
	if err := w.lock(ctx, c); err != nil {
		return err
	}
	if err := w.sortOut(ctx, c); err != nil {
		return err
	}
	return w.store(ctx, c)
}

// rollback leaves the connection as it was. If that fails it is closed, which has the same effect.
func rollback(ctx context.Context, c *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
		_ = c.Conn().Close(ctx)
	}
}

const (
	lockStreams = `SELECT id, seq, next, high FROM streams WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE`
	// addStreams waits for another transaction that is adding one of them, and passes it over.
	addStreams = `INSERT INTO streams (id) SELECT id FROM unnest($1::bytea[]) id ON CONFLICT DO NOTHING RETURNING id, seq, next, high`
)

// lock begins the transaction and locks the streams, and adds those that are not there.
func (w *writer) lock(ctx context.Context, c *pgxpool.Conn) error {
	for _, p := range w.streams {
		p.seq = 0
	}
	var q pgx.Batch
	q.Queue("BEGIN")
	for add := false; ; add = true {
		missing := make([][]byte, 0, len(w.streams))
		for _, p := range w.streams {
			if p.seq == 0 {
				missing = append(missing, p.id[:])
			}
		}
		if len(missing) == 0 && q.Len() == 0 {
			return nil
		}
		if len(missing) > 0 {
			if add {
				q.Queue(addStreams, missing).Query(w.locked)
			}
			q.Queue(lockStreams, missing).Query(w.locked)
		}
		if err := c.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("lock %d streams: %w", len(missing), err)
		}
		q = pgx.Batch{}
	}
}

// locked notes streams that are locked.
func (w *writer) locked(rows pgx.Rows) error {
	var id []byte
	var seq int64
	var next, high types.MessageIndex
	_, err := pgx.ForEachRow(rows, []any{&id, &seq, &next, &high}, func() error {
		i, ok := slices.BinarySearchFunc(w.streams, id, func(p *pending, id []byte) int { return bytes.Compare(p.id[:], id) })
		if !ok {
			return fault.New(fault.Internal, "the database found stream %x, which nobody asked for", id)
		}
		w.streams[i].seq, w.streams[i].next, w.streams[i].high = seq, next, high
		return nil
	})
	return err
}

// existing finds blocks with any of the indices from $2 up to and without $3. Blocks do not overlap, so there are not more of them than indices.
const existing = `SELECT first, last FROM (
		SELECT first, last FROM blocks WHERE stream = $1 AND last >= $2 ORDER BY last LIMIT $3 - $2
	) b WHERE first < $3`

// sortOut decides which blocks to store, by what is there.
func (w *writer) sortOut(ctx context.Context, c *pgxpool.Conn) error {
	var q pgx.Batch
	have := make([][]runs.Span, len(w.streams))
	for i, p := range w.streams {
		for _, r := range p.runs {
			if r.First > p.high {
				break
			}
			span := r.Span()
			q.Queue(existing, p.seq, span.First, span.End).Query(func(rows pgx.Rows) error {
				var first, last types.MessageIndex
				_, err := pgx.ForEachRow(rows, []any{&first, &last}, func() error {
					have[i] = append(have[i], runs.Span{First: first, End: last + 1})
					return nil
				})
				return err
			})
		}
	}
	if q.Len() > 0 {
		if err := c.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("look for entries that are there: %w", err)
		}
	}
	for i, p := range w.streams {
		p.plan(have[i])
	}
	return nil
}

// plan sets what is to be stored, and next and high as they will be, as far as they can be told.
func (p *pending) plan(have []runs.Span) {
	missing := p.runs
	p.blocks, p.fills = p.ready, false
	if len(have) > 0 {
		missing, p.blocks = runs.Missing(p.runs, have), nil
		for _, r := range missing {
			p.blocks = append(p.blocks, encode(r)...)
		}
	}
	p.entries, p.bytes, p.stored, p.repeated = 0, 0, 0, 0
	for _, r := range p.runs {
		p.repeated += len(r.Values)
	}
	for _, r := range missing {
		p.entries += len(r.Values)
		for _, v := range r.Values {
			p.bytes += len(v)
		}
	}
	p.repeated -= p.entries
	for _, b := range p.blocks {
		p.stored += len(b.data)
	}
	for _, r := range p.runs {
		span := r.Span()
		p.high = max(p.high, span.End-1)
		if span.First <= p.next && span.End > p.next {
			p.next, p.fills = span.End, true
		}
	}
	p.fills = p.fills && p.high >= p.next
}

// unhurried lets what follows in a transaction take its time. What never gets done within a statement's time would be tried for ever.
const unhurried = `SET LOCAL statement_timeout = 0`

const (
	addBlocks = `INSERT INTO blocks (stream, first, last, size, data)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::bytea[])`
	changeStreams = `UPDATE streams s SET next = u.next, high = u.high, change = $4
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) u (seq, next, high) WHERE s.seq = u.seq`
	// fillGap moves next to the end of the run without gaps that reaches at least to $2.
	fillGap = `UPDATE streams SET next = (
			WITH RECURSIVE run (next) AS (
				SELECT $2::bigint UNION ALL
				SELECT b.last + 1 FROM run CROSS JOIN LATERAL (
					SELECT first, last FROM blocks WHERE stream = $1 AND last >= run.next ORDER BY last LIMIT 1
				) b WHERE b.first <= run.next
			) SELECT max(next) FROM run
		) WHERE seq = $1`
	setCheckpoints = `INSERT INTO checkpoints (reader, position) SELECT * FROM unnest($1::text[], $2::bigint[])
		ON CONFLICT (reader) DO UPDATE SET position = greatest(checkpoints.position, excluded.position)`
)

// store stores what is new, and commits.
func (w *writer) store(ctx context.Context, c *pgxpool.Conn) error {
	var q pgx.Batch
	var blocks columns
	var seqs, nexts, highs []int64
	for _, p := range w.streams {
		if len(p.blocks) == 0 {
			continue
		}
		seqs, nexts, highs = append(seqs, p.seq), append(nexts, int64(p.next)), append(highs, int64(p.high))
		for _, b := range p.blocks {
			blocks.add(p.seq, b)
			if blocks.bytes >= statementSize {
				blocks.queue(&q)
			}
		}
	}
	blocks.queue(&q)
	if len(seqs) > 0 {
		q.Queue(changeStreams, seqs, nexts, highs, w.change)
	}
	for _, p := range w.streams {
		if p.fills {
			q.Queue(unhurried) // there may be a million blocks behind the gap
			q.Queue(fillGap, p.seq, p.next)
		}
	}
	if len(w.readers) > 0 {
		q.Queue(setCheckpoints, w.readers, w.offsets)
	}
	q.Queue("COMMIT")
	if err := c.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// columns are the parameters of addBlocks.
type columns struct {
	streams, firsts, lasts []int64
	sizes                  []int32
	data                   [][]byte
	bytes                  int
}

func (c *columns) add(stream int64, b *block) {
	c.streams = append(c.streams, stream)
	c.firsts, c.lasts = append(c.firsts, int64(b.first)), append(c.lasts, int64(b.last))
	c.sizes, c.data = append(c.sizes, int32(b.size)), append(c.data, b.data)
	c.bytes += len(b.data)
}

func (c *columns) queue(q *pgx.Batch) {
	if len(c.data) > 0 {
		q.Queue(addBlocks, c.streams, c.firsts, c.lasts, c.sizes, c.data)
	}
	*c = columns{}
}

// Expunge implements storage.Storage.
func (s *Storage) Expunge(ctx context.Context, name storage.Stream) error {
	id := idOf(name)
	err := s.on(ctx, func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			// Whoever is writing the stream is waited for, so that the next statement finds all of it.
			var seq int64
			err := tx.QueryRow(ctx, `DELETE FROM streams WHERE id = $1 RETURNING seq`, id[:]).Scan(&seq)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			var q pgx.Batch
			q.Queue(unhurried) // it may be large
			q.Queue(`DELETE FROM blocks WHERE stream = $1`, seq)
			return tx.SendBatch(ctx, &q).Close()
		})
	})
	if err != nil {
		return fmt.Errorf("storage/postgres: expunge %s: %w", name, err)
	}
	return nil
}
