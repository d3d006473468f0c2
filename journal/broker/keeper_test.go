package broker

import (
	"context"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// still is a broker without a server, for tests in which hours pass.
type still struct {
	*Broker
	t   *testing.T
	log *disklog.Log
}

func newStill(t *testing.T, b *bucket.Mem) *still {
	t.Helper()
	return newStillWith(t, b, disklog.Options{})
}

func newStillWith(t *testing.T, b *bucket.Mem, opts disklog.Options) *still {
	t.Helper()
	opts.CheckpointInterval = 1000 * time.Hour
	log, err := disklog.Open(t.Context(), t.TempDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return startStill(t, log, log, b)
}

// startStill starts a broker on an engine that is, or wraps, a log.
func startStill(t *testing.T, log *disklog.Log, eng engine.Engine, b *bucket.Mem) *still {
	t.Helper()
	config := Config{Engine: eng, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "test"}, Endpoint: "http://localhost"}
	if b != nil {
		config.Stores = store.NewRegistry(store.Options{Open: func(context.Context, *url.URL, map[string]string) (bucket.Bucket, error) { return b, nil }})
	}
	broker, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := broker.Close(ctx); err != nil {
			t.Error(err)
		}
		if config.Stores != nil {
			if err := config.Stores.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := log.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return &still{Broker: broker, t: t, log: log}
}

func (s *still) create(name string, change func(*protocol.JournalSpec_Fragment)) {
	s.t.Helper()
	spec := &protocol.JournalSpec{Name: name, Replication: 1, Fragment: &protocol.JournalSpec_Fragment{
		Length: 1 << 20, CompressionCodec: protocol.CompressionCodec_GZIP, RefreshInterval: durationpb.New(time.Hour),
	}}
	change(spec.Fragment)
	if _, err := s.Apply(s.t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Upsert: spec}}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *still) append(name protocol.Journal, content string) {
	s.t.Helper()
	spec := s.engine.Specs().Get(name)
	a := &engine.Append{Content: []byte(content), Roll: engine.RollPolicyOf(spec.JournalSpec), Now: time.Now()}
	if _, err := s.engine.Commit(s.t.Context(), name, a); err != nil {
		s.t.Fatal(err)
	}
	s.keeper.touch(name)
}

func (s *still) state(name protocol.Journal) engine.State {
	s.t.Helper()
	state, err := s.engine.Load(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

// TestRollInTime checks that fragments are finished at the ends of flush intervals, and the first one at once if it can be
// stored, with nobody appending.
func TestRollInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStill(t, bucket.NewMem("b"))
		s.create("test/local", func(f *protocol.JournalSpec_Fragment) { f.FlushInterval = durationpb.New(time.Hour) })
		s.create("test/stored", func(f *protocol.JournalSpec_Fragment) {
			f.FlushInterval, f.Stores = durationpb.New(time.Hour), []string{"s3://bucket/"}
		})
		s.create("test/never", func(*protocol.JournalSpec_Fragment) {})
		time.Sleep(10 * time.Minute)
		for _, name := range []protocol.Journal{"test/local", "test/stored", "test/never"} {
			s.append(name, "first")
			s.append(name, "second")
		}
		expect := func(name protocol.Journal, finished, stored int, open int64) {
			t.Helper()
			if got := s.state(name); len(got.Finished) != finished || len(got.Stored) != stored || got.Open.Len() != open {
				t.Errorf("after %v: %s has %v", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), name, got)
			}
		}
		time.Sleep(10 * time.Minute)
		expect("test/local", 1, 0, 6)
		expect("test/stored", 0, 1, 6)
		expect("test/never", 1, 0, 6)
		time.Sleep(39 * time.Minute)
		expect("test/local", 1, 0, 6)
		expect("test/stored", 0, 1, 6)
		time.Sleep(2 * time.Minute)
		expect("test/local", 2, 0, 0)
		expect("test/stored", 0, 2, 0)
		expect("test/never", 1, 0, 6)
	})
}

// slowLoads is an engine of which states arrive late, as on a machine that is busy.
type slowLoads struct {
	engine.Engine
	mu   sync.Mutex
	rand *rand.Rand
}

func (e *slowLoads) wait(most time.Duration) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Duration(e.rand.Int64N(int64(most)))
}

func (e *slowLoads) Load(ctx context.Context, journal protocol.Journal) (engine.State, error) {
	state, err := e.Engine.Load(ctx, journal)
	time.Sleep(e.wait(200 * time.Millisecond))
	return state, err
}

