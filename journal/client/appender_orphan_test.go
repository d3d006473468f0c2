package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// clogged is a connection that takes nothing more once stall is called, and then breaks.
type clogged struct {
	net.Conn

	mu      sync.Mutex
	stalled chan struct{} // closed when a write waits; nil until stall
	broken  chan struct{}
}

func (c *clogged) stall() (waits <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = make(chan struct{})
	return c.stalled
}

func (c *clogged) Write(p []byte) (int, error) {
	c.mu.Lock()
	stalled := c.stalled
	c.mu.Unlock()
	if stalled == nil {
		return c.Conn.Write(p)
	}
	close(stalled)
	<-c.broken
	return 0, errors.Join(errors.New("the connection broke"), c.Conn.Close())
}

// An append whose connection breaks before anything of it has left fails. gRPC, which opens such streams again on its own,
// must not send the part of it that was sent so far as if that were all.
func TestAppenderIsNotCutOff(t *testing.T) {
	opened := make(chan string, 10)
	b := &broker{fail: func(journal string, at stage) error {
		if at == atOpen {
			opened <- journal
		}
		return nil
	}}
	// The first connection of ours is the one that breaks.
	var first *clogged
	dial := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil || first != nil {
			return conn, err
		}
		first = &clogged{Conn: conn, broken: make(chan struct{})}
		return first, nil
	})
	conn, err := grpc.NewClient(b.serve(t), grpc.WithTransportCredentials(insecure.NewCredentials()), dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	rjc := pb.NewRoutedJournalClient(pb.NewJournalClient(conn), pb.NoopDispatchRouter{})

	wantNil(t, NewAppender(t.Context(), rjc, request("test/before")).Close())
	<-opened
	waits := first.stall()
	clog := NewAppender(t.Context(), rjc, request("test/clog"))
	if _, err := clog.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-waits
	a := NewAppender(t.Context(), rjc, request("test/after"))
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	close(first.broken)
	for err == nil {
		_, err = a.Write([]byte("x"))
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the append fails with %v", err)
	}
	clog.Abort()
	wantNil(t, NewAppender(t.Context(), rjc, request("test/last")).Close())
	for {
		switch journal := <-opened; journal {
		case "test/after":
			t.Error("the append that failed was opened again")
		case "test/last":
			return
		}
	}
}
