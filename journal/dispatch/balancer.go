package dispatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	policyName = "daybook_journal_dispatch"
	// sweepInterval is how long a connection may be unused.
	sweepInterval = 30 * time.Second
)

func init() { balancer.Register(builder{}) }

// policy is the configuration of the balancer, as it stands in a service config.
type policy struct {
	serviceconfig.LoadBalancingConfig `json:"-"`
	Zone                              string `json:"zone"`
}

func serviceConfig(zone string) string {
	b, err := json.Marshal(map[string]any{"loadBalancingConfig": []any{map[string]any{policyName: policy{Zone: zone}}}})
	if err != nil {
		panic(err) // A string can be encoded.
	}
	return string(b)
}

type builder struct{}

func (builder) Name() string { return policyName }

func (builder) ParseConfig(js json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	p := new(policy)
	if err := json.Unmarshal(js, p); err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	return p, nil
}

func (builder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	d := &dispatcher{cc: cc, brokers: make(map[string]*broker), stop: make(chan struct{})}
	d.sweeping.Go(d.sweepNowAndThen)
	return d
}

// dispatcher holds a connection to the dialed address and to each broker in use.
//
// gRPC calls its methods one after the other, and Pick at any time. The mutex is never held while gRPC is told of a new state,
// so that gRPC's own locks do not matter here.
type dispatcher struct {
	cc       balancer.ClientConn
	stop     chan struct{}
	sweeping sync.WaitGroup

	mu       sync.Mutex
	zone     string
	resolved *broker            // The dialed address; nil until it is resolved.
	brokers  map[string]*broker // By endpoint.
	closed   bool
}

// broker is a connection.
type broker struct {
	conn  balancer.SubConn
	state connectivity.State
	// failed stays from a failure until the connection is ready, through all attempts in between.
	failed error
	used   bool // Since the last sweep.
}

// UpdateClientConnState takes in the dialed address.
func (d *dispatcher) UpdateClientConnState(s balancer.ClientConnState) error {
	if len(s.ResolverState.Addresses) == 0 {
		d.ResolverError(errors.New("the address of the broker resolves to nothing"))
		return balancer.ErrBadResolverState
	}
	d.mu.Lock()
	if p, ok := s.BalancerConfig.(*policy); ok {
		d.zone = p.Zone
	}
	var old *broker
	fresh, err := d.open(s.ResolverState.Addresses[0])
	if err == nil {
		old, d.resolved = d.resolved, fresh
	}
	d.mu.Unlock()
	if old != nil {
		old.conn.Shutdown()
	}
	d.publish()
	return err
}

// ResolverError makes calls fail while the dialed address is not known.
func (d *dispatcher) ResolverError(err error) {
	d.mu.Lock()
	known := d.resolved != nil
	d.mu.Unlock()
	if !known {
		d.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: failing{err}})
	}
}

// failing is a picker for while nothing can be picked.
type failing struct{ err error }

func (f failing) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, f.err
}

// UpdateSubConnState is not called, since each connection has a listener.
func (d *dispatcher) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle connects to the dialed address.
func (d *dispatcher) ExitIdle() {
	d.mu.Lock()
	b := d.resolved
	d.mu.Unlock()
	if b != nil {
		b.conn.Connect()
	}
}

// Close closes all connections.
func (d *dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	all := []*broker{}
	if d.resolved != nil {
		all = append(all, d.resolved)
	}
	for _, b := range d.brokers {
		all = append(all, b)
	}
	d.resolved, d.brokers = nil, nil
	d.mu.Unlock()
	close(d.stop)
	d.sweeping.Wait()
	for _, b := range all {
		b.conn.Shutdown()
	}
}

// open makes a connection that is not yet connecting. d.mu must be held.
func (d *dispatcher) open(address resolver.Address) (*broker, error) {
	b := new(broker)
	//nolint:staticcheck // What is deprecated is to give it several addresses.
	conn, err := d.cc.NewSubConn([]resolver.Address{address}, balancer.NewSubConnOptions{
		StateListener: func(s balancer.SubConnState) { d.changed(b, s) },
	})
	if err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	b.conn = conn
	return b, nil
}

// changed takes in the state of a connection.
func (d *dispatcher) changed(b *broker, s balancer.SubConnState) {
	d.mu.Lock()
	b.state = s.ConnectivityState
	switch s.ConnectivityState {
	case connectivity.Ready:
		b.failed = nil
	case connectivity.TransientFailure:
		if b.failed = s.ConnectionError; b.failed == nil {
			b.failed = errors.New("the connection failed")
		}
	}
	again := b.state == connectivity.Idle && b.failed != nil && !d.closed
	d.mu.Unlock()
	if again {
		b.conn.Connect()
	}
	if s.ConnectivityState != connectivity.Shutdown {
		d.publish()
	}
}

// publish makes calls that wait pick again.
func (d *dispatcher) publish() {
	d.mu.Lock()
	state, closed := connectivity.Idle, d.closed
	if d.resolved != nil {
		state = d.resolved.state
	}
	for _, b := range d.brokers {
		if b.state == connectivity.Ready {
			state = connectivity.Ready
		}
	}
	d.mu.Unlock()
	if !closed {
		d.cc.UpdateState(balancer.State{ConnectivityState: state, Picker: picker{d}})
	}
}

func (d *dispatcher) sweepNowAndThen() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.sweep()
		case <-d.stop:
			return
		}
	}
}

// sweep closes the connections that were not used since the last sweep.
func (d *dispatcher) sweep() {
	var unused []*broker
	d.mu.Lock()
	for endpoint, b := range d.brokers {
		if !b.used {
			unused = append(unused, b)
			delete(d.brokers, endpoint)
		}
		b.used = false
	}
	d.mu.Unlock()
	for _, b := range unused {
		// Calls in flight go on to their end.
		b.conn.Shutdown()
	}
}

// connectionTo returns the connection to a broker, which it opens if need be; nil if the endpoint is not one. d.mu must be held.
func (d *dispatcher) connectionTo(endpoint pb.Endpoint) *broker {
	if b := d.brokers[string(endpoint)]; b != nil {
		return b
	}
	address, err := endpoint.DialAddress()
	if err != nil || d.closed {
		return nil
	}
	name, encrypted := endpoint.TLS()
	b, err := d.open(withTLS(resolver.Address{Addr: address, ServerName: name}, encrypted))
	if err != nil {
		return nil
	}
	d.brokers[string(endpoint)] = b
	return b
}
