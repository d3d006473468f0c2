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
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wake"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// maxConns is the size of the pool, unless the address says pool_max_conns. More updates at once wait for a connection.
	maxConns = 16
	// connectTimeout is how long a connection may take to be made, unless the address says connect_timeout.
	connectTimeout = 5 * time.Second
	// lockAttempts is how many seconds a process waits for another one that migrates.
	lockAttempts = 600
	// minVersion is what the oldest server that we know calls itself.
	minVersion = 130000
)

// settings of every session; those in the address win.
var settings = map[string]string{
	"application_name": "daybook",
	// A process that stops in the middle of a transaction holds up others no longer than this.
	"statement_timeout":                   "30s",
	"idle_in_transaction_session_timeout": "30s",
	// See the package comment.
	"plan_cache_mode":         "force_generic_plan",
	"enable_seqscan":          "off",
	"enable_bitmapscan":       "off",
	"enable_sort":             "off",
	"enable_incremental_sort": "off",
	"enable_hashjoin":         "off",
	"enable_mergejoin":        "off",
	"enable_material":         "off",
	"jit":                     "off",
}

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

func open(ctx context.Context, address string, log *slog.Logger, interval time.Duration) (_ *Store, err error) {
	c, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "address of the coordinator state's database: %w", err)
	}
	// An address holds a password. The error names what helps to find it.
	where := fmt.Sprintf("open coordinator state in database %s on %s", c.ConnConfig.Database, c.ConnConfig.Host)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", where, classify(err))
		}
	}()
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	if err := migrate(ctx, c.ConnConfig.Copy()); err != nil {
		return nil, err
	}
	for name, value := range settings {
		if _, ok := c.ConnConfig.RuntimeParams[name]; !ok {
			c.ConnConfig.RuntimeParams[name] = value
		}
	}
	if !strings.Contains(address, "pool_max_conns") {
		c.MaxConns = maxConns
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &Store{pool: pool, log: log, closing: make(chan struct{})}
	if err := s.check(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	s.watch.start(s, interval)
	return s, nil
}

// check refuses a server that is too old or that does not keep what it acknowledges.
func (s *Store) check(ctx context.Context) error {
	var version int
	var fsync, commit string
	err := s.pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::integer, current_setting('fsync'),
		current_setting('synchronous_commit')`).Scan(&version, &fsync, &commit)
	switch {
	case err != nil:
		return err
	case version < minVersion:
		return fault.New(fault.Precondition, "the server's version is %d.%d; use PostgreSQL 13 or later", version/10000, version%10000)
	case fsync == "off":
		return fault.New(fault.Precondition, "the server loses data in a crash; set fsync = on")
	case commit == "off":
		return fault.New(fault.Precondition, "the server acknowledges what it may lose; set synchronous_commit = on for this database")
	}
	return nil
}

// migrate brings the schema forward. Of several processes one does it while the others wait. A database that a newer program
// migrated is refused.
func migrate(ctx context.Context, c *pgx.ConnConfig) (err error) {
	db := stdlib.OpenDB(*c)
	defer func() { err = errors.Join(err, db.Close()) }()
	// There may be no server. Goose would try for a minute.
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, lockAttempts))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithSessionLocker(locker), goose.WithGoMigrations(fillFolders))
	if err != nil {
		return err
	}
	if _, err = p.Up(ctx); err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err == nil && current > target {
		err = fault.New(fault.Precondition, "the database has schema version %d, and this program knows versions up to %d; use the newer program that wrote it", current, target)
	}
	return err
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
