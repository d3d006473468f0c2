package bundler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// mergeWindow is how far apart in time reads may be that count as one, so that their lines share an entry.
	mergeWindow = 5 * time.Millisecond
	// A block that was filled in less time than fast makes the stream's next one larger; in more than slow, smaller.
	fast, slow = 50 * time.Millisecond, 2 * time.Second
)

// ErrClosed is returned by Buffer after Close.
var ErrClosed = errors.New("bundler: stream is closed")

// Stream is a stream of a Bundler, from Register to the Bundle that has it in Ended.
type Stream struct {
	b    *Bundler
	desc *logpb.LogStreamDescriptor
	// descSize is the size of a bundle's entry with nothing but the descriptor.
	descSize int
	// shift is what to add to times since the bundler's epoch to get offsets from the descriptor's timestamp.
	shift time.Duration
	// maxEntry is the most bytes of content of an entry.
	maxEntry int

	// The block that is being filled belongs to the caller of Buffer and Commit.
	tail     *block
	tailFill int
	// tailBegun is when the first byte of tail was read.
	tailBegun time.Duration
	// class is the class of the next block. It is atomic for memory.wake alone.
	class atomic.Int32
	// runAt is the time of the run of reads that count as one.
	runAt time.Duration

	// buffered is the number of bytes that are in no entry yet.
	buffered atomic.Int64
	// room receives when the stream may ask for memory again; waiting says that it does.
	room    chan struct{}
	waiting atomic.Bool
	// failed is closed when err is set.
	failed chan struct{}

	mu     sync.Mutex
	in     []segment // committed, not in the queue yet
	closed bool
	err    error
	// info is what is said of the end.
	info *logpb.StreamEnd

	// fresh says that there is news since the stream was last looked at; freshBytes of them are data.
	fresh      atomic.Bool
	freshBytes atomic.Int64

	// Under the bundler's mutex:
	listed    bool // in the list of those with news
	heapIndex int  // -1: not in the heap
	deadline  time.Duration
	headAt    time.Duration // when the first byte of the queue was read; negative if there is none
	paused    bool

	// By the caller of Next:
	q          queue
	parser     parser
	next       uint64        // index of the next entry
	content    uint64        // bytes of content so far
	lastOffset time.Duration // of the last entry
	announced  bool
	ended      bool
	current    *logpb.ButlerLogBundle_Entry // in the bundle that is being made
}

// Desc returns the descriptor, without its prefix. It must not be changed.
func (s *Stream) Desc() *logpb.LogStreamDescriptor { return s.desc }

// Name returns the name of the stream.
func (s *Stream) Name() types.StreamName { return types.StreamName(s.desc.GetName()) }

// Err returns the error that ended the stream early, because its data was malformed.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Buffer returns memory to read into, at least one byte. It waits while the stream has more than its share of the memory. The
// result is valid until the next Buffer or Close.
func (s *Stream) Buffer(ctx context.Context) ([]byte, error) {
	for {
		p, err := s.tryBuffer()
		if p != nil || err != nil {
			return p, err
		}
		s.b.hurry(s)
		select {
		case <-s.room:
		case <-s.failed:
			s.b.mem.forget(s)
		case <-ctx.Done():
			s.b.mem.forget(s)
			return nil, ctx.Err()
		}
	}
}

// TryBuffer is Buffer that does not wait: it returns nil while there is no memory for the stream.
func (s *Stream) TryBuffer() ([]byte, error) {
	p, err := s.tryBuffer()
	if p == nil && err == nil {
		s.b.hurry(s)
		s.b.mem.forget(s)
	}
	return p, err
}

// tryBuffer leaves the stream waiting for memory if there is none.
func (s *Stream) tryBuffer() ([]byte, error) {
	if s.tail != nil {
		if rest := s.tail.data[s.tailFill:]; len(rest) >= len(s.tail.data)/8 {
			return rest, s.refused()
		}
		s.retire()
	}
	if err := s.refused(); err != nil {
		return nil, err
	}
	if s.tail = s.b.mem.get(s, int(s.class.Load())); s.tail != nil {
		s.tailFill = 0
		return s.tail.data, nil
	}
	return nil, nil
}

// refused returns why the stream takes no more data.
func (s *Stream) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.closed:
		return ErrClosed
	}
	return nil
}

// retire gives up the block that is being filled, and chooses the size of the next one.
func (s *Stream) retire() {
	took := s.b.now() - s.tailBegun
	class := int32(s.tail.class)
	switch {
	case took < fast:
		class = min(class+1, maxClass)
	case took > slow:
		class = max(class-1, 0)
	}
	s.class.Store(class)
	s.tail.release()
	s.tail = nil
}

