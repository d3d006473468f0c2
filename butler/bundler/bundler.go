package bundler

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daybook-dev/daybook/logs/logpb"
)

const (
	// maxBundle bounds the size of bundles for outputs that take any.
	maxBundle = 4 << 20

	defaultStreamBuffer = 5 << 20
	defaultMemory       = 8 << 20
)

// Config is the parameters of a Bundler.
type Config struct {
	// MaxSize is the most bytes of a serialized bundle; zero or less is no limit.
	MaxSize int
	// Delay is how long data may wait for company. With zero, data leaves as soon as Next is called.
	Delay time.Duration
	// Extensions permits announcements, and ends of streams without entries (logpb.ButlerLogBundle_Entry).
	Extensions bool
	// StreamBuffer and Memory are the most bytes that one stream, and all of them, hold; zero is 5 and 8 MiB.
	StreamBuffer, Memory int
}

// Bundler makes bundles of the data of streams.
type Bundler struct {
	maxSize    int
	delay      time.Duration
	extensions bool
	epoch      time.Time
	mem        *memory

	// fresh is the number of bytes that came since Next last looked at their streams.
	fresh atomic.Int64
	wake  chan struct{}

	mu        sync.Mutex
	streams   map[string]*Stream
	flushing  bool
	hurried   bool
	freshList []*Stream // all streams with fresh set, and maybe others; oldest news first
	due       dueHeap

	// By the caller of Next:
	prefixIndex uint64
	timer       *time.Timer
}

// New returns a Bundler without streams.
func New(c Config) *Bundler {
	b := &Bundler{
		maxSize:    maxBundle,
		delay:      max(c.Delay, 0),
		extensions: c.Extensions,
		epoch:      time.Now(),
		mem:        &memory{limit: c.Memory, streamLimit: c.StreamBuffer},
		wake:       make(chan struct{}, 1),
		streams:    make(map[string]*Stream),
	}
	if c.MaxSize > 0 {
		b.maxSize = min(c.MaxSize, maxBundle)
	}
	if b.mem.limit <= 0 {
		b.mem.limit = defaultMemory
	}
	if b.mem.streamLimit <= 0 {
		b.mem.streamLimit = defaultStreamBuffer
	}
	return b
}

// now is the time since the epoch, by the monotonic clock.
func (b *Bundler) now() time.Duration { return time.Since(b.epoch) }

// maxEntry is the most bytes of an entry's content. A bundle with less room is full, so that the room that happens to be left
// never decides where a line or datagram is cut.
func (b *Bundler) maxEntry(t logpb.StreamType) int {
	if t == logpb.StreamType_DATAGRAM {
		return min(256<<10, b.maxSize/4)
	}
	return min(64<<10, b.maxSize/4)
}

// Register adds a stream. The descriptor is copied. Errors say that the descriptor is invalid or too large, or its name taken by a
// stream that has not ended yet.
func (b *Bundler) Register(d *logpb.LogStreamDescriptor) (*Stream, error) {
	s, err := newStream(b, d)
	if err != nil {
		return nil, fmt.Errorf("bundler: register: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flushing {
		return nil, errors.New("bundler: register: no more streams are taken")
	}
	if b.streams[s.desc.GetName()] != nil {
		return nil, fmt.Errorf("bundler: register: there is a stream %q already", s.desc.GetName())
	}
	b.streams[s.desc.GetName()] = s
	if b.extensions {
		s.fresh.Store(true)
		b.enlist(s)
	}
	return s, nil
}

// Flush says that no more streams will be registered, and makes Next return what there is without waiting for company.
func (b *Bundler) Flush() {
	b.mu.Lock()
	b.flushing = true
	b.mu.Unlock()
	b.signal()
}

// Next waits until something is due and returns a bundle of it. After Flush, and when all streams have ended, the error is
// io.EOF; otherwise it is the context's.
func (b *Bundler) Next(ctx context.Context) (*Bundle, error) {
	for {
		wait, done := b.untilDue()
		switch {
		case done:
			return nil, io.EOF
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case wait == 0:
			if bundle := b.build(); bundle != nil {
				return bundle, nil
			}
		default:
			if err := b.sleep(ctx, wait); err != nil {
				return nil, err
			}
		}
	}
}

// forever is the wait for a wake-up alone.
const forever time.Duration = -1

// untilDue returns how long to wait for something to be due, if nothing else happens.
func (b *Bundler) untilDue() (wait time.Duration, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.flushing && len(b.streams) == 0:
		return 0, true
	case len(b.due) == 0:
		return forever, false
	case b.hurried || b.flushing || b.fresh.Load() >= int64(b.maxSize):
		return 0, false
	}
	return max(b.due[0].deadline-b.now(), 0), false
}

func (b *Bundler) sleep(ctx context.Context, d time.Duration) error {
	var expired <-chan time.Time
	if d != forever {
		if b.timer == nil {
			b.timer = time.NewTimer(d)
		} else {
			b.timer.Reset(d)
		}
		defer b.timer.Stop()
		expired = b.timer.C
	}
	select {
	case <-b.wake:
	case <-expired:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// signal makes Next look again.
func (b *Bundler) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// hurry makes Next send what there is, because the stream waits for memory.
func (b *Bundler) hurry(s *Stream) {
	b.mu.Lock()
	b.hurried = true
	s.fresh.Store(true)
	b.enlist(s)
	b.mu.Unlock()
	b.signal()
}

// notify says that a stream has n more bytes, or was closed.
func (b *Bundler) notify(s *Stream, n int) {
	s.freshBytes.Add(int64(n))
	was := b.fresh.Add(int64(n)) - int64(n)
	if !s.fresh.Load() && !s.fresh.Swap(true) {
		b.mu.Lock()
		b.enlist(s)
		b.mu.Unlock()
	}
	if was < int64(b.maxSize) && was+int64(n) >= int64(b.maxSize) {
		b.signal()
	}
}

// enlist puts a stream into the list of those with news, and sees to it that it will be looked at. b.mu is held.
func (b *Bundler) enlist(s *Stream) {
	if !s.listed {
		s.listed = true
		b.freshList = append(b.freshList, s)
	}
	if s.heapIndex >= 0 || s.paused || s.ended {
		return
	}
	at := s.headAt
	if at < 0 {
		at = b.now()
	}
	s.deadline = at + b.delay
	heap.Push(&b.due, s)
	if s.heapIndex == 0 {
		b.signal()
	}
}

func (b *Bundler) setPaused(s *Stream, paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.paused == paused || s.ended {
		return
	}
	s.paused = paused
	if paused {
		b.unschedule(s)
		return
	}
	// Whatever came meanwhile is news.
	if !s.fresh.Swap(true) {
		b.enlist(s)
	} else if s.heapIndex < 0 {
		s.deadline = b.now()
		heap.Push(&b.due, s)
		b.signal()
	}
}

// unschedule makes a stream wait for news. b.mu is held.
func (b *Bundler) unschedule(s *Stream) {
	if s.heapIndex >= 0 {
		heap.Remove(&b.due, s.heapIndex)
	}
}

// dueHeap has the streams that have something to send, the one first whose deadline is next.
type dueHeap []*Stream

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	s := x.(*Stream)
	s.heapIndex = len(*h)
	*h = append(*h, s)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.heapIndex = -1
	return s
}
