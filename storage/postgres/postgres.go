// Package postgres keeps entries in a PostgreSQL database (13 or later), for any number of processes at once: the store of an
// installation on several machines. The tables' page is docs/formats/entries-postgres.md.
//
// Entries of a stream that are put together lie together in compressed blocks, and no two blocks of a stream overlap: a batch locks
// its streams, looks which of its entries are there already, and adds blocks of the others. So two Collectors that store the same
// messages wait for each other stream by stream, and the second one finds nothing to do. A batch and its checkpoints are one
// transaction.
//
// What Put and Commit acknowledged is on stable storage, and on synchronous standbys if the server is configured so; a server that is
// told not to sync is refused. Sync has nothing left to do.
//
// Watchers are woken at once within the process. Changes of other processes are found with one query every 40 ms for all streams that
// are watched, while some are; commits do nothing for it.
//
// Readers that ask for the same at the same time, as followers of a stream do, share an answer.
//
// All methods are safe for concurrent use. No connection is held while a callback runs.
package postgres

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/pgdb"
	"github.com/daybook-dev/daybook/internal/share"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/storage"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// schema is where the tables are, so that entries and the Coordinator's state may share a database.
	schema = "entries"
	// maxConns is the size of the pool, unless the address says pool_max_conns. More calls at once wait for a connection.
	maxConns = 16
	// pollInterval is the time between two looks for changes that other processes made.
	pollInterval = 40 * time.Millisecond
)

// Options of Open. The zero value is good.
type Options struct {
	// Logger receives what goes on in the background; nil drops it.
	Logger *slog.Logger
	// Registerer receives the store's metrics; nil is none.
	Registerer prometheus.Registerer
}

// Storage is a storage.Storage.
type Storage struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	// life ends with Close.
	life   context.Context
	end    context.CancelFunc
	closed sync.Once

	pages   *share.Group[pageQuery, []*block]
	hub     wake.Hub[storage.Stream]
	watch   watch
	metrics *metrics
}

var _ storage.Storage = (*Storage)(nil)

// streamID stands for a stream in the tables. Names can have 4 KiB.
type streamID [sha256.Size]byte

func idOf(s storage.Stream) streamID { return sha256.Sum256([]byte(s.String())) }

// Open opens the entries in a database, and creates or migrates their tables. They are in a schema of their own, entries, unless the
// address has a search_path. The address is a URL or a list of settings as PostgreSQL's own programs take them. Several processes
// may open one database at the same time.
func Open(ctx context.Context, address string, o Options) (*Storage, error) {
	return open(ctx, address, o, pollInterval)
}

func open(ctx context.Context, address string, o Options, interval time.Duration) (*Storage, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	pool, err := pgdb.Open(ctx, address, pgdb.Options{Content: "entries", Schema: schema, Migrations: files, MaxConns: maxConns})
	if err != nil {
		return nil, err
	}
	s := &Storage{pool: pool, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.metrics, err = newMetrics(o.Registerer); err != nil {
		pool.Close()
		return nil, fmt.Errorf("storage/postgres: register metrics: %w", err)
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.pages = share.NewGroup[pageQuery, []*block](storage.ErrClosed)
	s.watch.start(s, interval)
	return s, nil
}

// Close waits for the calls under way.
func (s *Storage) Close() error {
	err := storage.ErrClosed
	s.closed.Do(func() {
		err = nil
		s.end()
		s.watch.poller.Wait()
		s.pages.Close()
		s.pool.Close()
		s.metrics.unregister()
	})
	return err
}

// usable returns why nothing can be done.
func (s *Storage) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.life.Err() != nil {
		return storage.ErrClosed
	}
	return nil
}

// on runs fn on a connection. It may run more than once.
func (s *Storage) on(ctx context.Context, fn func(*pgxpool.Conn) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	err := pgdb.Retry(ctx, func() error { return s.pool.AcquireFunc(ctx, fn) })
	if err != nil && s.life.Err() != nil {
		return storage.ErrClosed // what was closed under fn fails in several ways
	}
	return pgdb.Classify(err)
}

// Checkpoint implements storage.Storage.
func (s *Storage) Checkpoint(ctx context.Context, reader string) (position int64, err error) {
	err = s.on(ctx, func(c *pgxpool.Conn) error {
		err := c.QueryRow(ctx, `SELECT position FROM checkpoints WHERE reader = $1`, reader).Scan(&position)
		if errors.Is(err, pgx.ErrNoRows) {
			position, err = 0, nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("storage/postgres: checkpoint of %s: %w", reader, err)
	}
	return position, nil
}

// Sync implements storage.Storage: what is committed is synced.
func (s *Storage) Sync(ctx context.Context) error { return s.usable(ctx) }

// damaged is the error of a block that is not as it was written.
func damaged(format string, args ...any) error { return fault.New(fault.DataLoss, format, args...) }
