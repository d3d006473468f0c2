package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// fakeTokens is a store that can fail, and counts how often it is asked.
type fakeTokens struct {
	mu    sync.Mutex
	all   []*state.Token
	asked int
	fail  error
}

func (f *fakeTokens) PutToken(_ context.Context, t *state.Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, old := range f.all {
		if old.ID == t.ID {
			if old.Expires.After(t.Created) {
				return fault.New(fault.Exists, "there is one")
			}
			f.all[i] = t
			return nil
		}
	}
	f.all = append(f.all, t)
	return nil
}

func (f *fakeTokens) TokenByHash(_ context.Context, hash []byte) (*state.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	for _, t := range f.all {
		if bytes.Equal(t.Hash, hash) {
			return t, f.fail
		}
	}
	return nil, fault.New(fault.NotFound, "no such token")
}

func (f *fakeTokens) ListTokens(context.Context) ([]*state.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all, nil
}

func (f *fakeTokens) DeleteToken(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range f.all {
		if t.ID == id {
			f.all = append(f.all[:i:i], f.all[i+1:]...)
			return nil
		}
	}
	return fault.New(fault.NotFound, "no such token")
}

func create(t *testing.T, tokens *Tokens, token Token, life time.Duration) string {
	t.Helper()
	secret, err := tokens.Create(t.Context(), &token, life)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestTokenOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeTokens{}
		tokens := NewTokens(store)
		other := NewTokens(store) // of another process
		chain := Chain{other}
		secret := create(t, tokens, Token{Name: "ci", Permissions: []Permission{List, Get, Get}, Projects: []types.Project{"b", "a"}}, time.Hour)

		got, err := chain.Authenticate(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		want := Principal{Name: "token:ci", Permissions: []Permission{Get, List}, Projects: []types.Project{"a", "b"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("principal (-want +got):\n%s", diff)
		}
		for range 100 {
			if _, err := chain.Authenticate(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		}
		if store.asked != 1 {
			t.Errorf("the store was asked %d times within a moment", store.asked)
		}
		for _, bad := range []string{secret + "x", secret[:len(secret)-1], TokenPrefix, "x", strings.Repeat("x", maxCredential+1), strings.ToUpper(secret)} {
			if _, err := chain.Authenticate(t.Context(), bad); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%.20q: %v", bad, err)
			}
		}

		if err := tokens.Revoke(t.Context(), "ci"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(cacheLife + time.Nanosecond)
		if _, err := chain.Authenticate(t.Context(), secret); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("revoked: %v", err)
		}
		if err := tokens.Revoke(t.Context(), "c\x00i"); !fault.Is(err, fault.NotFound) { // which not every database would take
			t.Errorf("revoked what is no name: %v", err)
		}
		if err := tokens.Revoke(t.Context(), "ci"); !fault.Is(err, fault.NotFound) {
			t.Errorf("revoked again: %v", err)
		}
	})
}

func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := NewTokens(&fakeTokens{})
		secret := create(t, tokens, Token{Name: "ci"}, time.Second) // before the cache forgets
		if _, _, err := tokens.Authenticate(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.Create(t.Context(), &Token{Name: "ci"}, time.Hour); !fault.Is(err, fault.Exists) {
			t.Errorf("a second of the name: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := tokens.Authenticate(t.Context(), secret); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("expired: %v", err)
		}
		create(t, tokens, Token{Name: "ci"}, time.Hour)
		if all, err := tokens.List(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("%d tokens, %v", len(all), err)
		}
	})
}

func TestExpiredTokensAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeTokens{}
		tokens := NewTokens(store)
		create(t, tokens, Token{Name: "short"}, time.Second)
		create(t, tokens, Token{Name: "long"}, 3*listExpired)
		time.Sleep(listExpired)
		create(t, tokens, Token{Name: "second"}, time.Hour)
		if len(store.all) != 3 {
			t.Errorf("%d tokens when one has just expired", len(store.all))
		}
		time.Sleep(2 * time.Second)
		create(t, tokens, Token{Name: "third"}, time.Hour)
		if len(store.all) != 3 || store.all[0].ID != "long" {
			t.Errorf("%d tokens when one has long expired, the first is %s", len(store.all), store.all[0].ID)
		}
	})
}

func TestTokenIsNotStored(t *testing.T) {
	store := &fakeTokens{}
	secret := create(t, NewTokens(store), Token{Name: "ci", Permissions: []Permission{Admin}}, time.Hour)
	if len(secret) != len(TokenPrefix)+43 {
		t.Errorf("the token has %d bytes", len(secret))
	}
	sum := sha256.Sum256([]byte(secret))
	stored := store.all[0]
	if !bytes.Equal(stored.Hash, sum[:]) {
		t.Error("the hash is not that of the token")
	}
	if text := fmt.Sprintf("%+v %s", *stored, stored.Scopes); strings.Contains(text, secret[len(TokenPrefix):]) {
		t.Errorf("the token is in %s", text)
	}
}

