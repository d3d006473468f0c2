package dispatch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a broker that tells its name.
type server struct {
	pb.UnimplementedJournalServer
	name string
	fail error

	endpoint string
	stop     func()
}

func (s *server) FragmentStoreHealth(context.Context, *pb.FragmentStoreHealthRequest) (*pb.FragmentStoreHealthResponse, error) {
	return &pb.FragmentStoreHealthResponse{StoreHealthError: s.name}, s.fail
}

// serve begins to serve, until the test ends or stop is called.
func serve(t *testing.T, name, network, address string, opts ...grpc.ServerOption) *server {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: name, endpoint: "http://" + l.Addr().String()}
	g := grpc.NewServer(opts...)
	pb.RegisterJournalServer(g, s)
	var served sync.WaitGroup
	served.Go(func() { _ = g.Serve(l) })
	s.stop = sync.OnceFunc(func() {
		g.Stop()
		served.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

func tcp(t *testing.T, name string) *server { return serve(t, name, "tcp", "127.0.0.1:0") }

func dialTo(t *testing.T, endpoint, zone string, config *tls.Config) pb.JournalClient {
	t.Helper()
	target, opts, err := Target(pb.Endpoint(endpoint), zone, config)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewJournalClient(conn)
}

// ask returns the name of the broker that a call reaches.
func ask(ctx context.Context, jc pb.JournalClient, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := jc.FragmentStoreHealth(ctx, new(pb.FragmentStoreHealthRequest), opts...)
	return resp.GetStoreHealthError(), err
}

func wantReach(t *testing.T, ctx context.Context, jc pb.JournalClient, want string, opts ...grpc.CallOption) {
	t.Helper()
	if got, err := ask(ctx, jc, opts...); err != nil || got != want {
		t.Errorf("reached %q instead of %q: %v", got, want, err)
	}
}

type member struct {
	zone, suffix, endpoint string
}

func routeOf(members ...member) *pb.Route {
	r := pb.NewRoute()
	for _, m := range members {
		r.Members = append(r.Members, &pb.ProcessSpec_ID{Zone: m.zone, Suffix: m.suffix})
		r.Endpoints = append(r.Endpoints, m.endpoint)
	}
	return r
}

// forgets is a router that says what it is told to forget.
type forgets struct {
	pb.NoopDispatchRouter
	route *pb.Route
	mu    sync.Mutex
	items []string
}

func (f *forgets) Route(context.Context, string) *pb.Route { return f.route }

func (f *forgets) UpdateRoute(item string, route *pb.Route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if route == nil {
		f.items = append(f.items, item)
	}
}

func (f *forgets) forgot() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.items)
}

// gone is the endpoint of nobody.
const gone = "http://127.0.0.1:1"

