// Package collector takes bundles of log entries that Butlers sent, checks them, registers their streams with the
// Coordinator, stores the entries, and reports the ends of streams (seed 001, spec collector 3).
//
// A Collector processes single messages, wherever they come from. A Consumer feeds one with the messages of an ingest journal:
// it stores the entries and its position in the journal together, so that a crash neither loses nor repeats anything.
//
// Processing a message again changes nothing. Any number of Collectors may work side by side; they share no state. All
// methods are safe for concurrent use.
package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/collector/quarantine"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// DefaultMaxMessageWorkers is the default number of concurrent worker goroutines to employ for a single message.
	DefaultMaxMessageWorkers = 4
	// DefaultStreamStateCacheExpire is how long a stream's state is remembered by default.
	DefaultStreamStateCacheExpire = coordinator.DefaultExpiration
)

// Collector ingests messages. Its fields must not be changed once it is in use.
type Collector struct {
	// Coordinator is the Coordinator client, best wrapped in a cache. One that is not is wrapped in a cache of default size.
	Coordinator coordinator.Coordinator
	// Storage takes the entries.
	Storage storage.Storage
	// StreamStateCacheExpire is how long a stream's state is remembered, unless Coordinator is a cache already. If zero,
	// DefaultStreamStateCacheExpire is used.
	StreamStateCacheExpire time.Duration
	// MaxMessageWorkers is the maximum number of concurrent workers to employ for any given message. If <= 0,
	// DefaultMaxMessageWorkers is used.
	MaxMessageWorkers int
	// Quarantine, if not nil, gets messages of which something was refused for good.
	Quarantine *quarantine.Store
	// Logger gets what is dropped, each message once and without its secret. nil discards it.
	Logger *slog.Logger
	// Metrics counts. nil counts where nobody looks.
	Metrics *Metrics

	complaints complaints
	uncached   bool // in tests

	once   sync.Once
	mu     sync.Mutex // guards closed, and calls.Add against Close
	closed bool
	calls  sync.WaitGroup
}

// errSecret refuses entries for a stream that somebody else has the secret of.
var errSecret = fault.New(fault.Invalid, "the secret is not that of the stream")

// init fills in the defaults.
func (c *Collector) init() {
	c.once.Do(func() {
		if !c.uncached {
			c.Coordinator = coordinator.Cached(c.Coordinator, c.StreamStateCacheExpire)
		}
		if c.MaxMessageWorkers <= 0 {
			c.MaxMessageWorkers = DefaultMaxMessageWorkers
		}
		if c.Logger == nil {
			c.Logger = slog.New(slog.DiscardHandler)
		}
		if c.Metrics == nil {
			c.Metrics = NewMetrics(nil)
		}
	})
}

// begin counts an operation that Close waits for.
func (c *Collector) begin() error {
	c.init()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fault.New(fault.Transient, "collector is closed")
	}
	c.calls.Add(1)
	return nil
}

// Close waits for the operations that are under way. After Close, no new ones may be begun.
func (c *Collector) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.calls.Wait()
}

// Process ingests an encoded message: it registers its streams with the Coordinator, stores their entries, and reports the
// ends of streams. msg may be used again when Process has returned.
//
// An error that is transient (fault.IsTransient) means that the message is to be processed again. Any other means that the
// message, or a part of it, was refused for good, and the rest has been stored. Messages that cannot be decoded, and entries of
// streams that belong to another secret or are gone, are dropped without an error. What is refused or dropped is counted, logged and put
// into the quarantine.
func (c *Collector) Process(ctx context.Context, msg []byte) error {
	if err := c.begin(); err != nil {
		return err
	}
	defer c.calls.Done()
	started := time.Now()
	b := c.open(bytes.Clone(msg), origin{})
	err := c.process(ctx, b)
	if !fault.IsTransient(err) {
		c.putAside(b)
	}
	c.finished(started, err)
	return err
}

// finished counts the result of a message.
func (c *Collector) finished(started time.Time, err error) {
	result := resultSuccess
	switch {
	case fault.IsTransient(err):
		result = resultTransient
	case err != nil:
		result = resultFailure
	}
	c.Metrics.messages.WithLabelValues(result).Inc()
	c.Metrics.messageSeconds.Observe(time.Since(started).Seconds())
}

func (c *Collector) process(ctx context.Context, b *bundle) error {
	if b.err != nil {
		return b.err
	}
	started := time.Now()
	states, errs := make([]*coordinator.LogStreamState, len(b.runs)), make([]error, len(b.runs))
	c.each(b.runs, func(i int, r *run) { states[i], errs[i] = c.register(ctx, b, r) })
	var stored error
	var storing sync.WaitGroup
	storing.Go(func() { stored = c.store(ctx, b, states) })
	c.each(b.runs, func(i int, r *run) {
		if errs[i] != nil || states[i] == nil {
			return
		}
		if end := endOf(b, r, states[i]); end != nil {
			errs[i] = c.terminate(ctx, b, r, end)
		}
	})
	storing.Wait()
	for _, r := range b.runs {
		c.Metrics.handled(r, started)
	}
	return combine(append(errs, stored))
}

// each calls do for each run, for as many at once as there may be workers.
func (c *Collector) each(runs []*run, do func(int, *run)) {
	var g errgroup.Group
	g.SetLimit(c.MaxMessageWorkers)
	for i, r := range runs {
		g.Go(func() error {
			do(i, r)
			return nil
		})
	}
	_ = g.Wait() // there are none
}

