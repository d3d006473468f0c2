// Package butler is the agent that captures streams of one prefix and ships them to one output. It routes data from streams,
// which the owner adds or a StreamServer brings, through the bundler to the output, and on the way to callbacks.
//
//	b, err := butler.New(ctx, butler.Config{Output: out, BufferLogs: true})
//	err = b.AddStream(stdout, &logpb.LogStreamDescriptor{Name: "stdout", ContentType: "text/plain; charset=utf-8"})
//	b.Activate()       // from now on the Butler ends when its last stream does
//	err = b.Wait()     // everything was given to the output
//	err = out.Close(ctx)
//
// # The end
//
// The end has one order: all streams have ended; the servers are closed and bring what they have; those streams end; the bundler
// is flushed; every bundle was taken by the output; every callback saw its end. Without a reason to hurry each step takes as long as
// it takes.
//
// When the context ends, there is one: the servers are closed and bring what they have, what programs have written by then is read,
// and then all streams end where they are. What was read goes the way of everything. Five seconds after the context, streams whose
// readers still do not react are abandoned: a line at the end of text streams says so, and so does Wait. Callbacks that do not
// return within that time are not waited for either, and neither is an output that takes nothing for so long: what it has spooled
// stays in its spool, and of the rest Wait tells.
//
// A stream that is malformed, refused or panics ends alone. What the output lost is told by Wait.
//
// All methods are safe for concurrent use. The owner calls Wait, which waits for all goroutines but those that are stuck in code that
// is not the Butler's.
package butler

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Butler is the Butler application structure. The Butler runs until closed. During operation, it acts as a service manager and
// data router, routing messages from streams to the attached output, and streams from a StreamServer to the stream list.
type Butler struct {
	config  Config
	log     *slog.Logger
	bundler *bundler.Bundler
	// patience is how long a writer is held, see Drop.
	patience time.Duration
	// ctx ends when the streams have to.
	ctx    context.Context
	cancel context.CancelFunc
	// unwatch stops watching the owner's context.
	unwatch func() bool
	wait    func() error

	// dispatch orders bundles: whoever holds it takes the next one and hands its entries to the callbacks.
	dispatch sync.Mutex
	// stopper is whoever carries out a shutdown.
	stopper sync.WaitGroup

	mu sync.Mutex
	// changed is closed, and replaced, whenever something changes that is waited for.
	changed   chan struct{}
	activated bool
	// stopping says that there is a shutdown; stopped, that no stream or server is waited for any more.
	stopping, stopped bool
	closing           bool // servers are closed as soon as they are added
	finished          bool // no more streams
	done              bool // nothing happens any more
	err               error
	lost              LossError
	dropped           int64
	abandoned         AbandonedError
	names             names
	callbacks         []registration
	servers           []StreamServer
	// watchers are those whose callbacks have not seen the end.
	watchers map[*watcher]struct{}
	// running counts the streams that are read, serving the servers that may still bring streams and those that are being closed,
	// sending the senders.
	running, serving, sending int
	// inFlight are the bundles that the output is busy with, taken counts those that it is done with. stalled says that it is not
	// waited for any more.
	inFlight map[*bundler.Bundle]struct{}
	taken    int
	stalled  bool
}

