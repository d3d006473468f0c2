package dispatch

import (
	"fmt"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// picker finds the connection of a call.
type picker struct{ d *dispatcher }

func (p picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	call, _ := pb.DispatchOf(info.Ctx)
	d := p.d
	d.mu.Lock()
	b, member := d.pick(call)
	if b == nil {
		d.mu.Unlock()
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable // Closing, or not resolved: what follows decides.
	}
	b.used = true
	state, failed := b.state, b.failed
	d.mu.Unlock()

	switch state {
	case connectivity.Ready:
		return balancer.PickResult{SubConn: b.conn, Done: forgetting(call)}, nil
	case connectivity.Idle:
		b.conn.Connect()
	}
	if failed == nil {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	if member {
		forget(call)
	}
	// A status would end also the calls that wait.
	return balancer.PickResult{}, fmt.Errorf("no connection to the broker: %v", failed) //nolint:errorlint // See above.
}

// pick returns the connection of a call, and whether it is to a member of its route. d.mu must be held.
func (d *dispatcher) pick(call pb.Dispatch) (_ *broker, member bool) {
	var best *broker
	var top rank
	for i, id := range call.Route.GetMembers() {
		if call.ProcessID != nil && id.Compare(call.ProcessID) != 0 || i >= len(call.Route.GetEndpoints()) {
			continue
		}
		b := d.connectionTo(pb.Endpoint(call.Route.GetEndpoints()[i]))
		if b == nil {
			continue // It has vanished, and left no endpoint.
		}
		r := rank{b.failed == nil, id.GetZone() == d.zone, b.state == connectivity.Ready, b.state == connectivity.Connecting}
		if best == nil || top.less(r) {
			best, top = b, r
		}
	}
	if best == nil {
		return d.resolved, false
	}
	return best, true
}

// rank says what speaks for a broker: that its connection has not failed, that it is in the own zone, that it is connected, and
// that it is about to be.
type rank [4]bool

// less orders by the first criterion in which both differ.
func (a rank) less(b rank) bool {
	for i := range a {
		if a[i] != b[i] {
			return b[i]
		}
	}
	return false
}

// forgetting returns what happens after a call: a broker that is not there is not asked again.
func forgetting(call pb.Dispatch) func(balancer.DoneInfo) {
	if call.Router == nil {
		return nil
	}
	return func(info balancer.DoneInfo) {
		if status.Code(info.Err) == codes.Unavailable {
			forget(call)
		}
	}
}

func forget(call pb.Dispatch) {
	if call.Router != nil {
		call.Router.UpdateRoute(call.Item, nil)
	}
}