// Commit says that the first n bytes of the buffer are data of the stream, and were read just now. After Abandon it does nothing.
func (s *Stream) Commit(n int) {
	if n == 0 {
		return
	}
	now := s.b.now()
	if s.tailFill == 0 {
		s.tailBegun = now
	}
	if now-s.runAt >= mergeWindow {
		s.runAt = now
	}
	s.tail.retain()
	seg := segment{blk: s.tail, lo: s.tailFill, hi: s.tailFill + n, at: s.runAt}
	s.tailFill += n

	s.mu.Lock()
	if s.err != nil || s.closed {
		s.mu.Unlock()
		seg.blk.release()
		return
	}
	s.push(seg)
	s.mu.Unlock()
	s.b.notify(s, n)
}

// push queues data. s.mu is held.
func (s *Stream) push(seg segment) {
	s.buffered.Add(int64(seg.hi - seg.lo))
	if k := len(s.in) - 1; k >= 0 && s.in[k].blk == seg.blk && s.in[k].at == seg.at {
		s.in[k].hi = seg.hi
		seg.blk.release()
		return
	}
	s.in = append(s.in, seg)
}

// Close says that there is no more data. It may be called several times, by the caller of Buffer and Commit or after it is
// done.
func (s *Stream) Close() {
	if s.tail != nil {
		s.tail.release()
		s.tail = nil
	}
	s.end("", nil)
}

// SetEnd says something about the end of the stream, if the receiver knows the extensions. It must be called before Close, and the
// message, which should be small, not be changed any more. After Abandon it does nothing.
func (s *Stream) SetEnd(info *logpb.StreamEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.info = info
	}
}

// endInfo is what is to be said of the end. A stream that failed has that as its reason.
func (s *Stream) endInfo() *logpb.StreamEnd {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || s.info.GetReason() != "" {
		return s.info
	}
	return &logpb.StreamEnd{Reason: "cut off: " + errors.Unwrap(s.err).Error(), Tags: s.info.GetTags()}
}

// Abandon is SetEnd and Close for a stream whose reader is stuck, and may be called by anybody. A note of at most 1 KiB is put behind
// the data. Whoever fills the buffer may go on with that; nothing of it counts, and it still has to Close.
func (s *Stream) Abandon(note string, info *logpb.StreamEnd) { s.end(note, info) }

func (s *Stream) end(note string, info *logpb.StreamEnd) {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	if !was && info != nil {
		s.info = info
	}
	n := 0
	if !was && s.err == nil && note != "" {
		blk := s.b.mem.extra()
		n = copy(blk.data, note)
		s.push(segment{blk: blk, hi: n, at: s.b.now()})
	}
	s.mu.Unlock()
	if !was {
		s.b.notify(s, n)
	}
}

// Pause keeps the stream's data out of bundles until Resume, so that its reader waits once its share of the memory is used.
func (s *Stream) Pause() { s.b.setPaused(s, true) }

// Resume ends Pause.
func (s *Stream) Resume() { s.b.setPaused(s, false) }

// take moves what was committed to the queue.
func (s *Stream) take() (closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.in {
		s.q.push(s.in[i])
	}
	clear(s.in)
	s.in = s.in[:0]
	return s.closed
}

// fail ends the stream early and drops what it has buffered.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	s.err = fmt.Errorf("stream %q: %w", s.desc.GetName(), err)
	for i := range s.in {
		s.q.push(s.in[i])
	}
	s.in = nil
	s.mu.Unlock()
	s.q.consume(s.q.size)
	s.buffered.Store(0)
	close(s.failed)
}

func newStream(b *Bundler, d *logpb.LogStreamDescriptor) (*Stream, error) {
	if err := logpb.ValidateDescriptor(d, false); err != nil {
		return nil, err
	}
	d = proto.CloneOf(d)
	d.Prefix = ""
	s := &Stream{
		b:         b,
		desc:      d,
		descSize:  fieldSize(proto.Size(d)),
		shift:     b.epoch.Sub(d.GetTimestamp().AsTime()),
		maxEntry:  b.maxEntry(d.GetStreamType()),
		room:      make(chan struct{}, 1),
		failed:    make(chan struct{}),
		runAt:     -mergeWindow,
		heapIndex: -1,
		headAt:    -1,
		parser:    newParser(d.GetStreamType()),
	}
	if s.descSize > b.maxSize/2 {
		return nil, fmt.Errorf("descriptor of %d bytes does not fit into bundles of %d", s.descSize, b.maxSize)
	}
	return s, nil
}
