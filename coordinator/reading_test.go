package coordinator_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/internal/fault"
)

// SignedURL implements reader.Archives.
func (a *archives) SignedURL(_ context.Context, url string, ttl time.Duration) (string, error) {
	if !a.signs {
		return "", fault.New(fault.Unimplemented, "no signed URLs here")
	}
	return "https://signed/" + ttl.String() + "/" + url, nil
}

// callers are who may call a Coordinator in a test, by the name in their requests. Others are anonymous.
type callers map[string]access.Principal

// as returns a context of calls by one of the callers.
func as(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "test-caller", name)
}

// caller returns who makes the calls of a context.
func caller(ctx context.Context) string {
	md, _ := metadata.FromOutgoingContext(ctx)
	return md.Get("test-caller")[0]
}

func (c callers) context(ctx context.Context) context.Context {
	for _, name := range metadata.ValueFromIncomingContext(ctx, "test-caller") {
		if p, ok := c[name]; ok {
			return access.WithPrincipal(ctx, p)
		}
	}
	return ctx
}

type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s callerStream) Context() context.Context { return s.ctx }

// serveTo returns clients of a Coordinator behind a real gRPC server that knows its callers.
func serveTo(t testing.TB, c *coordinator.Coordinator, callers callers, options ...grpc.DialOption) (logdog.LogsClient, daybookv1.LogsClient) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(append(client.ServerOptions(),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(callers.context(ctx), req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, callerStream{ss, callers.context(ss.Context())})
		}))...)
	c.Register(s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	conn, err := client.Dial("passthrough:bufconn", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		wg.Wait()
	})
	return logdog.NewLogsClient(conn), daybookv1.NewLogsClient(conn)
}
