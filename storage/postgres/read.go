package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// pageSize is the bytes of entries that Get reads at a time, at least; the block in which it lies is read as a whole.
	pageSize = 1 << 20
	// pageBlocks is the most blocks that it reads at a time.
	pageBlocks = 1024
)

const (
	thatStream = `stream = (SELECT seq FROM streams WHERE id = $1)`

	selectKeys = `SELECT first, last, 0, ''::bytea FROM blocks WHERE ` + thatStream + ` AND last >= $2 ORDER BY last LIMIT $3`
	// selectBlocks sums up sizes, which are not read with the data of what is left out.
	selectBlocks = `SELECT first, last, size, data FROM (
			SELECT *, sum(size) OVER (ORDER BY last) - size AS before FROM (
				SELECT first, last, size, data FROM blocks WHERE ` + thatStream + ` AND last >= $2 ORDER BY last LIMIT $3
			) AS page
		) AS sized WHERE before < $4 ORDER BY last`
	selectTail = `SELECT b.first, b.last, b.size, b.data, s.next FROM streams s CROSS JOIN LATERAL (
			SELECT first, last, size, data FROM blocks WHERE stream = s.seq AND last >= s.next - 1 ORDER BY last LIMIT 1
		) b WHERE s.id = $1 AND s.next > 0`
)

// Get implements storage.Storage.
func (s *Storage) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	q := pageQuery{id: idOf(r.Stream), next: max(r.Index, 0), keysOnly: r.KeysOnly}
	for given := 0; ; {
		q.most = pageBlocks
		if r.Limit > 0 {
			q.most = min(q.most, r.Limit-given) // a block has at least one of the entries
		}
		blocks, err := s.page(ctx, q)
		if err != nil {
			return fmt.Errorf("storage/postgres: get %s from index %d: %w", r.Stream, q.next, err)
		}
		size := 0
		for _, b := range blocks {
			var values [][]byte
			if !r.KeysOnly {
				if values, err = b.values(); err != nil {
					return fmt.Errorf("storage/postgres: get %s: %w", r.Stream, err)
				}
			}
			for index := max(q.next, b.first); index <= b.last; index++ {
				e := storage.Entry{Index: index}
				if !r.KeysOnly {
					e.Data = values[index-b.first]
				}
				given++
				if !cb(e) || given == r.Limit {
					return nil
				}
			}
			q.next = b.last + 1
			size += b.size
		}
		if len(blocks) < q.most && size < pageSize { // there was no more
			return nil
		}
	}
}

// pageQuery asks for the next blocks of a stream.
type pageQuery struct {
	id       streamID
	next     types.MessageIndex
	most     int
	keysOnly bool
}

// page reads blocks. Others may have got them, too.
func (s *Storage) page(ctx context.Context, q pageQuery) ([]*block, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	return s.pages.Do(ctx, q, func(ctx context.Context) (blocks []*block, err error) {
		text, args := selectBlocks, []any{q.id[:], int64(q.next), q.most, pageSize}
		if q.keysOnly {
			text, args = selectKeys, args[:3]
		}
		err = s.on(ctx, func(c *pgxpool.Conn) error {
			rows, err := c.Query(ctx, text, args...)
			if err != nil {
				return err
			}
			blocks, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*block, error) {
				b := new(block)
				return b, row.Scan(&b.first, &b.last, &b.size, &b.data)
			})
			return err
		})
		return blocks, err
	})
}

// Tail implements storage.Storage.
func (s *Storage) Tail(ctx context.Context, name storage.Stream) (storage.Entry, error) {
	id := idOf(name)
	var b block
	var next types.MessageIndex
	err := s.on(ctx, func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, selectTail, id[:]).Scan(&b.first, &b.last, &b.size, &b.data, &next)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return storage.Entry{}, storage.ErrDoesNotExist
	}
	if err == nil && (next-1 < b.first || next-1 > b.last) {
		err = damaged("entry %d is in no block", next-1)
	}
	var values [][]byte
	if err == nil {
		values, err = b.values()
	}
	if err != nil {
		return storage.Entry{}, fmt.Errorf("storage/postgres: tail of %s: %w", name, err)
	}
	return storage.Entry{Index: next - 1, Data: bytes.Clone(values[next-1-b.first])}, nil
}
