// Package sqlite keeps the Coordinator's state in one SQLite file. The schema's page is docs/formats/state.md.
//
// The file is in WAL mode and every commit is synced: what Update acknowledged survives a power cut. There is one writer, which
// commits the updates that wait together in one transaction, so that hundreds of callers share a sync; an update that fails is
// undone alone. Queries run beside the writer on connections of their own.
//
// One process at a time writes to the file. Watchers are woken within the process.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/types"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	driver = "sqlite"
	// readers is the number of connections for queries.
	readers = 4
)

// durable makes a commit reach stable storage; on macOS a sync alone does not empty the disk's cache.
var durable = []string{"journal_mode(WAL)", "synchronous(FULL)", "fullfsync(1)"}

// Store implements state.Store.
type Store struct {
	// write is the one connection that writes; it belongs to the writer's goroutine.
	write *sql.DB
	read  *sql.DB
	// queries are the prepared statements of read.
	queries statements

	updates chan *update
	closing chan struct{}
	closed  sync.Once
	writer  sync.WaitGroup

	streams wake.Hub[streamKey]
	tasks   wake.Hub[struct{}]
}

var _ state.Store = (*Store)(nil)

type streamKey struct {
	project types.Project
	id      types.StreamID
}

// Open opens the state in the file at path, and creates or migrates it.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open coordinator state %s: %w", path, err)
		}
	}()
	// The file holds secrets. SQLite gives its companion files the same permissions.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := migrate(ctx, path); err != nil {
		return nil, err
	}
	s := &Store{updates: make(chan *update), closing: make(chan struct{})}
	// What an update would need to be undone alone is kept in memory; otherwise SQLite writes it to a file.
	if s.write, err = connect(path, slices.Concat(durable, []string{"foreign_keys(1)", "temp_store(2)"})...); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = connect(path, "query_only(1)"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.queries.prepare = s.read.PrepareContext
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, s.read.Close(), s.write.Close())
	}
	s.writer.Go(func() { s.writeLoop(conn) })
	return s, nil
}

func connect(path string, pragmas ...string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // the drive of a Windows path
	}
	values := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}
	return sql.Open(driver, dsn.String())
}

// migrate brings the schema forward. A file written by a newer program is refused.
func migrate(ctx context.Context, path string) error {
	db, err := connect(path, durable...)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // everything has been committed
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithGoMigrations(fillLabels, fillFolders))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fault.New(fault.Precondition, "the file has schema version %d, and this program knows versions up to %d; use the newer program that wrote it", current, target)
	}
	_, err = p.Up(ctx)
	return err
}

// Close implements state.Store.
func (s *Store) Close() error {
	s.closed.Do(func() { close(s.closing) })
	s.writer.Wait()
	s.queries.close()
	return errors.Join(s.read.Close(), s.write.Close())
}

// WatchStream implements state.Store.
func (s *Store) WatchStream(project types.Project, id types.StreamID) (<-chan struct{}, func()) {
	return s.streams.Watch(streamKey{project, id})
}

// WatchTasks implements state.Store.
func (s *Store) WatchTasks() (<-chan struct{}, func()) { return s.tasks.Watch(struct{}{}) }

// statements prepares each statement once. It is safe for concurrent use.
type statements struct {
	prepare func(context.Context, string) (*sql.Stmt, error)
	mu      sync.Mutex
	byText  map[string]*sql.Stmt
}

func (s *statements) get(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.byText[text]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	if s.byText == nil {
		s.byText = make(map[string]*sql.Stmt)
	}
	s.byText[text] = stmt
	return stmt, nil
}

// close releases the statements. What they were prepared on is closed next, so nothing depends on their errors.
func (s *statements) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stmt := range s.byText {
		_ = stmt.Close()
	}
	s.byText = nil
}

func (s *statements) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	stmt, err := s.get(ctx, text)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}
