package client

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// guarded is a broker that demands tokens. It notes the claims of calls that change journals.
func guarded(t *testing.T, b *broker, keys *auth.Keys) (endpoint pb.Endpoint, claims func() []auth.Claims) {
	t.Helper()
	b.journals = make(map[string][]byte)
	var mu sync.Mutex
	var seen []auth.Claims
	l, err := net.Listen("tcp", "127.0.0.1:0")
	wantNil(t, err)
	server := grpc.NewServer(grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		_, cancel, c, err := keys.VerifyCall(ss.Context(), 0)
		if err != nil {
			return fault.GRPC(err)
		}
		defer cancel()
		mu.Lock()
		seen = append(seen, c)
		mu.Unlock()
		return handler(srv, ss)
	}))
	pb.RegisterJournalServer(server, b)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	return pb.Endpoint("http://" + l.Addr().String()), func() []auth.Claims {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestDialWithTokens(t *testing.T) {
	keys, err := auth.ParseKeys("c2VjcmV0")
	wantNil(t, err)
	endpoint, claims := guarded(t, new(broker), keys)
	cache := NewRouteCache(10, time.Minute)
	c, err := Dial(endpoint, DialConfig{Zone: "local", Authorizer: keys, Router: routeTo{cache, endpoint}})
	wantNil(t, err)
	defer c.Close()

	s := closed(t, NewAppendService(context.Background(), c))
	wantNil(t, put(t, s, request("test/journal;meta"), "hello").Err())
	got, err := io.ReadAll(NewReader(t.Context(), c, &pb.ReadRequest{Journal: "test/journal", EndOffset: 5}))
	if err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	seen := claims()
	if len(seen) != 2 || seen[0].Capability != auth.Append || seen[1].Capability != auth.Read ||
		seen[0].Selector.Canonical() != "name=test/journal" || seen[1].Selector.Canonical() != "name=test/journal" {
		t.Errorf("claims %v", seen)
	}
	if len(cache.Route(t.Context(), "test/journal").Members) == 0 {
		t.Error("no route was learnt")
	}

	stranger, err := Dial(endpoint, DialConfig{})
	wantNil(t, err)
	defer stranger.Close()
	rr := NewRetryReader(t.Context(), stranger, readRequest(0))
	defer rr.Cancel()
	if _, err := rr.Read(make([]byte, 1)); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("without a token: %v", err)
	}
}

// routeTo gives the test's brokers, which do not know where they are, their endpoint.
type routeTo struct {
	*RouteCache
	endpoint pb.Endpoint
}

func (r routeTo) UpdateRoute(item string, route *pb.Route) {
	if len(route.GetEndpoints()) != 0 {
		route.Endpoints[0] = string(r.endpoint)
	}
	r.RouteCache.UpdateRoute(item, route)
}

func TestDialRefuses(t *testing.T) {
	for _, e := range []pb.Endpoint{"", "localhost:8080", "http://"} {
		if _, err := Dial(e, DialConfig{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", e, err)
		}
	}
}
