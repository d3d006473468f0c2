package dispatch

import (
	"slices"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// fakeConn stands for gRPC. It notes what is opened and closed.
type fakeConn struct {
	balancer.ClientConn
	log []string
}

func (c *fakeConn) NewSubConn(a []resolver.Address, o balancer.NewSubConnOptions) (balancer.SubConn, error) {
	c.log = append(c.log, "open "+a[0].Addr)
	return &fakeSubConn{conn: c, address: a[0].Addr, listen: o.StateListener}, nil
}

func (c *fakeConn) UpdateState(balancer.State) {}

type fakeSubConn struct {
	balancer.SubConn
	conn    *fakeConn
	address string
	listen  func(balancer.SubConnState)
}

func (s *fakeSubConn) Connect()  { s.conn.log = append(s.conn.log, "connect "+s.address) }
func (s *fakeSubConn) Shutdown() { s.conn.log = append(s.conn.log, "close "+s.address) }

func TestUnusedConnectionsAreClosed(t *testing.T) {
	cc := new(fakeConn)
	d := builder{}.Build(cc, balancer.BuildOptions{}).(*dispatcher)
	err := d.UpdateClientConnState(balancer.ClientConnState{
		ResolverState:  resolver.State{Addresses: []resolver.Address{{Addr: "default"}}},
		BalancerConfig: &policy{Zone: "here"},
	})
	if err != nil {
		t.Fatal(err)
	}
	info := balancer.PickInfo{Ctx: pb.WithDispatchRoute(t.Context(), routeOf(member{"here", "near", "http://near:1"}), nil)}
	pick := func() error {
		_, err := picker{d}.Pick(info)
		return err
	}
	if err := pick(); err != balancer.ErrNoSubConnAvailable { //nolint:errorlint // gRPC compares like this.
		t.Error(err)
	}
	near := d.brokers["http://near:1"]
	near.conn.(*fakeSubConn).listen(balancer.SubConnState{ConnectivityState: connectivity.Ready})
	if err := pick(); err != nil {
		t.Error(err)
	}
	d.sweep() // It was used since the beginning,
	if err := pick(); err != nil {
		t.Error(err)
	}
	d.sweep() // and since the last sweep,
	d.sweep() // but not since this one.
	if err := pick(); err == nil {
		t.Error("a connection that was closed is used")
	}
	d.Close()
	want := []string{"open default", "open near:1", "connect near:1", "close near:1", "open near:1", "connect near:1", "close default", "close near:1"}
	if !slices.Equal(cc.log, want) {
		t.Errorf("%q", cc.log)
	}
}

// A connection counts as failed until it is ready, whatever it tries in between.
func TestFailedUntilReady(t *testing.T) {
	cc := new(fakeConn)
	d := builder{}.Build(cc, balancer.BuildOptions{}).(*dispatcher)
	defer d.Close()
	near, err := d.open(resolver.Address{Addr: "near"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		state  connectivity.State
		failed bool
	}{
		{connectivity.Connecting, false},
		{connectivity.TransientFailure, true},
		{connectivity.Idle, true},
		{connectivity.Connecting, true},
		{connectivity.Ready, false},
		{connectivity.Idle, false},
	} {
		d.changed(near, balancer.SubConnState{ConnectivityState: c.state})
		if (near.failed != nil) != c.failed {
			t.Errorf("%s: %v", c.state, near.failed)
		}
	}
	if n := len(cc.log); n != 2 || cc.log[1] != "connect near" {
		t.Errorf("%q", cc.log)
	}
}