func TestTokenIsChecked(t *testing.T) {
	for _, test := range []struct {
		token Token
		life  time.Duration
	}{
		{Token{Name: ""}, time.Hour},
		{Token{Name: "a b"}, time.Hour},
		{Token{Name: "-a"}, time.Hour},
		{Token{Name: strings.Repeat("a", 101)}, time.Hour},
		{Token{Name: "a"}, 0},
		{Token{Name: "a"}, -time.Hour},
		{Token{Name: "a"}, maxLife + 1},
		{Token{Name: "a", Permissions: []Permission{"x"}}, time.Hour},
		{Token{Name: "a", Permissions: []Permission{Get}}, time.Hour},
		{Token{Name: "a", Projects: []types.Project{"a"}}, time.Hour},
		{Token{Name: "a", Permissions: []Permission{Admin}, Projects: []types.Project{"a"}}, time.Hour},
		{Token{Name: "a", Permissions: []Permission{Get}, Projects: []types.Project{"A"}}, time.Hour},
		{Token{Name: "a", Permissions: []Permission{Get}, Projects: make([]types.Project, maxProjects+1)}, time.Hour},
	} {
		if _, err := NewTokens(&fakeTokens{}).Create(t.Context(), &test.token, test.life); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+.200v for %v: %v", test.token, test.life, err)
		}
	}
}

func TestStoreThatFailsIsNoRefusal(t *testing.T) {
	store := &fakeTokens{}
	tokens := NewTokens(store)
	secret := create(t, tokens, Token{Name: "ci"}, time.Hour)
	store.fail = fault.New(fault.Transient, "the database is away")
	if _, err := (Chain{tokens}).Authenticate(t.Context(), secret); !fault.Is(err, fault.Transient) {
		t.Errorf("%v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	now := time.Now()
	for i := range cacheSize + 10 {
		c.put(sha256.Sum256(fmt.Append(nil, i)), verified{until: now.Add(time.Hour)}, now)
	}
	if n := len(c.good); n > cacheSize {
		t.Errorf("%d entries", n)
	}
}

func TestChainAsksInTurn(t *testing.T) {
	a, b := Principal{Name: "service:a"}, Principal{Name: "service:b"}
	chain := Chain{Secret("one", a), Secret("two", b), NewTokens(&fakeTokens{})}
	for credential, want := range map[string]Principal{"": {Name: Anonymous}, "one": a, "two": b} {
		got, err := chain.Authenticate(t.Context(), credential)
		if err != nil || got.Name != want.Name {
			t.Errorf("%q: %v, %v", credential, got, err)
		}
	}
	for _, bad := range []string{"three", "onetwo", "dbk_x"} {
		if _, err := chain.Authenticate(t.Context(), bad); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBearer(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
		bad    bool
	}{
		{nil, "", false},
		{[]string{"Bearer x"}, "x", false},
		{[]string{"bearer  x "}, "x", false},
		{[]string{""}, "", true},
		{[]string{"Bearer"}, "", true},
		{[]string{"Bearer "}, "", true},
		{[]string{"Basic x"}, "", true},
		{[]string{"Bearer x", "Bearer y"}, "", true},
	} {
		got, err := Bearer(test.values)
		if got != test.want || fault.Is(err, fault.Unauthenticated) != test.bad {
			t.Errorf("%q: %q, %v", test.values, got, err)
		}
	}
}

func TestGuardEndsCallsOfRevokedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := NewTokens(&fakeTokens{})
		chain := Chain{Secret("process", Principal{Name: "service:x"}), tokens}
		guard := NewGuard(chain)
		secret := create(t, tokens, Token{Name: "ci"}, time.Hour)
		first, releaseFirst := guard.Watch(t.Context(), secret)
		second, releaseSecond := guard.Watch(t.Context(), secret)
		process, releaseProcess := guard.Watch(t.Context(), "process")
		_, releaseAnonymous := guard.Watch(t.Context(), "")
		if n := len(guard.watched); n != 2 {
			t.Errorf("%d credentials are watched", n)
		}
		time.Sleep(10 * cacheLife)
		if err := first.Err(); err != nil {
			t.Fatalf("a good token: %v", err)
		}
		releaseSecond()
		if second.Err() == nil {
			t.Error("a released call goes on")
		}
		if err := tokens.Revoke(t.Context(), "ci"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * cacheLife)
		if err := context.Cause(first); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("a revoked token: %v", err)
		}
		if err := process.Err(); err != nil {
			t.Errorf("the process: %v", err)
		}
		releaseFirst()
		releaseProcess()
		releaseAnonymous()
		guard.Wait()
		if n := len(guard.watched); n != 0 {
			t.Errorf("%d credentials are still watched", n)
		}
	})
}
