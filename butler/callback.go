package butler

import (
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// StreamRegistrationCallback is a callback to invoke when a new stream is registered with this butler.
//
// Expects passed *logpb.LogStreamDescriptor reference to be safe to keep, and should treat it as read-only.
type StreamRegistrationCallback func(*logpb.LogStreamDescriptor) StreamChunkCallback

// StreamChunkCallback is a callback to invoke on a complete LogEntry. The entry is the callback's own.
//
// Called once with nil when this stream has come to an end.
//
// Each stream's callback runs in a goroutine of its own. One that is slow holds up its stream alone, by way of the stream's
// buffer; one that panics is not called again.
type StreamChunkCallback func(*logpb.LogEntry)

// registration is a callback as added.
type registration struct {
	cb   StreamRegistrationCallback
	wrap bool
}

// AddStreamRegistrationCallback adds a new callback to this Butler.
//
// The callback is called on new streams and returns a chunk callback to attach to the stream or nil if you don't want to monitor
// the stream.
//
// If multiple callbacks are all interested in the same stream, the first one wins.
//
// # Wrapping
//
// If `wrap` is true, the callback is wrapped internally to buffer LogEntries until they're complete.
//
// In wrapped callbacks for text and datagram streams, LogEntry .TimeOffset, .PrefixIndex and .ContentOffset will be 0.
// .StreamIndex and .Sequence WILL NOT correspond to the values that the logdog service sees. They will, however, be internally
// consistent within the stream. A line or datagram is held in memory until it is complete, however long it is.
//
// Wrapped datagram streams never send a partial datagram; if the logdog server or stream is shut down while we have a partial
// datagram buffered, the partially buffered datagram will not be observed by the buffered callback.
//
// Wrapping a binary stream is a noop (i.e. your callback will see the exact same values wrapped and unwrapped).
//
// When the stream ends (either due to EOF from the user, or when the butler is stopped), your callback will be invoked exactly
// once with `nil`.
func (b *Butler) AddStreamRegistrationCallback(cb StreamRegistrationCallback, wrap bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.callbacks = append(b.callbacks, registration{cb, wrap})
}

// register asks the registration callbacks who wants the stream.
func (b *Butler) register(d *logpb.LogStreamDescriptor) StreamChunkCallback {
	b.mu.Lock()
	callbacks := b.callbacks
	b.mu.Unlock()
	for _, r := range callbacks {
		if cb := b.ask(r.cb, proto.CloneOf(d)); cb != nil {
			if r.wrap {
				cb = wrap(cb, d.GetStreamType())
			}
			return cb
		}
	}
	return nil
}

// ask calls a registration callback. One that panics does not want the stream.
func (b *Butler) ask(cb StreamRegistrationCallback, d *logpb.LogStreamDescriptor) StreamChunkCallback {
	defer func() {
		if r := recover(); r != nil {
			b.log.Error("a registration callback panicked", "stream", d.GetName(), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return cb(d)
}

// watcherBuffer is how many bytes of entries may wait for a callback before its stream is paused.
const watcherBuffer = 1 << 20

// watcher feeds the callback of one stream.
type watcher struct {
	b      *Butler
	stream *stream
	cb     StreamChunkCallback
	// wake receives when there is something to do.
	wake chan struct{}

	mu     sync.Mutex
	queue  []*logpb.LogEntry
	size   int
	paused *bundler.Stream // to be resumed when the queue is empty
	ended  bool
	// called is when the callback was called that has not returned yet.
	called time.Time
}

// watch starts a watcher, which drains the stream when its callback has seen the end.
func (b *Butler) watch(cb StreamChunkCallback, e *stream) *watcher {
	w := &watcher{b: b, stream: e, cb: cb, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.watchers[w] = struct{}{}
	b.mu.Unlock()
	go func() {
		defer b.drain(e)
		w.run()
	}()
	return w
}

// add queues copies of entries, since those of a bundle do not live long.
func (w *watcher) add(s *bundler.Stream, entries []*logpb.LogEntry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return // it was left
	}
	for _, e := range entries {
		w.queue = append(w.queue, proto.CloneOf(e))
		w.size += proto.Size(e)
	}
	if w.size >= watcherBuffer && w.paused == nil {
		w.paused = s
		s.Pause()
	}
	w.signal()
}

// end says that the callback gets its end after what is queued.
func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.signal()
}

func (w *watcher) hasEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what is queued, and whether it is the last.
func (w *watcher) take() (entries []*logpb.LogEntry, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entries, w.queue, w.size = w.queue, nil, 0
	return entries, w.ended
}

// resume lets a paused stream go on, if nothing is queued.
func (w *watcher) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused != nil && len(w.queue) == 0 {
		w.paused.Resume()
		w.paused = nil
	}
}

// busy returns for how long the callback has not returned.
func (w *watcher) busy() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.called.IsZero() {
		return 0
	}
	return time.Since(w.called)
}

// leave stops waiting for a callback that does not return. If it ever does, it gets what is queued, and its end.
func (w *watcher) leave() {
	w.mu.Lock()
	w.ended = true
	if w.paused != nil {
		w.paused.Resume()
		w.paused = nil
	}
	w.signal()
	w.mu.Unlock()
	w.b.log.Error("a callback does not return and was left behind", "stream", w.stream.name)
	w.b.drain(w.stream)
}

func (w *watcher) run() {
	broken := false
	call := func(entry *logpb.LogEntry) {
		if broken {
			return
		}
		w.setCalled(time.Now())
		defer w.setCalled(time.Time{})
		defer func() {
			if r := recover(); r != nil {
				broken = true
				w.b.log.Error("a callback panicked", "stream", w.stream.name, "panic", r, "stack", string(debug.Stack()))
			}
		}()
		w.cb(entry)
	}
	for range w.wake {
		entries, last := w.take()
		for _, entry := range entries {
			call(entry)
		}
		if last {
			call(nil)
			return
		}
		w.resume()
	}
}

func (w *watcher) setCalled(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = t
}
