package testkit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
)

// Postgres is a real PostgreSQL server on a directory of its own, reached by a socket in it. It is as durable as PostgreSQL is by
// default, so that what a test kills is recovered.
type Postgres struct {
	bin, dir string

	mu        sync.Mutex
	databases int
	cmd       *exec.Cmd
	log       *Output
	done      chan struct{} // closed when the process has ended
}

// NewPostgres starts a server for one test, which may kill it. Most tests need no more than a Database.
func NewPostgres(t TB) *Postgres {
	t.Helper()
	p, err := newPostgres(t.Context())
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("PostgreSQL: %s", clip(p.log))
		}
		if err := p.remove(); err != nil {
			t.Logf("%v", err)
		}
	})
	return p
}

// shared is the server of the test run; Main removes it.
var shared struct {
	sync.Mutex
	*Postgres
}

// Database returns the address of a new, empty database on the server of the test run, which the first call starts.
func Database(t TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.Postgres == nil {
		p, err := newPostgres(t.Context())
		if err != nil {
			t.Fatalf("%v", err)
		}
		shared.Postgres = p
	}
	return shared.Database(t)
}

// removeShared ends the server of the test run, if there is one.
func removeShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.Postgres == nil {
		return nil
	}
	return shared.remove()
}

// Database returns the address of a new, empty database.
func (p *Postgres) Database(t TB) string {
	t.Helper()
	p.mu.Lock()
	p.databases++
	name := fmt.Sprint("test", p.databases)
	p.mu.Unlock()
	if err := p.tool(t.Context(), "createdb", "--host", p.dir, "--username", postgresUser, name); err != nil {
		t.Fatalf("%v", err)
	}
	query := url.Values{"host": {p.dir}, "user": {postgresUser}}
	return (&url.URL{Scheme: "postgres", Path: "/" + name, RawQuery: query.Encode()}).String()
}

// Kill ends the server at once, as kill -9 of all of its processes does.
func (p *Postgres) Kill() { p.stop() }

// Restart starts a killed server again and waits until it answers.
func (p *Postgres) Restart(t TB) {
	t.Helper()
	if err := p.start(t.Context()); err != nil {
		t.Fatalf("%v", err)
	}
}

const postgresUser = "daybook"

func newPostgres(ctx context.Context) (_ *Postgres, err error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	// Short, because the names of sockets are.
	dir, err := os.MkdirTemp("", "daybook-pg-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bin, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.remove())
		}
	}()
	if err := giveAway(dir); err != nil {
		return nil, err
	}
	err = p.tool(ctx, "initdb", "--pgdata", p.data(), "--username", postgresUser, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if err != nil {
		return nil, err
	}
	return p, p.start(ctx)
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// postgresBin returns the directory of PostgreSQL's programs. Distributions keep them out of the way.
func postgresBin() (string, error) {
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.Sort(candidates)
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range slices.Backward(candidates) {
		path, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "postgres")); err == nil {
			return filepath.Dir(path), nil
		}
	}
	return "", errors.New("testkit: there is no PostgreSQL on this machine; `tools/setup packages` installs it")
}

// tool runs one of PostgreSQL's programs to its end.
func (p *Postgres) tool(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	ownGroup(cmd)
	asOwner(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("testkit: %s: %w\n%s", name, err, out)
	}
	return nil
}

var postgresReady = regexp.MustCompile(`database system is ready to accept connections`)

func (p *Postgres) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log, p.done = NewOutput(), make(chan struct{})
	p.cmd = exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data(), "-k", p.dir, "-c", "listen_addresses=",
		"-c", "max_connections=200", "-c", "shared_buffers=128MB", "-c", "max_wal_size=4GB")
	p.cmd.Dir = p.dir
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	ownGroup(p.cmd)
	asOwner(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("testkit: start PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait() // its log tells
		close(done)
		cancel()
	}(p.cmd, p.done)
	if _, err := p.log.Await(ctx, postgresReady); err != nil {
		return fmt.Errorf("testkit: PostgreSQL does not start: %w\n%s", err, clip(p.log))
	}
	return nil
}

// stop kills the server's processes and waits until they are gone.
func (p *Postgres) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	// Its children leave the group, and end when they see that it is gone; what it wrote to is closed when they all have.
	killGroup(p.cmd)
	<-p.done
	p.cmd = nil
}

func (p *Postgres) remove() error {
	p.stop()
	return os.RemoveAll(p.dir)
}
