// Package broker serves journals: the Journal service of package protocol, on an engine that orders and keeps.
//
//	b, err := broker.New(ctx, broker.Config{Engine: e, ID: id, Endpoint: endpoint})
//	protocol.RegisterJournalServer(grpcServer, b)
//	…
//	err = b.Close(ctx) // ends reads and watches, lets appends finish
//	grpcServer.GracefulStop()
//	err = e.Close(ctx)
//
// An append that is answered with OK is as durable as its engine promises, and readers see nothing that is not. An append is
// received whole before it competes with others, in memory if it is small and staged by the engine if not, so a client that
// stalls holds nobody; it is cut off nevertheless. A reader that waits costs its goroutine and nothing else: no timer, no buffer, no open file.
//
// Finished fragments go to the first store of their journal, compressed and verified, and are read from there. Until then the
// engine holds them, so a store that is down costs disk space and stops nothing. The broker finishes fragments in time, and
// drops those that have outlived their journal's retention.
//
// The broker keeps nothing of its own: several may serve the same journals if their engine is a shared one.
// All methods are safe for concurrent use.
package broker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// Config is what a broker is made of.
type Config struct {
	// Engine orders and keeps. It stays the caller's, who closes it after the broker.
	Engine engine.Engine
	// ID is the broker's identity: its zone, and a suffix that is unique within it.
	ID *protocol.ProcessSpec_ID
	// Endpoint is where clients reach the broker.
	Endpoint protocol.Endpoint
	// Callers says what callers may do: auth.Keys, for those with journal tokens, or what knows them otherwise. Without it
	// everybody may do everything.
	Callers auth.Verifier
	// MaxAppendRate bounds the appends to each journal, in bytes a second; a journal's own maximum may be lower. Zero is no
	// bound.
	MaxAppendRate int64
	// MinAppendRate is the rate, in bytes a second, below which a client that is sending an append is cut off. It may rest
	// for a second. Zero is DefaultMinAppendRate.
	MinAppendRate int64
	// Stores are where fragments go. They stay the caller's, who closes them after the broker. Without them all content stays
	// with the engine.
	Stores *store.Registry
	// Scratch is a directory for files that are compressed on their way to a store. It is this broker's alone: what a crash left
	// there is removed by New. Empty is the system's directory for such files.
	Scratch string
	// Logger takes reports; nil drops them.
	Logger *slog.Logger
	// Registerer takes metrics; nil drops them.
	Registerer prometheus.Registerer
}

// DefaultMinAppendRate is the least rate of appends where nothing else is said, in bytes a second.
const DefaultMinAppendRate = 64 << 10

// Broker implements protocol.JournalServer. It is made by New.
type Broker struct {
	protocol.UnimplementedJournalServer

	engine  engine.Engine
	self    *protocol.ProcessSpec_ID
	route   *protocol.Route
	callers auth.Verifier
	rates   rates
	stores  *store.Registry
	scratch string
	logger  *slog.Logger
	metrics *metrics
	buffers bufferPool
	keeper  *keeper
	paused  pausedReaders
	// listedHub wakes readers when the stores of a journal have been listed.
	listedHub wake.Hub[protocol.Journal]

	// closing is closed first: reads and watches end, appends do not begin.
	closing   chan struct{}
	closeOnce sync.Once

	mu      sync.Mutex // guards the beginning of calls against Close
	calls   sync.WaitGroup
	stopped bool
}

var _ protocol.JournalServer = (*Broker)(nil)

// errClosing is the answer to calls that come too late.
var errClosing = fault.New(fault.Transient, "the broker is shutting down")

// New returns a broker that is ready to serve.
func New(_ context.Context, c Config) (*Broker, error) {
	member := &protocol.ProcessSpec{Id: c.ID, Endpoint: string(c.Endpoint)}
	if err := member.Validate(); err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	if c.Engine == nil {
		return nil, fault.New(fault.Invalid, "configure broker: an engine is required")
	}
	if c.MaxAppendRate < 0 || c.MinAppendRate < 0 {
		return nil, fault.New(fault.Invalid, "configure broker: rates of %d and %d bytes a second are negative", c.MaxAppendRate, c.MinAppendRate)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Callers == nil {
		c.Callers = (*auth.Keys)(nil)
	}
	if err := clearScratch(c.Scratch); err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	b := &Broker{
		engine: c.Engine,
		self:   c.ID,
		// The broker serves every journal, so that clients have no need to look for another.
		route: &protocol.Route{
			Members:   []*protocol.ProcessSpec_ID{c.ID},
			Primary:   0,
			Endpoints: []string{string(c.Endpoint)},
		},
		callers: c.Callers,
		rates:   rates{most: c.MaxAppendRate, least: cmp.Or(c.MinAppendRate, DefaultMinAppendRate), began: time.Now()},
		stores:  c.Stores,
		scratch: c.Scratch,
		logger:  c.Logger,
		closing: make(chan struct{}),
	}
	b.keeper = newKeeper(b)
	b.metrics = newMetrics(c.Registerer, b.keeper.uploads.backlog)
	b.keeper.start()
	return b, nil
}

// Ready returns why appends are not possible, or nil.
func (b *Broker) Ready() error {
	select {
	case <-b.closing:
		return errClosing
	default:
		return b.engine.Ready()
	}
}

// begin notes that a call has begun, for which Close waits until calls.Done.
func (b *Broker) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errClosing
	}
	b.calls.Add(1)
	return nil
}

// Close ends reads and watches, refuses what is new, and waits for the appends that are under way. If the context ends first,
// the caller stops the server, which cuts them off, and calls Close again before it closes the engine.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.closeOnce.Do(func() { close(b.closing) })
	b.keeper.cancel()
	idle := make(chan struct{})
	go func() {
		b.calls.Wait()
		b.paused.close()
		b.keeper.stop()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close broker: work is still under way: %w", context.Cause(ctx))
	}
}
