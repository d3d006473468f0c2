package statetest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
)

func leases(t *testing.T, f *fixture) {
	acquire := func(name, holder string, ttl time.Duration) bool {
		t.Helper()
		ok, err := f.AcquireLease(t.Context(), name, holder, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	live := func(prefix string) (names []string) {
		t.Helper()
		all, err := f.LiveLeases(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			names = append(names, l.Name+" "+l.Holder)
			if until := time.Until(l.Until); until <= 0 || until > 2*time.Hour {
				t.Errorf("lease %s ends in %s", l.Name, until)
			}
		}
		return names
	}
	f.equal(acquire("p/1", "anna", time.Hour), true)
	f.equal(acquire("p/1", "bert", time.Hour), false)
	f.equal(acquire("p/1", "anna", time.Hour), true)
	f.equal(acquire("p/2", "bert", time.Hour), true)
	f.equal(acquire("p%3", "bert", time.Microsecond), true)
	for !acquire("p%3", "anna", time.Hour) { // it ends by itself
	}
	f.equal(live("p/"), []string{"p/1 anna", "p/2 bert"})
	f.equal(live(""), []string{"p%3 anna", "p/1 anna", "p/2 bert"})
	f.equal(live("p%"), []string{"p%3 anna"})
	f.equal(live("q"), []string(nil))

	release := func(name, holder string) {
		t.Helper()
		if err := f.ReleaseLease(t.Context(), name, holder); err != nil {
			t.Fatal(err)
		}
	}
	release("p/1", "bert")
	f.equal(acquire("p/1", "bert", time.Hour), false)
	release("p/1", "anna")
	f.equal(acquire("p/1", "bert", time.Hour), true)
	for _, bad := range []struct {
		name, holder string
		ttl          time.Duration
	}{{"", "a", 1}, {"a", "", 1}, {"a", "b", 0}, {strings.Repeat("a", 600), "b", time.Hour}} {
		if _, err := f.AcquireLease(t.Context(), bad.name, bad.holder, bad.ttl); !fault.Is(err, fault.Invalid) {
			t.Errorf("lease %.10q of %q for %s: %v", bad.name, bad.holder, bad.ttl, err)
		}
	}

	// Of many, one gets it.
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ok, err := f.AcquireLease(t.Context(), "wanted", fmt.Sprint("holder ", i), time.Hour)
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	f.equal(won.Load(), int32(1))
}

func tokens(t *testing.T, f *fixture) {
	k := &state.Token{ID: "b", Hash: []byte{1, 2}, Name: "ci", Scopes: []byte(`{"a": 1}`), Created: now, Expires: now.Add(time.Hour)}
	forever := &state.Token{ID: "a", Hash: []byte{1, 3}, Scopes: []byte(`[]`), Created: now.Add(time.Second)}
	put := func(k *state.Token) {
		t.Helper()
		if err := f.PutToken(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	put(k)
	put(forever)
	if err := f.PutToken(t.Context(), &state.Token{ID: "c", Hash: k.Hash, Scopes: []byte(`[]`), Created: now}); !fault.Is(err, fault.Exists) {
		t.Errorf("a second token with a hash: %v", err)
	}
	// Two processes may create tokens of one name at once.
	for _, id := range []string{"a", "b"} {
		err := f.PutToken(t.Context(), &state.Token{ID: id, Hash: []byte{1, 4}, Scopes: []byte(`[]`), Created: k.Expires.Add(-time.Microsecond)})
		if !fault.Is(err, fault.Exists) {
			t.Errorf("a second token %s: %v", id, err)
		}
	}
	got, err := f.TokenByHash(t.Context(), []byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	f.equal(got, k)
	k.LastUsed = now.Add(time.Minute)
	put(k)
	f.reopen()
	all, err := f.ListTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.equal(all, []*state.Token{k, forever})
	again := &state.Token{ID: "b", Hash: []byte{1, 4}, Scopes: []byte(`[]`), Created: k.Expires}
	put(again)
	if _, err := f.TokenByHash(t.Context(), k.Hash); !fault.Is(err, fault.NotFound) {
		t.Errorf("a token in whose place there is another: %v", err)
	}
	k = again
	if err := f.DeleteToken(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteToken(t.Context(), "b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a token deleted twice: %v", err)
	}
	if _, err := f.TokenByHash(t.Context(), k.Hash); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted token: %v", err)
	}
}
