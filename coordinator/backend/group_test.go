package backend

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/postgres"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// onBoth runs a test on both databases.
func onBoth(t *testing.T, policy Policy, test func(t *testing.T, b *Backend)) {
	for name, open := range map[string]func(t *testing.T) (state.Store, error){
		"sqlite": func(t *testing.T) (state.Store, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
		},
		"postgres": func(t *testing.T) (state.Store, error) {
			return postgres.Open(t.Context(), testkit.Database(t), slog.New(slog.DiscardHandler))
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = store.Close() }() // what was tested is tested
			b, err := New(store, policy, config.Default(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			test(t, b)
		})
	}
}

// addPrefix registers a prefix.
func addPrefix(t *testing.T, b *Backend, name types.StreamName) *state.Prefix {
	t.Helper()
	p := &state.Prefix{Project: "local", Prefix: name, Secret: types.NewPrefixSecret(), Created: clock(), Expires: clock().Add(time.Hour)}
	if err := b.store.Update(t.Context(), func(tx state.Tx) error { return tx.AddPrefix(p) }); err != nil {
		t.Fatal(err)
	}
	return p
}

// Many register many streams at once, each stream several times, and some of them wrongly: each gets the answer to its own registration.
func TestManyRegistrations(t *testing.T) { onBoth(t, Policy{}, manyRegistrations) }

func manyRegistrations(t *testing.T, b *Backend) {
	store, p := b.store, addPrefix(t, b, "a")
	const streams, repeats = 300, 3
	var wg sync.WaitGroup
	var ended atomic.Int32
	for i := range streams * repeats {
		wg.Go(func() {
			name := types.StreamName(fmt.Sprint("s", i%streams))
			r := Registration{Project: "local", Prefix: "a", Name: name, Secret: p.Secret, ProtoVersion: "1", Descriptor: []byte{}}
			wrong := i%7 == 0
			if wrong {
				r.Secret = types.NewPrefixSecret()
			}
			if i%11 == 0 {
				r.End = state.End{Known: true, Index: types.MessageIndex(i)}
			}
			s, err := b.Register(t.Context(), r)
			switch {
			case wrong && !fault.Is(err, fault.Invalid):
				t.Errorf("stream %s with another secret: %v", name, err)
			case !wrong && (err != nil || s.Name != name || s.Seq == 0):
				t.Errorf("stream %s: %v, %v", name, s, err)
			case !wrong && s.End.Known && s.End == r.End:
				ended.Add(1)
			}
		})
	}
	wg.Wait()
	tasks, err := store.Tasks(t.Context(), state.TaskQuery{Limit: 2 * streams})
	if u, uerr := store.Usage(t.Context(), "local"); err != nil || uerr != nil || u.Streams != streams || len(tasks) != streams {
		t.Errorf("%d streams, %d tasks; %v, %v", u.Streams, len(tasks), err, uerr)
	}
	if ended.Load() == 0 {
		t.Error("no stream ended as it began")
	}
	b.news.mu.Lock()
	defer b.news.mu.Unlock()
	if b.news.running != 0 || len(b.news.waiting) != 0 {
		t.Errorf("%d are storing, %d wait", b.news.running, len(b.news.waiting))
	}
}
