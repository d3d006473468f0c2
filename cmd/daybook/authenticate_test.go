package main

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/internal/fault"
)

// A call that is made for a caller shows what the caller has shown, also if that is nothing, and never what we have.
func TestCredentialsOfCallsForCallers(t *testing.T) {
	c := newCallers()
	ours := access.WithCaller(t.Context(), access.Principal{Name: thisProcess}, c.self)
	for name, test := range map[string]struct {
		ctx             context.Context
		here, elsewhere string
	}{
		"the process":   {t.Context(), c.self, "peer"},
		"through doors": {ours, c.self, "peer"},
		"anonymous":     {access.WithCaller(t.Context(), access.Principal{}, ""), "", ""},
		"a token":       {access.WithCaller(t.Context(), access.Principal{Name: "token:x"}, "dbk_x"), "dbk_x", "dbk_x"},
		"a local user":  {access.WithCaller(t.Context(), access.Principal{Name: localUser}, "holder"), "holder", "peer"},
	} {
		if got := c.credential(test.ctx); got != test.here {
			t.Errorf("%s, here: %q, want %q", name, got, test.here)
		}
		if got := c.elsewhere(test.ctx, "peer"); got != test.elsewhere {
			t.Errorf("%s, elsewhere: %q, want %q", name, got, test.elsewhere)
		}
	}
}

// Where nobody needs a token, those of others do not matter; ours do.
func TestForeignCredentials(t *testing.T) {
	s := openGuarded(t)
	for _, demanded := range []bool{true, false} {
		c := &callers{chain: s.callers.chain, rules: access.NewRules(s.settings, demanded)}
		_, _, err := c.authenticate(t.Context(), "eyJ.foreign.token")
		if fault.Is(err, fault.Unauthenticated) != demanded {
			t.Errorf("demanded %v, foreign: %v", demanded, err)
		}
		if _, _, err := c.authenticate(t.Context(), access.TokenPrefix+"revoked"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("demanded %v, revoked: %v", demanded, err)
		}
	}
}

// BenchmarkKnowCallers is what a call costs more because its caller is known, and allowed to make it.
func BenchmarkKnowCallers(b *testing.B) {
	s := openGuarded(b)
	secret := tokenOf(b, s, "bench", access.Services)
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "Bearer "+secret))
	info := &grpc.UnaryServerInfo{FullMethod: "/logdog.Services/LoadStream"}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.callers.unary(ctx, nil, info, handler); err != nil {
			b.Fatal(err)
		}
	}
}
