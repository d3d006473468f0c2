// Package pgdb opens PostgreSQL databases (13 or later) as Daybook's engines need them: migrated, refusing a server that loses what it
// acknowledged, and with errors that have kinds (package fault).
//
// All functions are safe for concurrent use. The pool belongs to the caller.
package pgdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// connectTimeout is how long a connection may take to be made, unless the address says connect_timeout.
	connectTimeout = 5 * time.Second
	// lockAttempts is how many seconds a process waits for another one that migrates.
	lockAttempts = 600
	// minVersion is what the oldest server that we know calls itself.
	minVersion = 130000
	// schemaLock is the advisory lock that those hold who create a schema.
	schemaLock = 0x64617962_6f6f6b00
)

// settings of every session; those in the address win.
//
// Every query goes by an index, in its order. The planner is told so, and plans are generic: they depend neither on statistics nor on
// values, and so do not change for the worse some night. Conditions are to be written so that also a plan made while a table is empty, when
// all indexes cost the same, goes by the right one. The address must lead to the server itself, or to a pooler that gives a
// connection to a session, because settings and prepared statements belong to sessions.
var settings = map[string]string{
	"application_name": "daybook",
	// A process that stops in the middle of a transaction holds up others no longer than this.
	"statement_timeout":                   "30s",
	"idle_in_transaction_session_timeout": "30s",
	"plan_cache_mode":                     "force_generic_plan",
	"enable_seqscan":                      "off",
	"enable_bitmapscan":                   "off",
	"enable_sort":                         "off",
	"enable_incremental_sort":             "off",
	"enable_hashjoin":                     "off",
	"enable_mergejoin":                    "off",
	"enable_material":                     "off",
	"jit":                                 "off",
}

// Options of Open.
type Options struct {
	// Content says in errors what the database holds.
	Content string
	// Schema is where the tables are, so that several may share a database. It is created. An address with a search_path wins; its
	// schema has to be there.
	Schema string
	// Migrations holds goose's files, and GoMigrations those between them that are programs.
	Migrations   fs.FS
	GoMigrations []*goose.Migration
	// MaxConns is the size of the pool, unless the address says pool_max_conns.
	MaxConns int32
}

// Open connects to a database, and creates or migrates the schema. The address is a URL or a list of settings as PostgreSQL's own
// programs take them; it may say pool_max_conns. Several processes may open one database at the same time: one migrates
// while the others wait.
func Open(ctx context.Context, address string, o Options) (_ *pgxpool.Pool, err error) {
	c, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "address of the database of %s: %w", o.Content, err)
	}
	// An address holds a password. The error names what helps to find it.
	where := fmt.Sprintf("open %s in database %s on %s", o.Content, c.ConnConfig.Database, c.ConnConfig.Host)
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", where, Classify(err))
		}
	}()
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	params := c.ConnConfig.RuntimeParams
	if o.Schema != "" && params["search_path"] == "" {
		if err := createSchema(ctx, c.ConnConfig.Copy(), o.Schema); err != nil {
			return nil, err
		}
		params["search_path"] = o.Schema
	}
	if err := migrate(ctx, c.ConnConfig.Copy(), o); err != nil {
		return nil, err
	}
	session := maps.Clone(settings)
	maps.Copy(session, params)
	c.ConnConfig.RuntimeParams = session
	if o.MaxConns > 0 && !strings.Contains(address, "pool_max_conns") {
		c.MaxConns = o.MaxConns
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := check(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// check refuses a server that is too old or that does not keep what it acknowledges.
func check(ctx context.Context, pool *pgxpool.Pool) error {
	var version int
	var fsync, commit string
	err := pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::integer, current_setting('fsync'),
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

// createSchema creates the schema. Two processes that do so at the same moment would disturb each other.
func createSchema(ctx context.Context, c *pgx.ConnConfig, schema string) (err error) {
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d); CREATE SCHEMA IF NOT EXISTS %s`,
		schemaLock, pgx.Identifier{schema}.Sanitize()), pgx.QueryExecModeSimpleProtocol)
	return err
}

// migrate brings the schema forward. Of several processes one does it while the others wait. A database that a newer program
// migrated is refused.
func migrate(ctx context.Context, c *pgx.ConnConfig, o Options) (err error) {
	db := stdlib.OpenDB(*c)
	defer func() { err = errors.Join(err, db.Close()) }()
	// There may be no server. Goose would try for a minute.
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, lockAttempts))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, o.Migrations, goose.WithSessionLocker(locker), goose.WithGoMigrations(o.GoMigrations...))
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