func TestWhichBroker(t *testing.T) {
	fallback, near, far := tcp(t, "default"), tcp(t, "near"), tcp(t, "far")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	both := routeOf(member{"here", "near", near.endpoint}, member{"there", "far1", far.endpoint})

	for name, c := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"no dispatch":            {t.Context(), "default"},
		"default":                {pb.WithDispatchDefault(t.Context()), "default"},
		"own zone":               {pb.WithDispatchRoute(t.Context(), both, nil), "near"},
		"required":               {pb.WithDispatchRoute(t.Context(), both, both.Members[1]), "far"},
		"only far":               {pb.WithDispatchRoute(t.Context(), routeOf(member{"there", "far1", far.endpoint}), nil), "far"},
		"required and not there": {pb.WithDispatchRoute(t.Context(), both, &pb.ProcessSpec_ID{Zone: "x", Suffix: "none"}), "default"},
		"no endpoint":            {pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", ""}), nil), "default"},
		"no endpoint, required":  {pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", ""}), &pb.ProcessSpec_ID{Zone: "here", Suffix: "near"}), "default"},
		"no endpoints at all":    {pb.WithDispatchRoute(t.Context(), &pb.Route{Members: both.Members, Primary: -1}, nil), "default"},
		"one without endpoint":   {pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", ""}, member{"there", "far1", far.endpoint}), nil), "far"},
		"bad endpoint":           {pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", "::"}), nil), "default"},
	} {
		if got, err := ask(c.ctx, jc); err != nil || got != c.want {
			t.Errorf("%s: reached %q instead of %q: %v", name, got, c.want, err)
		}
	}
}

// What works is preferred to what is near, and is left for it when it works again.
func TestHealthBeforeZone(t *testing.T) {
	fallback, far := tcp(t, "default"), tcp(t, "far")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	r := &forgets{route: routeOf(member{"here", "near", gone}, member{"there", "far1", far.endpoint})}
	ctx := pb.WithDispatchItemRoute(t.Context(), r, "item", false)
	// The first call tries what is near, and only then knows better.
	wantReach(t, ctx, jc, "far", grpc.WaitForReady(true))
	wantReach(t, ctx, jc, "far")
}

func TestUnreachableIsForgotten(t *testing.T) {
	fallback := tcp(t, "default")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	r := &forgets{route: routeOf(member{"here", "near", gone})}
	r.route.Primary = 0
	_, err := ask(pb.WithDispatchItemRoute(t.Context(), r, "item", true), jc)
	if status.Code(err) != codes.Unavailable || r.forgot() == 0 {
		t.Errorf("%v, %d routes forgotten", err, r.forgot())
	}
	wantReach(t, pb.WithDispatchDefault(t.Context()), jc, "default")
}

func TestOnlyUnavailableIsForgotten(t *testing.T) {
	fallback, near := tcp(t, "default"), tcp(t, "near")
	jc := dialTo(t, fallback.endpoint, "here", nil)
	for code, want := range map[codes.Code]int{codes.OK: 0, codes.Unknown: 0, codes.Unavailable: 1} {
		near.fail = status.Error(code, "told so")
		r := &forgets{route: routeOf(member{"here", "near", near.endpoint})}
		_, err := ask(pb.WithDispatchItemRoute(t.Context(), r, "item", false), jc)
		if status.Code(err) != code || r.forgot() != want {
			t.Errorf("%s: %v, %d routes forgotten", code, err, r.forgot())
		}
	}
}

// A call to the dialed address fails at once when nobody is there, unless it wants to wait.
func TestDefaultFailsFast(t *testing.T) {
	jc := dialTo(t, gone, "here", nil)
	if _, err := ask(pb.WithDispatchDefault(t.Context()), jc); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, jc, grpc.WaitForReady(true)); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
}

func TestUnixSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // Paths of its temporary directories are no paths of URLs.
	}
	path := filepath.Join(t.TempDir(), "s")
	fallback := serve(t, "default", "unix", path)
	near := tcp(t, "near")
	jc := dialTo(t, "unix://localhost"+path, "here", nil)
	wantReach(t, t.Context(), jc, "default")
	wantReach(t, pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", near.endpoint}), nil), jc, "near")
	other := dialTo(t, near.endpoint, "here", nil)
	wantReach(t, pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "sock", "unix://localhost" + path}), nil), other, "default")
	fallback.stop()
}

// Each connection is encrypted or not as its own endpoint says.
func TestTLSByEndpoint(t *testing.T) {
	h := httptest.NewTLSServer(nil) // It has a certificate for 127.0.0.1.
	cert := h.TLS.Certificates[0]
	pool := x509.NewCertPool()
	pool.AddCert(h.Certificate())
	h.Close()
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	secret := serve(t, "secret", "tcp", "127.0.0.1:0", grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})))
	secret.endpoint = "https" + secret.endpoint[len("http"):]
	plain := tcp(t, "plain")
	for _, first := range []*server{secret, plain} {
		jc := dialTo(t, first.endpoint, "here", config)
		wantReach(t, t.Context(), jc, first.name)
		for _, s := range []*server{secret, plain} {
			wantReach(t, pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "some", s.endpoint}), nil), jc, s.name)
		}
	}
	if _, err := ask(t.Context(), dialTo(t, secret.endpoint, "here", nil)); status.Code(err) != codes.Unavailable {
		t.Errorf("a certificate of nobody: %v", err)
	}
}

func TestBadEndpoint(t *testing.T) {
	for _, e := range []pb.Endpoint{"", "localhost:8080", "http://", "::"} {
		if _, _, err := Target(e, "", nil); err == nil {
			t.Errorf("%q was accepted", e)
		}
	}
}
