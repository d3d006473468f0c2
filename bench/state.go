package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/postgres"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// registrants is how many callers register streams at once.
	registrants = 64
	// registerTime is how long they do.
	registerTime = 5 * time.Second
	// searchers is how many search beside them, where that is measured.
	searchers = 4
	// finds is how often each search is made.
	finds = 200
)

// stateStreams is how many streams searches have: a million, or what BENCH_STREAMS says.
func stateStreams(r *run) int {
	text := os.Getenv("BENCH_STREAMS")
	if text == "" {
		return 1_000_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		r.Fatalf("BENCH_STREAMS=%q: want a number of streams", text)
	}
	return n
}

// stateOpener opens the same state each time it is called.
type stateOpener func(ctx context.Context) (state.Store, error)

func sqliteState(r *run) stateOpener {
	path := filepath.Join(r.TempDir(), "state.db")
	return func(ctx context.Context) (state.Store, error) { return sqlite.Open(ctx, path) }
}

func postgresState(r *run) stateOpener {
	address := testkit.NewPostgres(r).Database(r)
	return func(ctx context.Context) (state.Store, error) {
		return postgres.Open(ctx, address, slog.New(slog.DiscardHandler))
	}
}

func (open stateOpener) must(r *run) state.Store {
	s, err := open(r.Context())
	if err != nil {
		r.Fatalf("%v", err)
	}
	return s
}

// measureRegister measures how many new streams, each with its task, are registered in a second: by one caller that waits for each, by many, and
// by many while others search without rest.
func measureRegister(r *run, open stateOpener) {
	store := open.must(r)
	defer func() { _ = store.Close() }() // what was measured is measured
	life, err := backend.New(store, backend.Policy{}, config.Default(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		r.Fatalf("%v", err)
	}
	for _, m := range []struct {
		figure             string
		callers, searchers int
	}{
		{"new streams, one caller", 1, 0},
		{"new streams", registrants, 0},
		{"new streams, beside searches", registrants, searchers},
	} {
		var registered atomic.Int64
		var failure atomic.Pointer[error]
		start := time.Now()
		until := start.Add(registerTime)
		var wg sync.WaitGroup
		for i := range m.callers {
			wg.Go(func() {
				if err := registerStreams(r.Context(), store, life, fmt.Sprintf("%d/%d/%d", m.callers, m.searchers, i), until, &registered); err != nil {
					failure.Store(&err)
				}
			})
		}
		for range m.searchers {
			wg.Go(func() {
				for q := (state.StreamQuery{Project: "bench", Tags: map[string]string{"step": "step"}, Limit: 100}); time.Now().Before(until); {
					_, next, err := store.FindStreams(r.Context(), q)
					if err != nil {
						failure.Store(&err)
						return
					}
					q.After = next
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		if err := failure.Load(); err != nil {
			r.Fatalf("register: %v", *err)
		}
		r.report(m.figure, perSecond, float64(registered.Load())/took.Seconds())
	}
}

// registerStreams registers streams below one prefix until the time is over.
func registerStreams(
	ctx context.Context, store state.Store, life *backend.Backend, caller string, until time.Time, registered *atomic.Int64,
) error {
	now := time.Now().UTC().Round(time.Microsecond)
	p := &state.Prefix{
		Project: "bench", Prefix: types.StreamName("builds/builder/" + caller), Realm: "@legacy",
		Secret: types.NewPrefixSecret(), Created: now, Expires: now.Add(time.Hour),
	}
	if err := store.Update(ctx, func(tx state.Tx) error { return tx.AddPrefix(p) }); err != nil {
		return err
	}
	for n := 0; time.Now().Before(until); n++ {
		name := types.StreamName(fmt.Sprintf("steps/%d/stdout", n))
		raw, err := proto.Marshal(&logpb.LogStreamDescriptor{
			Prefix: string(p.Prefix), Name: string(name), ContentType: "text/plain; charset=utf-8", Tags: map[string]string{"builder": "builder", "step": "step"},
		})
		if err != nil {
			return err
		}
		_, err = life.Register(ctx, backend.Registration{
			Project: p.Project, Prefix: p.Prefix, Name: name, Secret: p.Secret, ProtoVersion: "1", Descriptor: raw,
		})
		if err != nil {
			return err
		}
		registered.Add(1)
	}
	return nil
}

// measureFind measures searches of all kinds among many streams, and how long it takes to open their state anew.
func measureFind(r *run, open stateOpener) {
	store := open.must(r)
	r.Logf("filling the state; this takes minutes")
	if err := statetest.Fill(r.Context(), store, stateStreams(r)); err != nil {
		r.Fatalf("%v", err)
	}
	if err := store.Close(); err != nil {
		r.Fatalf("%v", err)
	}
	start := time.Now()
	store = open.must(r)
	defer func() { _ = store.Close() }() // what was measured is measured
	if _, _, err := store.NextTask(r.Context()); err != nil {
		r.Fatalf("%v", err)
	}
	r.report("restart", seconds, time.Since(start).Seconds())
	var all []time.Duration
	for _, search := range statetest.Searches() {
		took := make([]time.Duration, 0, finds)
		q := search.Query
		for range finds {
			start := time.Now()
			_, next, err := store.FindStreams(r.Context(), q)
			if err != nil {
				r.Fatalf("%s: %v", search.Name, err)
			}
			took = append(took, time.Since(start))
			q.After = next // and from the beginning, after the end
		}
		all = append(all, took...)
		slices.Sort(took)
		r.report(search.Name+", p99", seconds, quantile(took, 0.99))
	}
	slices.Sort(all)
	r.report("a page of any search, p50", seconds, quantile(all, 0.50))
	r.report("a page of any search, p99", seconds, quantile(all, 0.99))
}