// slowStill starts a broker on slow loads, with the journal test/stored in fragments of a KiB.
func slowStill(t *testing.T) (*still, *slowLoads) {
	log, err := disklog.Open(t.Context(), t.TempDir(), disklog.Options{CheckpointInterval: 1000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	loads := &slowLoads{Engine: log, rand: rand.New(rand.NewPCG(1, 1))}
	s := startStill(t, log, loads, bucket.NewMem("b"))
	s.create("test/stored", func(f *protocol.JournalSpec_Fragment) { f.Length, f.Stores = 1024, []string{"s3://bucket/"} })
	time.Sleep(time.Minute)
	return s, loads
}

// TestStaleStates checks that no finished fragment is forgotten because somebody saw the journal as it was before.
func TestStaleStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, loads := slowStill(t)
		for n := range 200 {
			s.append("test/stored", strings.Repeat("x", 1500))
			time.Sleep(loads.wait(time.Second))
			s.append("test/stored", strings.Repeat("y", 1500))
			time.Sleep(time.Minute)
			if got, err := loads.Engine.Load(t.Context(), "test/stored"); err != nil || len(got.Finished) != 0 || len(got.Stored) != 2*(n+1) {
				t.Fatalf("after %d pairs: %v, %v", n+1, got.Finished, err)
			}
		}
	})
}

// TestStaleRoll checks that a fragment is not finished because the one before it was to be.
func TestStaleRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, loads := slowStill(t)
		for n := range 200 {
			s.append("test/stored", strings.Repeat("x", 1500))
			time.Sleep(loads.wait(time.Second))
			s.append("test/stored", "open")
			time.Sleep(time.Minute)
			if got, err := loads.Engine.Load(t.Context(), "test/stored"); err != nil || got.Open.Len() != 4 {
				t.Fatalf("after %d pairs: %v, %v", n+1, got, err)
			}
		}
	})
}

// TestRetention checks that what is old goes, oldest first, from the store and from the local disk, and that a registered
// reader keeps what it needs.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStill(t, b)
		policy := func(f *protocol.JournalSpec_Fragment) {
			f.FlushInterval, f.Retention = durationpb.New(10*time.Minute), durationpb.New(5*time.Hour)
		}
		names := []protocol.Journal{"test/local", "test/stored", "test/needed"}
		for _, name := range names {
			s.create(string(name), func(f *protocol.JournalSpec_Fragment) {
				policy(f)
				if name != "test/local" {
					f.Stores = []string{"s3://bucket/"}
				}
			})
		}
		s.create("test/forever", func(f *protocol.JournalSpec_Fragment) { f.FlushInterval = durationpb.New(10 * time.Minute) })
		time.Sleep(time.Minute)
		for hour := range 24 {
			for _, name := range append(names, "test/forever") {
				s.append(name, strings.Repeat("x", 10))
			}
			if err := s.Trim(t.Context(), "test/needed", protocol.Offset(10*min(hour, 3))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		for name, want := range map[protocol.Journal][2]protocol.Offset{
			"test/local": {180, 200}, "test/stored": {180, 200}, "test/needed": {30, 30}, "test/forever": {0, 0},
		} {
			v, err := s.view(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if begin := v.begin(); begin < want[0] || begin > want[1] || v.end() != 240 {
				t.Errorf("%s is [%d, %d), want it from %v", name, begin, v.end(), want)
			}
		}
		v, err := s.view(t.Context(), "test/stored")
		if err != nil {
			t.Fatal(err)
		}
		objects := 0
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "test/stored/") {
				objects++
			}
		}
		if objects != len(v.state.Stored) {
			t.Errorf("%d objects for %d fragments", objects, len(v.state.Stored))
		}
		// Idle journals are emptied, and go on where they were.
		time.Sleep(12 * time.Hour)
		for name, want := range map[protocol.Journal]protocol.Offset{"test/local": 240, "test/stored": 240, "test/forever": 0} {
			v, err := s.view(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if v.begin() != want || v.end() != 240 {
				t.Errorf("%s is [%d, %d) when it has been idle", name, v.begin(), v.end())
			}
			s.append(name, "more")
			if head := s.state(name).Head; head != 244 {
				t.Errorf("%s goes on to %d", name, head)
			}
		}
	})
}

