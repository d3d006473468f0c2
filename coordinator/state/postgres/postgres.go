// Package postgres keeps the Coordinator's state in a PostgreSQL database (13 or later), for any number of processes at once. The
// schema's page is docs/formats/state.md.
//
// Transactions are READ COMMITTED, and what they read by its name they lock: a stream or task that an Update has seen changes
// only through it until it ends. What it has not found is guarded by unique keys. So updates that are about different things do not wait for
// each other, those about the same do, and each sees what the one before left; this is as good as serializable for what a Tx
// offers. Tasks that another process is leasing are passed over, so that processes do not wait for each other's leases. An update
// that loses a conflict all the same runs again.
//
// Every query goes by an index, in the order of the index. The planner is told so with the settings of the session, and plans are
// generic: they depend neither on statistics nor on values, and so do not change for the worse some night. Conditions are written so
// that also a plan made while a table is empty, when all indexes cost the same, goes by the right one. The address must lead
// to the server itself, or to a pooler that gives a connection to a session, because settings and prepared statements belong to sessions.
//
// What Update acknowledged is on stable storage, and on synchronous standbys if the server is configured so; a server that is told not to
// sync is refused. Watchers are woken at once within the process. Changes of other processes are found with one query every
// 40 ms that asks for everything that is waited for, while something is; commits do nothing for it.
package postgres

import (
	"context"
	"embed"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/pgdb"
	"github.com/daybook-dev/daybook/internal/wake"
)

//go:embed migrations/*.sql
var migrations embed.FS

// maxConns is the size of the pool, unless the address says pool_max_conns. More updates at once wait for a connection.
const maxConns = 16

// Store implements state.Store.
type Store struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	closing chan struct{}
	closed  sync.Once

	streams wake.Hub[streamKey]
	tasks   wake.Hub[struct{}]
	watch   watch
}

var _ state.Store = (*Store)(nil)

// Open opens the state in a database, and creates or migrates it. The address is a URL or a list of settings as PostgreSQL's own programs
// take them; it may say pool_max_conns. Several processes may open one database at the same time.
func Open(ctx context.Context, address string, log *slog.Logger) (*Store, error) {
	return open(ctx, address, log, pollInterval)
}

func open(ctx context.Context, address string, log *slog.Logger, interval time.Duration) (*Store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	pool, err := pgdb.Open(ctx, address, pgdb.Options{
		Content: "coordinator state", Migrations: files, GoMigrations: []*goose.Migration{fillFolders}, MaxConns: maxConns,
	})
	if err != nil {
		return nil, err
	}
	s := &Store{pool: pool, log: log, closing: make(chan struct{})}
	s.watch.start(s, interval)
	return s, nil
}

// Close implements state.Store.
func (s *Store) Close() error {
	s.closed.Do(func() { close(s.closing) })
	s.watch.wait()
	s.pool.Close()
	return nil
}

// after translates the error of a call that met a closed store.
func (s *Store) after(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.closing:
		return state.ErrClosed
	default:
		return err
	}
}
