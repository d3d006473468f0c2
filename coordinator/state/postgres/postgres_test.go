package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func openStore(t *testing.T, address string, interval time.Duration) *Store {
	t.Helper()
	s, err := open(t.Context(), address, slog.New(slog.DiscardHandler), interval)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// never is an interval for tests that must not be woken without a reason.
const never = -1

func TestStore(t *testing.T) {
	databases := make(map[string]string)
	statetest.Run(t, func(t *testing.T, name string) state.Store {
		if databases[name] == "" {
			databases[name] = testkit.Database(t)
		}
		return openStore(t, databases[name], never)
	})
}

func register(t *testing.T, s *Store, prefix, name types.StreamName) *state.Stream {
	t.Helper()
	now := time.UnixMicro(1_000_000).UTC()
	p := &state.Prefix{Project: "local", Prefix: prefix, Secret: types.NewPrefixSecret(), Created: now, Expires: now}
	v := &state.Stream{Prefix: p, ID: prefix.Join(name).ID(), Name: name, Created: now, Updated: now}
	err := s.Update(t.Context(), func(tx state.Tx) error {
		if err := tx.AddPrefix(p); err != nil {
			return err
		}
		if err := tx.AddStream(v); err != nil {
			return err
		}
		return tx.AddTask(&state.Task{Stream: v, Available: now})
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Two stores on one database are two processes: each is woken by what the other does.
func TestWatchAcrossProcesses(t *testing.T) {
	address := testkit.Database(t)
	here, there := openStore(t, address, pollInterval), openStore(t, address, pollInterval)
	defer func() { _ = here.Close() }()
	defer func() { _ = there.Close() }()
	id := types.StreamName("a").Join("s").ID()
	streams, stopStreams := here.WatchStream("local", id)
	defer stopStreams()
	tasks, stopTasks := here.WatchTasks()
	defer stopTasks()
	// await demands to be woken: looking alone would find it, too.
	await := func(what string, changed <-chan struct{}, look func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
		defer cancel()
		start := time.Now()
		for woken := false; !woken || !look(); woken = true {
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("nobody is woken by %s", what)
			}
		}
		t.Logf("%s is seen after %v", what, time.Since(start))
	}
	nothing := func() bool { return true }
	await("the first look at streams", streams, nothing)
	await("the first look at tasks", tasks, nothing)
	v := register(t, there, "a", "s")
	await("a new stream", streams, func() bool { _, err := here.Stream(t.Context(), "local", id); return err == nil })
	await("a new task", tasks, func() bool { _, ok, err := here.NextTask(t.Context()); return ok && err == nil })
	for i := range 3 {
		end := state.End{Known: true, Index: types.MessageIndex(i)}
		v.End = end
		if err := there.Update(t.Context(), func(tx state.Tx) error { return tx.PutStream(v) }); err != nil {
			t.Fatal(err)
		}
		await("a change", streams, func() bool { s, err := here.Stream(t.Context(), "local", id); return err == nil && s.End == end })
	}
	select {
	case <-tasks:
		t.Error("those who wait for tasks are woken by a stream")
	default:
	}
	err := there.Update(t.Context(), func(tx state.Tx) error {
		k, err := tx.Task(v, state.ArchiveTask)
		if err != nil {
			return err
		}
		k.Available = k.Available.Add(-time.Second)
		return tx.PutTask(k)
	})
	if err != nil {
		t.Fatal(err)
	}
	await("an earlier task", tasks, func() bool {
		at, _, err := here.NextTask(t.Context())
		return err == nil && at.Equal(time.UnixMicro(0))
	})
}

// Processes that lease at the same time get different tasks, and none waits for another one's transaction.
func TestLeasesAreShared(t *testing.T) {
	address := testkit.Database(t)
	here, there := openStore(t, address, never), openStore(t, address, never)
	defer func() { _ = here.Close() }()
	defer func() { _ = there.Close() }()
	register(t, here, "a", "s")
	register(t, here, "b", "s")
	now := time.UnixMicro(2_000_000)
	lease := func(s *Store, meanwhile func()) (seq int64) {
		t.Helper()
		err := s.Update(t.Context(), func(tx state.Tx) error {
			tasks, err := tx.AvailableTasks(now, 1)
			if err != nil || len(tasks) != 1 {
				return errors.Join(err, fmt.Errorf("%d tasks", len(tasks)))
			}
			seq = tasks[0].Seq
			meanwhile()
			tasks[0].Lease(now.Add(time.Hour))
			return tx.PutTask(tasks[0])
		})
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	var second int64
	first := lease(here, func() { second = lease(there, func() {}) })
	if first == second {
		t.Errorf("task %d was leased twice", first)
	}
}

// Of updates that add the same thing one does, and the others find it.
func TestSameNewThing(t *testing.T) {
	s := openStore(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	now := time.UnixMicro(1_000_000).UTC()
	secrets := make([]string, 50)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() {
			p := &state.Prefix{Project: "local", Prefix: "a", Secret: types.NewPrefixSecret(), Created: now, Expires: now}
			err := s.Update(t.Context(), func(tx state.Tx) error {
				there, err := tx.Prefix("local", "a")
				if err == nil {
					secrets[i] = string(there.Secret)
					return nil
				}
				if !fault.Is(err, fault.NotFound) {
					return err
				}
				secrets[i] = string(p.Secret)
				return tx.AddPrefix(p)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, secret := range secrets {
		if secret != secrets[0] || secret == "" {
			t.Errorf("secret %d is another one", i)
		}
	}
}

// Two updates that lock the same things in different orders both succeed.
func TestDeadlock(t *testing.T) {
	s := openStore(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	ids := []types.StreamID{register(t, s, "a", "s").ID, register(t, s, "b", "s").ID}
	var both sync.WaitGroup
	both.Add(2)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			first := true
			err := s.Update(t.Context(), func(tx state.Tx) error {
				for k := range 2 {
					v, err := tx.Stream("local", ids[(i+k)%2])
					if err != nil {
						return err
					}
					if first {
						first = false
						both.Done()
						both.Wait() // each holds what the other one wants
					}
					v.Archive.Lines++
					if err := tx.PutStream(v); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if v, err := s.Stream(t.Context(), "local", id); err != nil || v.Archive.Lines != 2 {
			t.Errorf("%d changes were kept, %v", v.Archive.Lines, err)
		}
	}
}

// While the server is gone errors are transient; what was acknowledged is there when it is back, and watchers go on.
func TestServerIsKilled(t *testing.T) {
	server := testkit.NewPostgres(t)
	address := server.Database(t)
	s, other := openStore(t, address, pollInterval), openStore(t, address, never)
	defer func() { _ = s.Close() }()
	defer func() { _ = other.Close() }()

	var acknowledged []types.StreamID
	var failures []error
	killed := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				now := time.UnixMicro(1_000_000).UTC()
				p := &state.Prefix{Project: "local", Prefix: types.StreamName(fmt.Sprintf("p%d/%d", i, n)), Secret: types.NewPrefixSecret(), Created: now, Expires: now}
				v := &state.Stream{Prefix: p, ID: p.Prefix.Join("s").ID(), Name: "s", Created: now, Updated: now}
				err := s.Update(t.Context(), func(tx state.Tx) error { return errors.Join(tx.AddPrefix(p), tx.AddStream(v)) })
				mu.Lock()
				if err == nil {
					acknowledged = append(acknowledged, v.ID)
					if len(acknowledged) == 100 {
						close(killed)
					}
				} else {
					failures = append(failures, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	<-killed
	server.Kill()
	wg.Wait()
	for _, err := range failures {
		if !fault.Is(err, fault.Transient) {
			t.Errorf("while the server dies: %v, of kind %v", err, fault.KindOf(err))
		}
	}
	if _, err := s.Projects(t.Context()); !fault.Is(err, fault.Transient) {
		t.Errorf("without a server: %v", err)
	}
	if _, err := open(t.Context(), address, slog.New(slog.DiscardHandler), never); !fault.Is(err, fault.Transient) {
		t.Errorf("open without a server: %v", err)
	}
	server.Restart(t)
	for _, id := range acknowledged {
		if _, err := s.Stream(t.Context(), "local", id); err != nil {
			t.Fatalf("an acknowledged stream: %v", err)
		}
	}
	changed, stop := s.WatchStream("local", acknowledged[0])
	defer stop()
	select {
	case <-changed:
	case <-time.After(testkit.Patience):
		t.Error("nobody looks for changes any more")
	}
	// These connections have not been used since.
	if err := other.Update(t.Context(), func(tx state.Tx) error { _, err := tx.Stream("local", acknowledged[0]); return err }); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// Connections that the server ended while they were idle are replaced, and nobody notices.
func TestConnectionsAreEnded(t *testing.T) {
	address := testkit.Database(t)
	s := openStore(t, address, never)
	defer func() { _ = s.Close() }()
	id := register(t, s, "a", "s").ID
	var wg sync.WaitGroup
	for range maxConns {
		wg.Go(func() {
			_ = s.Update(t.Context(), func(tx state.Tx) error { _, err := tx.Stream("local", id); return err })
		})
	}
	wg.Wait()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	end := func() {
		t.Helper()
		_, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		if err != nil {
			t.Fatal(err)
		}
	}
	end()
	if err := s.Update(t.Context(), func(tx state.Tx) error { _, err := tx.Stream("local", id); return err }); err != nil {
		t.Errorf("Update: %v", err)
	}
	end()
	if _, err := s.Stream(t.Context(), "local", id); err != nil {
		t.Errorf("Stream: %v", err)
	}
	// In the middle of an update.
	ended := false
	err = s.Update(t.Context(), func(tx state.Tx) error {
		v, err := tx.Stream("local", id)
		if err != nil {
			return err
		}
		if !ended {
			ended = true
			end()
		}
		v.Archive.Lines++
		return tx.PutStream(v)
	})
	if v, rerr := s.Stream(t.Context(), "local", id); err != nil || rerr != nil || v.Archive.Lines != 1 {
		t.Errorf("an update that lost its connection: %v, %v", err, rerr)
	}
}

// Processes that start together on an empty database migrate it once.
func TestOpenTogether(t *testing.T) {
	address := testkit.Database(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			s, err := open(t.Context(), address, slog.New(slog.DiscardHandler), never)
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.Close()
		})
	}
	wg.Wait()
}

func TestOpenRefuses(t *testing.T) {
	address := testkit.Database(t)
	for _, test := range []struct {
		address string
		kind    fault.Kind
		text    string
	}{
		{"postgres://%", fault.Invalid, "address"},
		{strings.Replace(address, "/test", "/nothing", 1), fault.Precondition, "nothing"},
		{strings.Replace(address, "user=daybook", "user=nobody", 1), fault.Precondition, "nobody"},
		{address + "&synchronous_commit=off", fault.Precondition, "synchronous_commit = on"},
		{"postgres://127.0.0.1:1/x", fault.Transient, "127.0.0.1"},
	} {
		_, err := open(t.Context(), test.address, slog.New(slog.DiscardHandler), never)
		if !fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, of kind %v", test.address, err, fault.KindOf(err))
		}
	}
	if err := openStore(t, address, never).Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), address, slog.New(slog.DiscardHandler), never); !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer schema: %v", err)
	}
}