// store stores the entries of the runs that have a state, all of them or none.
func (c *Collector) store(ctx context.Context, b *bundle, states []*coordinator.LogStreamState) error {
	batch := c.Storage.NewBatch()
	defer func() { _ = batch.Close() }() // lets go of what is not committed
	var errs []error
	n := 0
	for i, r := range b.runs {
		if states[i] == nil || len(r.values) == 0 {
			continue
		}
		if err := batch.Put(r.put(b)); err != nil {
			errs = append(errs, c.refuse(b, r, dropRefused, err))
			continue
		}
		n += len(r.values)
	}
	if n == 0 {
		return combine(errs)
	}
	if err := batch.Commit(ctx); err != nil {
		err = fmt.Errorf("store %d entries below %s: %w", n, b.prefix, err)
		switch {
		case fault.Is(err, fault.Internal):
			err = fault.Wrap(fault.Transient, err) // nobody foresaw it, so it says nothing about the data
		case !fault.IsTransient(err):
			err = c.refuse(b, nil, dropRefused, err)
		}
		return combine(append(errs, err))
	}
	c.Metrics.logs.Add(float64(n))
	return combine(errs)
}

// open decodes a message, whose memory is kept. Of one that is refused as a whole, the bundle has no runs.
func (c *Collector) open(msg []byte, from origin) *bundle {
	b, err := openMessage(msg)
	return c.opened(b, err, from)
}

// opened takes in what openMessage returned.
func (c *Collector) opened(b *bundle, err error, from origin) *bundle {
	c.Metrics.bundles.Inc()
	c.Metrics.bundleBytes.Observe(float64(len(b.message)))
	b.origin = from
	switch {
	case errors.Is(err, errVersion):
		_ = c.refuse(b, nil, dropVersion, err) // without an error for the sender
		return b
	case err != nil:
		_ = c.refuse(b, nil, dropMalformed, err)
		return b
	}
	c.Metrics.bundleEntries.Observe(float64(b.entries))
	if err := b.validate(); err != nil {
		b.err = c.refuse(b, nil, dropRefused, err)
		b.runs = nil
	}
	return b
}

// register validates a run and registers its stream (steps a to l). It returns no state, and no error, when the run is to be
// dropped.
func (c *Collector) register(ctx context.Context, b *bundle, r *run) (*coordinator.LogStreamState, error) {
	if err := b.prepare(r); err != nil {
		return nil, c.refuse(b, r, dropRefused, err)
	}
	state, err := c.Coordinator.RegisterStream(ctx, &coordinator.LogStreamState{
		Project:       b.project,
		Path:          r.path,
		ProtoVersion:  envelope.ProtoVersion,
		Secret:        b.secret,
		TerminalIndex: r.end,
		TerminalEmpty: r.terminal && r.end < 0,
		Ended:         r.ended,
	}, r.rawDesc)
	if err != nil {
		err = fmt.Errorf("register %s: %w", r.path, err)
		if !fault.IsTransient(err) {
			err = c.refuse(b, r, dropRefused, err)
		}
		return nil, err
	}
	switch {
	case !state.Secret.Equal(b.secret):
		_ = c.refuse(b, r, dropSecret, errSecret) // without an error for the sender
		return nil, nil
	case state.Archived, state.Purged:
		c.Metrics.dropped.WithLabelValues(dropLate).Inc()
		c.complaints.log(c.Logger, "dropped entries that came after the stream was archived or purged",
			"project", b.project, "stream", r.path, "entries", len(r.values))
		return nil, nil
	}
	if r.terminal && state.Terminated() && !sameEnd(r, state) {
		c.complaints.log(c.Logger, "the stream has another end already", "project", b.project, "stream", r.path,
			"end", r.end, "known", state.TerminalIndex)
	}
	return state, nil
}

// put returns the request that stores the run.
func (r *run) put(b *bundle) storage.PutRequest {
	return storage.PutRequest{
		Stream: storage.Stream{Project: b.project, Path: r.path},
		Index:  r.first,
		Values: r.values,
	}
}

func sameEnd(r *run, s *coordinator.LogStreamState) bool {
	return s.Terminated() && s.TerminalIndex == r.end && s.TerminalEmpty == (r.end < 0)
}

// endOf returns the report of the run's end, or nil if there is none or the Coordinator knows it.
func endOf(b *bundle, r *run, s *coordinator.LogStreamState) *coordinator.TerminateRequest {
	if !r.terminal || sameEnd(r, s) {
		return nil
	}
	return &coordinator.TerminateRequest{
		Project:       b.project,
		Path:          r.path,
		ID:            s.ID,
		TerminalIndex: r.end,
		TerminalEmpty: r.end < 0,
		Ended:         r.ended,
		Secret:        s.Secret,
	}
}

// terminate reports an end.
func (c *Collector) terminate(ctx context.Context, b *bundle, r *run, end *coordinator.TerminateRequest) error {
	err := c.Coordinator.TerminateStream(ctx, end)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("terminate %s: %w", r.path, err)
	if !fault.IsTransient(err) {
		return c.refuse(b, r, dropRefused, err)
	}
	return err
}

// combine joins errors. The result is transient if one of them is.
func combine(errs []error) error {
	joined := errors.Join(errs...)
	for _, err := range errs {
		if fault.IsTransient(err) {
			return fault.Wrap(fault.Transient, joined)
		}
	}
	return joined
}