// TestRetentionWithStoreDown lets a store refuse to remove what has outlived its retention: it is hidden, and removed when the
// store is well again, though nothing else happens to the journal.
func TestRetentionWithStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStill(t, b)
		s.create("test/a", func(f *protocol.JournalSpec_Fragment) {
			f.FlushInterval, f.Retention = durationpb.New(10*time.Minute), durationpb.New(5*time.Hour)
			f.Stores = []string{"s3://bucket/"}
		})
		s.append("test/a", "content")
		time.Sleep(time.Hour)
		objects := func() (n int) {
			for _, key := range b.Keys() {
				if strings.HasPrefix(key, "test/a/") {
					n++
				}
			}
			return n
		}
		b.SetFault(func(op bucket.Op, _ string) error {
			if op == bucket.OpDelete {
				return fault.New(fault.Transient, "the store is down")
			}
			return nil
		})
		time.Sleep(10 * time.Hour)
		v, err := s.view(t.Context(), "test/a")
		if err != nil || v.begin() != 7 || objects() != 1 {
			t.Errorf("with the store down the journal begins at %d with %d objects, %v; want 7 with one", v.begin(), objects(), err)
		}
		b.SetFault(nil)
		time.Sleep(2 * time.Hour)
		if n := objects(); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}

// TestBackoff checks that waits double up to a limit, and differ from each other.
func TestBackoff(t *testing.T) {
	differ := false
	for failures := 1; failures < 100; failures++ {
		want := min(time.Second<<min(failures-1, 20), 5*time.Minute)
		got, again := backoff(time.Second, failures), backoff(time.Second, failures)
		if got < want*4/5 || got > want*6/5 {
			t.Errorf("after %d failures %v, want about %v", failures, got, want)
		}
		differ = differ || got != again
	}
	if !differ {
		t.Error("waits do not differ")
	}
}

// TestSoftLimit comes near to the end of the disk space: what can be stored is finished and stored at once, which makes space,
// and what cannot stays. Only the hard limit refuses appends, and tells itself; reads go on.
func TestSoftLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStillWith(t, b, disklog.Options{SegmentSize: 1 << 20, Budget: disklog.Budget{Soft: 6 << 20, Hard: 16 << 20, MinFree: -1}})
		for _, name := range []string{"test/idle", "test/busy"} {
			s.create(name, func(f *protocol.JournalSpec_Fragment) { f.Length, f.Stores = 1<<30, []string{"s3://bucket/"} })
			s.append(protocol.Journal(name), "the first is stored anyway")
		}
		s.create("test/local", func(f *protocol.JournalSpec_Fragment) { f.Length = 1 << 30 })
		s.append("test/idle", strings.Repeat("i", 1<<19))
		s.append("test/busy", strings.Repeat("b", 1<<19))
		time.Sleep(time.Hour)
		stored := func(name protocol.Journal, want int) {
			t.Helper()
			if got := s.state(name); len(got.Stored) != want || len(got.Finished) != 0 {
				t.Errorf("%s has %d fragments in its store, and %d wait: want %d", name, len(got.Stored), len(got.Finished), want)
			}
		}
		stored("test/idle", 1)
		stored("test/busy", 1)
		for range 6 {
			s.append("test/local", strings.Repeat("l", 1<<20))
		}
		s.append("test/busy", "more")
		time.Sleep(time.Minute)
		stored("test/idle", 2)
		stored("test/busy", 2)

		b.SetFault(func(bucket.Op, string) error { return fault.New(fault.Transient, "the store is down") })
		var refusal error
		for n := 0; refusal == nil && n < 100; n++ {
			_, refusal = s.engine.Commit(t.Context(), "test/busy", &engine.Append{
				Content: []byte(strings.Repeat("x", 1<<19)), Roll: engine.RollPolicyOf(s.engine.Specs().Get("test/busy").JournalSpec), Now: time.Now(),
			})
			s.keeper.touch("test/busy")
			time.Sleep(time.Second)
		}
		if !fault.Is(refusal, fault.Transient) || !strings.Contains(refusal.Error(), "16.0 MiB") {
			t.Errorf("at the hard limit: %v", refusal)
		}
		if got := s.state("test/busy"); len(got.Finished) < 3 {
			t.Errorf("while the store is down: %d fragments wait", len(got.Finished))
		}
		if err := s.keeper.verify("test/busy", s.state("test/busy").Finished[0]); err != nil {
			t.Errorf("read at the hard limit: %v", err)
		}
		b.SetFault(nil)
		time.Sleep(time.Minute)
		s.append("test/busy", "there is space again")
	})
}

// TestScrub damages a local fragment, which is found out without a reader.
func TestScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStill(t, nil)
		s.create("test/a", func(*protocol.JournalSpec_Fragment) {})
		s.append("test/a", "first")
		s.append("test/a", "second")
		f := s.state("test/a").Finished[0]
		if err := s.keeper.verify("test/a", f); err != nil {
			t.Errorf("verify: %v", err)
		}
		f.Sum[0]++
		if err := s.keeper.verify("test/a", f); err == nil {
			t.Error("other content than the sum says is verified")
		}
		time.Sleep(3 * scrubEvery)
	})
}
