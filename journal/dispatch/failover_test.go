package dispatch

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// When a member of a route dies, its calls go to the next best one, and come back to it when it does.
func TestMembersDieAndReturn(t *testing.T) {
	fallback, near, twin, far := tcp(t, "default"), tcp(t, "near"), tcp(t, "twin"), tcp(t, "far")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	r := &forgets{route: routeOf(
		member{"here", "near", near.endpoint}, member{"here", "twin", twin.endpoint}, member{"there", "far1", far.endpoint},
	)}
	ctx := pb.WithDispatchItemRoute(t.Context(), r, "item", false)
	until := func(want string) {
		t.Helper()
		for {
			// A call that a dying broker has may fail; it is made again.
			got, err := ask(ctx, jc, grpc.WaitForReady(true))
			switch {
			case got == want:
				return
			case err != nil && status.Code(err) != codes.Unavailable:
				t.Fatal(err)
			case t.Context().Err() != nil:
				t.Fatal(t.Context().Err())
			}
		}
	}
	until("near")
	near.stop()
	until("twin")
	twin.stop()
	until("far")
	wantReach(t, ctx, jc, "far") // Without waiting, too.
	if got, err := ask(pb.WithDispatchRoute(t.Context(), r.route, r.route.Members[0]), jc); status.Code(err) != codes.Unavailable {
		t.Errorf("a broker that is gone was required, and %q reached: %v", got, err)
	}
	serve(t, "twin", "tcp", strings.TrimPrefix(twin.endpoint, "http://"))
	until("twin")
	far.stop()
	wantReach(t, ctx, jc, "twin")
}

// A route of which nobody is there is forgotten with the first call, so that the next one asks who was dialed.
func TestNobodyIsThere(t *testing.T) {
	fallback, near, far := tcp(t, "default"), tcp(t, "near"), tcp(t, "far")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	r := &forgets{route: routeOf(member{"here", "near", near.endpoint}, member{"there", "far1", far.endpoint})}
	ctx := func() context.Context { return pb.WithDispatchItemRoute(t.Context(), r, "item", false) }
	wantReach(t, ctx(), jc, "near")
	near.stop()
	far.stop()
	for r.forgot() == 0 {
		if got, err := ask(ctx(), jc); status.Code(err) != codes.Unavailable {
			t.Fatalf("%q was reached: %v", got, err)
		}
	}
	r.route = pb.NewRoute()
	wantReach(t, ctx(), jc, "default")
}

// Of two routes with the same broker, one connection serves both, and each has its own preference.
func TestRoutesShareConnections(t *testing.T) {
	fallback, one, two := tcp(t, "default"), tcp(t, "one"), tcp(t, "two")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	a := routeOf(member{"here", "one1", one.endpoint}, member{"there", "two2", two.endpoint})
	b := routeOf(member{"there", "one1", one.endpoint}, member{"here", "two2", two.endpoint})
	for range 3 {
		wantReach(t, pb.WithDispatchRoute(t.Context(), a, nil), jc, "one")
		wantReach(t, pb.WithDispatchRoute(t.Context(), b, nil), jc, "two")
		wantReach(t, pb.WithDispatchDefault(t.Context()), jc, "default")
	}
}
