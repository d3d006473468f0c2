package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	statetest.Run(t, func(t *testing.T, name string) state.Store {
		return open(t, filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+" with ? and #.db"))
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v", err)
	}
}

// Secrets are in the file and in its companions.
func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // no such permissions there
	}
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	defer func() { _ = s.Close() }()
	if err := s.Update(t.Context(), func(state.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

// BenchmarkRegister measures what the start of many commands at once costs: a prefix, and two streams with their tasks.
func BenchmarkRegister(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	now := time.Now()
	var n atomic.Int64
	b.SetParallelism(250)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p := &state.Prefix{Project: "local", Prefix: types.StreamName(fmt.Sprint("p", n.Add(1))), Secret: types.NewPrefixSecret(), Created: now, Expires: now}
			if err := s.Update(b.Context(), func(tx state.Tx) error { return tx.AddPrefix(p) }); err != nil {
				b.Error(err)
			}
			for _, name := range []types.StreamName{"stdout", "stderr"} {
				v := &state.Stream{Prefix: p, ID: p.Prefix.Join(name).ID(), Name: name, Created: now, Updated: now}
				err := s.Update(b.Context(), func(tx state.Tx) error {
					if err := tx.AddStream(v); err != nil {
						return err
					}
					return tx.AddTask(&state.Task{Stream: v, Available: now})
				})
				if err != nil {
					b.Error(err)
				}
			}
		}
	})
}

// A task that was leased by a process that died is available at once to the one that takes its place.
func TestReleaseLeases(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer func() { _ = s.Close() }()
	now := time.UnixMicro(1_000_000).UTC()
	later := now.Add(time.Hour)
	add := func(name string, k state.Task) {
		t.Helper()
		err := s.Update(t.Context(), func(tx state.Tx) error {
			p := &state.Prefix{Project: "p", Prefix: types.StreamName(name), Secret: types.NewPrefixSecret(), Created: now, Expires: later}
			if err := tx.AddPrefix(p); err != nil {
				return err
			}
			path := p.Prefix.Join("s")
			k.Stream = &state.Stream{Prefix: p, ID: path.ID(), Name: "s", ProtoVersion: "1", Created: now, Updated: now}
			if err := tx.AddStream(k.Stream); err != nil {
				return err
			}
			return tx.AddTask(&k)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add("leased", state.Task{Kind: state.ArchiveTask, Available: later, LeaseEnd: later, Attempts: 1})
	add("waiting", state.Task{Kind: state.ArchiveTask, Available: later})
	add("dead", state.Task{Kind: state.ArchiveTask, Available: later, LeaseEnd: later, Dead: now})
	if err := s.ReleaseLeases(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := s.Update(t.Context(), func(tx state.Tx) error {
		tasks, err := tx.AvailableTasks(now, 10)
		for _, k := range tasks {
			got = append(got, string(k.Stream.Prefix.Prefix))
			if !k.LeaseEnd.IsZero() || k.Attempts != 1 {
				t.Errorf("task: %+v", k)
			}
		}
		return err
	})
	if err != nil || len(got) != 1 || got[0] != "leased" {
		t.Fatalf("available: %q, %v", got, err)
	}
}
