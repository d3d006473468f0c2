package pebble_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
	store "github.com/daybook-dev/daybook/storage/pebble"
	"github.com/daybook-dev/daybook/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// media remembers the file system of each store.
type media struct {
	mu sync.Mutex
	fs map[storage.Storage]*vfs.MemFS
}

func (m *media) open(t testing.TB, fs *vfs.MemFS) storage.Storage {
	t.Helper()
	s, err := store.Open("entries", store.Options{FS: fs})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fs[s] = fs
	return s
}

func (m *media) take(s storage.Storage) *vfs.MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer delete(m.fs, s)
	return m.fs[s]
}

func TestStorage(t *testing.T) {
	m := &media{fs: make(map[storage.Storage]*vfs.MemFS)}
	rng := rand.New(rand.NewPCG(1, 2))
	storagetest.Run(t, storagetest.Engine{
		Open: func(t testing.TB) storage.Storage { return m.open(t, vfs.NewCrashableMem()) },
		Reopen: func(t testing.TB, s storage.Storage) storage.Storage {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return m.open(t, m.take(s))
		},
		Crash: func(t testing.TB, s storage.Storage) storage.Storage {
			after := m.take(s).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return m.open(t, after)
		},
	})
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	r := prometheus.NewRegistry()
	s, err := store.Open(dir, store.Options{Registerer: r})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if _, err := store.Open(dir, store.Options{}); err == nil {
		t.Error("a second Open of the same directory succeeded")
	}
	name := storage.Stream{Project: "p", Path: "a/+/b"}
	for range 2 {
		if err := s.Put(t.Context(), storage.PutRequest{Stream: name, Values: [][]byte{[]byte("one"), []byte("two")}}); err != nil {
			t.Fatalf("Put: %v", err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if c := f.GetMetric()[0].GetCounter(); c != nil {
			got[f.GetName()] = c.GetValue()
		}
	}
	if got["daybook_storage_written_bytes_total"] != 6 || got["daybook_storage_repeated_entries_total"] != 2 {
		t.Errorf("metrics are %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	s, err = store.Open(dir, store.Options{Registerer: r})
	if err != nil {
		t.Fatalf("Open again: %v", err)
	}
	if e, err := s.Tail(t.Context(), name); err != nil || string(e.Data) != "two" {
		t.Errorf("Tail = %q, %v", e.Data, err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// TestRefuses opens stores whose format is not ours, and reads damaged records.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name       string
		key, value []byte
		kind       fault.Kind
	}{
		{"newer", []byte("v"), binary.BigEndian.AppendUint64(nil, 2), fault.Precondition},
		{"malformed version", []byte("v"), []byte("x"), fault.DataLoss},
		{"malformed checkpoint", []byte("cr"), []byte("x"), fault.DataLoss},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			s, err := store.Open("d", store.Options{FS: fs})
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			db, err := pebble.Open("d", &pebble.Options{FS: fs})
			if err != nil {
				t.Fatalf("open Pebble: %v", err)
			}
			if err := db.Set(c.key, c.value, pebble.Sync); err != nil {
				t.Fatalf("Set: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Fatalf("close Pebble: %v", err)
			}
			s, err = store.Open("d", store.Options{FS: fs})
			if err == nil {
				_, err = s.Checkpoint(t.Context(), "r")
				defer s.Close()
			}
			if !fault.Is(err, c.kind) {
				t.Errorf("error %v; want kind %s", err, c.kind)
			}
		})
	}
}

func Benchmark(b *testing.B) {
	storagetest.Bench(b, func(b *testing.B) storage.Storage {
		s, err := store.Open(b.TempDir(), store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		return s
	})
}