// New instantiates a new Butler instance and starts its processing.
func New(ctx context.Context, config Config) (*Butler, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	delay := time.Duration(0)
	if config.BufferLogs {
		if delay = config.MaxBufferAge; delay <= 0 {
			delay = DefaultMaxBufferAge
		}
	}
	x, _ := config.Output.(output.Extender)
	b := &Butler{
		config: config,
		log:    config.Logger,
		bundler: bundler.New(bundler.Config{
			MaxSize: config.Output.MaxSize(), Delay: delay, Extensions: x != nil && x.Extensions(),
		}),
		patience: patience,
		changed:  make(chan struct{}),
		names:    newNames(),

		watchers: make(map[*watcher]struct{}),
		inFlight: make(map[*bundler.Bundle]struct{}),
	}
	if b.config.Redact == nil {
		b.config.Redact = new(redact.Set)
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.wait = sync.OnceValue(b.finish)
	b.sending = max(config.Output.MaxSendBundles(), 1)
	for range b.sending {
		go b.send()
	}
	b.unwatch = context.AfterFunc(ctx, func() { b.shutdown(ctx.Err()) })
	return b, nil
}

// AddStream adds a Stream to the Butler.
//
// If no error is returned, the Butler assumes ownership of the supplied stream. The stream will be closed when processing is
// finished.
//
// If an error occurred, the caller is still the owner of the stream and is responsible for closing it.
func (b *Butler) AddStream(rc io.ReadCloser, d *logpb.LogStreamDescriptor) error {
	if err := b.addStream(rc, d); err != nil {
		return fmt.Errorf("butler: add stream %.100q: %w", d.GetName(), err)
	}
	return nil
}

func (b *Butler) addStream(rc io.ReadCloser, d *logpb.LogStreamDescriptor) error {
	d, err := b.describe(d)
	if err != nil {
		return err
	}
	e, err := b.reserve(types.StreamName(d.GetName()))
	if err != nil {
		return err
	}
	// The name is ours before any callback hears of it, so that a duplicate does not disturb the one who was there first.
	if cb := b.register(d); cb != nil {
		e.watcher = b.watch(cb, e)
	}
	s, err := b.bundler.Register(d)
	if err != nil {
		b.release(e)
		return fault.Wrap(fault.Invalid, err)
	}
	r := b.newReader(rc, s)
	b.mu.Lock()
	e.reader = r
	ending := b.names.ending
	b.mu.Unlock()
	if ending {
		r.drain()
	}
	go b.read(e, r)
	return nil
}

// describe completes and checks a copy of a descriptor.
func (b *Butler) describe(d *logpb.LogStreamDescriptor) (*logpb.LogStreamDescriptor, error) {
	if d == nil {
		return nil, fault.New(fault.Invalid, "the descriptor is missing")
	}
	d = proto.CloneOf(d)
	d.Prefix = ""
	if d.Timestamp == nil || d.Timestamp.AsTime().IsZero() {
		d.Timestamp = timestamppb.Now()
	}
	for k, v := range b.config.GlobalTags {
		if _, ok := d.Tags[k]; ok {
			continue
		}
		if d.Tags == nil {
			d.Tags = make(map[string]string)
		}
		d.Tags[k] = v
	}
	for k, v := range d.Tags {
		d.Tags[k] = b.config.Redact.String(v)
	}
	return d, fault.Wrap(fault.Invalid, logpb.ValidateDescriptor(d, false))
}

// Streams returns a sorted list of stream names that have been registered to the Butler.
func (b *Butler) Streams() []types.StreamName {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names.all()
}

// Dropped returns how many bytes of all streams were dropped so far, see Drop.
func (b *Butler) Dropped() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func (b *Butler) addDropped(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped += n
}

// DrainNamespace prevents any new streams from being registered in the given namespace, and waits for all existing streams in
// that namespace to drain.
//
// If this exits due to context cancelation, it returns the list of stream names in the namespace which are still open.
func (b *Butler) DrainNamespace(ctx context.Context, namespace types.StreamName) []types.StreamName {
	ns := namespace.AsNamespace()
	b.mu.Lock()
	b.names.close(ns)
	b.mu.Unlock()
	var open []types.StreamName
	drained := func() bool {
		open = b.names.open(ns)
		return len(open) == 0
	}
	if b.await(ctx, drained) != nil {
		return open
	}
	return nil
}

// Activate notifies the Butler that its current stream load is sufficient. This enables it to exit Wait when it reaches a stream
// count of zero. Prior to activation, the Butler would block in Wait regardless of stream count.
func (b *Butler) Activate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.activated = true
	b.broadcast()
}

// Wait blocks until the Butler instance has completed, returning with the Butler's return code: the reason of a shutdown, an
// *AbandonedError if streams did not end in time then, and a *LossError if the output lost data. Further calls return the same.
func (b *Butler) Wait() error { return b.wait() }

func (b *Butler) finish() error {
	forever := context.Background() // shutdown ends what is waited for
	_ = b.await(forever, func() bool { return b.activated && (b.running == 0 || b.stopping) })
	b.closeServers()
	_ = b.await(forever, func() bool {
		b.finished = b.serving == 0 && b.running == 0 || b.stopped
		return b.finished
	})
	b.bundler.Flush()
	_ = b.await(forever, func() bool { return b.sending == 0 || b.stalled })
	_ = b.await(forever, func() bool { return len(b.watchers) == 0 })

	b.mu.Lock()
	b.done = true
	b.broadcast()
	b.mu.Unlock()
	b.unwatch()
	b.stopper.Wait()
	b.cancel()
	stats := b.config.Output.Stats()
	b.log.Debug("the output is done", "bytes", stats.SentBytes, "messages", stats.SentMessages,
		"discarded", stats.DiscardedMessages, "errors", stats.Errors)

	b.mu.Lock()
	defer b.mu.Unlock()
	return b.result()
}

// broadcast wakes everybody in await. b.mu is held.
func (b *Butler) broadcast() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// await waits until the condition, which is looked at with b.mu held, is true.
func (b *Butler) await(ctx context.Context, condition func() bool) error {
	for {
		b.mu.Lock()
		ok, changed := condition(), b.changed
		b.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
