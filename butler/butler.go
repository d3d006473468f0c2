// Package butler is the agent that captures streams of one prefix and ships them to one output. It routes data from streams,
// which the owner adds or a StreamServer brings, through the bundler to the output, and on the way to callbacks.
//
//	b, err := butler.New(ctx, butler.Config{Output: out, BufferLogs: true})
//	err = b.AddStream(stdout, &logpb.LogStreamDescriptor{Name: "stdout", ContentType: "text/plain; charset=utf-8"})
//	b.Activate()       // from now on the Butler ends when its last stream does
//	err = b.Wait()     // everything was given to the output
//	err = out.Close(ctx)
//
// The end has one order: all streams have ended; the servers are closed and bring what they have; those streams end; the bundler
// is flushed; every bundle was taken by the output; every callback saw its end. Cancelling the context ends all streams where
// they are, and what was read until then still goes the same way.
//
// A stream that is malformed, refused or panics ends alone. What the output lost is told by Wait.
//
// All methods are safe for concurrent use. The owner calls Wait, which waits for all goroutines.
package butler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/butler/output"
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
	// ctx ends when the streams have to.
	ctx    context.Context
	cancel context.CancelFunc
	// unwatch stops watching the owner's context.
	unwatch func() bool
	wait    func() error

	// dispatch orders bundles: whoever holds it takes the next one and hands its entries to the callbacks.
	dispatch sync.Mutex
	senders  sync.WaitGroup
	watchers sync.WaitGroup

	mu sync.Mutex
	// changed is closed, and replaced, whenever something changes that is waited for.
	changed   chan struct{}
	activated bool
	closing   bool // servers are closed as soon as they are added
	finished  bool // no more streams
	err       error
	lost      LossError
	names     names
	callbacks []registration
	servers   []StreamServer
	// running and serving count the streams that are read and the servers that may still bring streams.
	running, serving int
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
		changed: make(chan struct{}),
		names:   newNames(),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.wait = sync.OnceValue(b.finish)
	for range max(config.Output.MaxSendBundles(), 1) {
		b.senders.Go(b.send)
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
	go b.read(rc, s)
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
	return d, fault.Wrap(fault.Invalid, logpb.ValidateDescriptor(d, false))
}

// read reads a stream to its end.
func (b *Butler) read(rc io.ReadCloser, s *bundler.Stream) {
	var once sync.Once
	closeReader := func() {
		once.Do(func() {
			if err := rc.Close(); err != nil {
				b.log.Debug("closing a stream", "stream", s.Name(), "error", err)
			}
		})
	}
	stop := context.AfterFunc(b.ctx, closeReader)
	defer func() {
		if r := recover(); r != nil {
			b.log.Error("the reader of a stream panicked", "stream", s.Name(), "panic", r, "stack", string(debug.Stack()))
		}
		stop()
		closeReader()
		s.Close()
		b.ended()
	}()
	for {
		buf, err := s.Buffer(b.ctx)
		if err != nil {
			if b.ctx.Err() == nil {
				b.log.Error("a stream ended early", "stream", s.Name(), "error", err)
			}
			return
		}
		n, err := rc.Read(buf)
		s.Commit(n)
		if err != nil {
			if !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
				b.log.Warn("reading a stream", "stream", s.Name(), "error", err)
			}
			return
		}
	}
}

// ended notes that a stream is not read any more.
func (b *Butler) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
	b.broadcast()
}

// AddStreamServer adds a StreamServer to the Butler. It may be called anytime before or during Butler execution.
//
// After this call completes, the Butler assumes ownership of the StreamServer.
func (b *Butler) AddStreamServer(streamServer StreamServer) {
	b.mu.Lock()
	closing := b.closing
	if !b.finished {
		b.serving++
		if !closing {
			b.servers = append(b.servers, streamServer)
		}
		go b.serve(streamServer)
	}
	b.mu.Unlock()
	if closing {
		streamServer.Close()
	}
}

// serve takes the streams of a server until there are no more.
func (b *Butler) serve(server StreamServer) {
	defer func() {
		if r := recover(); r != nil {
			b.log.Error("a stream server panicked", "panic", r, "stack", string(debug.Stack()))
			b.shutdown(fault.New(fault.Internal, "butler: a stream server panicked: %v", r))
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.serving--
		b.broadcast()
	}()
	for {
		rc, d := server.Next()
		if rc == nil {
			return
		}
		if err := b.AddStream(rc, d); err != nil {
			b.log.Warn("a stream was refused", "error", err)
			if err := rc.Close(); err != nil {
				b.log.Debug("closing a refused stream", "error", err)
			}
		}
	}
}

// Streams returns a sorted list of stream names that have been registered to the Butler.
func (b *Butler) Streams() []types.StreamName {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names.all()
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

// shutdown ends all streams. The first reason is the one that Wait returns.
func (b *Butler) shutdown(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished {
		return
	}
	if b.err == nil {
		b.err = err
	}
	b.activated = true
	b.cancel()
	b.broadcast()
}

// Wait blocks until the Butler instance has completed, returning with the Butler's return code: the reason of a shutdown, and a
// *LossError if the output lost data. Further calls return the same.
func (b *Butler) Wait() error { return b.wait() }

func (b *Butler) finish() error {
	forever := context.Background() // shutdown ends what is waited for
	_ = b.await(forever, func() bool { return b.activated && b.running == 0 })

	b.mu.Lock()
	b.closing = true
	servers := b.servers
	b.mu.Unlock()
	var closers sync.WaitGroup
	for _, s := range servers {
		closers.Go(s.Close)
	}
	_ = b.await(forever, func() bool {
		b.finished = b.serving == 0 && b.running == 0
		return b.finished
	})
	closers.Wait()
	b.unwatch()

	b.bundler.Flush()
	b.senders.Wait()
	b.watchers.Wait()
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
