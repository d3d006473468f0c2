package bundler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// Bundle is some data of some streams.
type Bundle struct {
	// Proto is the message, without project, prefix and secret. It has no entries when only streams ended of which the
	// receiver does not know. Its contents are valid until Release.
	Proto *logpb.ButlerLogBundle
	// Streams has the stream of each entry of Proto.
	Streams []*Stream
	// Ended are the streams of which this is the last one hears.
	Ended []*Stream

	b     *Bundler
	arena *arena
}

// Release gives the memory of the bundle back. It is called once.
func (u *Bundle) Release() {
	u.arena.release()
	u.b.mem.wake()
}

const (
	// bundleOverhead, streamOverhead and entryOverhead are the most bytes of a bundle besides its streams, of a stream besides its
	// descriptor and entries, and of an entry besides its content.
	bundleOverhead = 32
	streamOverhead = 32
	entryOverhead  = 96
)

// builder makes one bundle.
type builder struct {
	b     *Bundler
	out   *Bundle
	arena *arena
	// now is when it began; flush says that all data is to be sent.
	now   time.Duration
	flush bool
	// size is the most bytes that the bundle can have so far.
	size int
	// wake says that a stream waits for memory.
	wake bool
}

// build makes a bundle of what is due, and of what else there is as far as there is room. It returns nil if there is
// nothing to send.
func (b *Bundler) build() *Bundle {
	a := arenas.Get().(*arena)
	d := builder{b: b, arena: a, out: &Bundle{b: b, arena: a}, now: b.now(), size: bundleOverhead}
	b.mu.Lock()
	b.hurried = false
	d.flush = b.flushing
	b.mu.Unlock()

	full := false
	for !full {
		s := d.nextDue()
		if s == nil {
			break
		}
		full = d.pull(s)
	}
	for !full {
		s := d.nextFresh()
		if s == nil {
			break
		}
		full = d.pull(s)
	}
	if d.wake {
		b.mem.wake()
	}
	if len(d.out.Streams) == 0 && len(d.out.Ended) == 0 {
		a.release()
		return nil
	}
	d.finish()
	return d.out
}

// nextDue returns the stream whose deadline passed first.
func (d *builder) nextDue() *Stream {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if len(d.b.due) == 0 || d.b.due[0].deadline > d.now && !d.flush {
		return nil
	}
	return heap.Pop(&d.b.due).(*Stream)
}

// nextFresh returns a stream with news.
func (d *builder) nextFresh() *Stream {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for len(d.b.freshList) > 0 {
		s := d.b.freshList[0]
		d.b.freshList[0] = nil
		d.b.freshList = d.b.freshList[1:]
		s.listed = false
		if s.fresh.Load() {
			return s
		}
	}
	d.b.freshList = nil
	return nil
}

// pull takes entries of a stream into the bundle until there are no more, or no more room, in which case full is true.
func (d *builder) pull(s *Stream) (full bool) {
	if s.ended {
		s.fresh.Store(false)
		return false
	}
	s.fresh.Store(false)
	d.b.fresh.Add(-s.freshBytes.Swap(0))
	closed := s.take()
	before := s.q.size
	if !d.b.isPaused(s) {
		full = d.entries(s, closed)
	}
	failed := s.Err() != nil
	if !failed {
		s.buffered.Add(int64(s.q.size - before))
	}
	d.wake = d.wake || s.waiting.Load()
	ended := !full && (failed || closed && s.q.size == 0) && !d.b.isPaused(s)
	if ended {
		d.end(s)
	} else if !full && !s.announced && d.b.extensions {
		d.mention(s).Announce = true
	}
	switch {
	case ended:
		d.b.forget(s)
	case full:
		d.b.schedule(s, d.now) // the next bundle goes on
	case s.q.size > 0 && !d.overdue(s):
		d.b.schedule(s, s.q.segs[0].at+d.b.delay)
	default:
		d.b.schedule(s, never) // what is left of it is half of something
	}
	return full
}

// entries takes the entries of a stream.
func (d *builder) entries(s *Stream, closed bool) (full bool) {
	lim := limits{raw: s.maxEntry, encoded: s.maxEntry}
	for {
		if !d.hasRoom(s) {
			return true
		}
		e, err := s.parser.next(&s.q, lim, false, false, d.arena)
		if e == nil && err == nil && s.q.size > 0 && (closed || d.mustSplit(s)) {
			e, err = s.parser.next(&s.q, lim, true, closed, d.arena)
		}
		if err != nil {
			s.fail(err)
			return false
		}
		if e == nil {
			return false
		}
		d.add(s, e)
	}
}

// mustSplit reports whether the data of a stream has to leave as it is.
func (d *builder) mustSplit(s *Stream) bool {
	return d.flush || d.overdue(s) || s.q.size >= s.maxEntry || s.waiting.Load()
}

func (d *builder) overdue(s *Stream) bool {
	return s.q.size > 0 && s.q.segs[0].at+d.b.delay <= d.now
}

func (d *builder) hasRoom(s *Stream) bool {
	need := s.maxEntry + entryOverhead
	if s.current == nil {
		need += s.descSize + streamOverhead
	}
	return d.size+need <= d.b.maxSize && !d.arena.full()
}

// mention returns the stream's entry of the bundle.
func (d *builder) mention(s *Stream) *logpb.ButlerLogBundle_Entry {
	if s.current == nil {
		s.current = &logpb.ButlerLogBundle_Entry{Desc: s.desc}
		s.announced = true
		d.out.Streams = append(d.out.Streams, s)
		d.size += s.descSize + streamOverhead
	}
	return s.current
}

// add puts an entry into the bundle.
func (d *builder) add(s *Stream, e *slot) {
	// Neither a clock that was set nor a descriptor of the future makes time run backwards.
	s.lastOffset = max(s.lastOffset, e.at+s.shift)
	e.offset.Seconds, e.offset.Nanos = int64(s.lastOffset/time.Second), int32(s.lastOffset%time.Second)
	e.entry.TimeOffset = &e.offset
	e.entry.StreamIndex = s.next
	e.entry.ContentOffset = s.content
	s.next++
	s.content += uint64(e.raw)

	m := d.mention(s)
	m.Logs = append(m.Logs, &e.entry)
	d.size += fieldSize(e.size(d.b.prefixIndex + maxSlots))
}

// size is the size of the serialized entry, if its prefix index were the given one.
func (e *slot) size(prefixIndex uint64) int {
	offset := 0
	if e.offset.Seconds != 0 {
		offset += 1 + varintSize(uint64(e.offset.Seconds))
	}
	if e.offset.Nanos != 0 {
		offset += 1 + varintSize(uint64(e.offset.Nanos))
	}
	n := fieldSize(offset) + fieldSize(e.encoded) + 1 + varintSize(prefixIndex)
	if e.entry.StreamIndex != 0 {
		n += 1 + varintSize(e.entry.StreamIndex)
	}
	if e.entry.Sequence != 0 {
		n += 1 + varintSize(e.entry.Sequence)
	}
	if e.entry.ContentOffset != 0 {
		n += 2 + varintSize(e.entry.ContentOffset)
	}
	return n
}

// end puts the end of a stream into the bundle.
func (d *builder) end(s *Stream) {
	d.out.Ended = append(d.out.Ended, s)
	switch {
	case s.next > 0:
		m := d.mention(s)
		m.Terminal, m.TerminalIndex = true, s.next-1
	case d.b.extensions:
		m := d.mention(s)
		m.Terminal, m.TerminalEmpty = true, true
	}
	if ended := s.endInfo(); ended != nil && s.current != nil && d.b.extensions {
		// Where an entry had room, this has.
		s.current.Ended = ended
		d.size += fieldSize(proto.Size(ended)) + 1
	}
}

// finish numbers the entries by the time at which they were read, and puts the message together.
func (d *builder) finish() {
	a := d.arena
	if len(d.out.Streams) > 1 {
		order := make([]*slot, a.numSlots)
		for i := range order {
			order[i] = a.at(i)
		}
		slices.SortStableFunc(order, func(x, y *slot) int { return cmp.Compare(x.at, y.at) })
		for i, e := range order {
			e.entry.PrefixIndex = d.b.prefixIndex + uint64(i)
		}
		slices.SortFunc(d.out.Streams, func(x, y *Stream) int { return cmp.Compare(x.desc.GetName(), y.desc.GetName()) })
	} else {
		for i := range a.numSlots {
			a.at(i).entry.PrefixIndex = d.b.prefixIndex + uint64(i)
		}
	}
	d.b.prefixIndex += uint64(a.numSlots)

	d.out.Proto = &logpb.ButlerLogBundle{
		Timestamp: timestamppb.New(d.b.epoch.Add(d.now)),
		Entries:   make([]*logpb.ButlerLogBundle_Entry, len(d.out.Streams)),
	}
	for i, s := range d.out.Streams {
		d.out.Proto.Entries[i] = s.current
		s.current = nil
	}
}

func (b *Bundler) isPaused(s *Stream) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.paused
}

// never is the deadline of a stream that has to wait for news.
const never time.Duration = -1

// schedule says when a stream that was just looked at is due again.
func (b *Bundler) schedule(s *Stream, deadline time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.headAt = -1
	if s.q.size > 0 {
		s.headAt = s.q.segs[0].at
	}
	if deadline == never && s.fresh.Load() {
		deadline = b.now() + b.delay // there was news after the look
	}
	switch {
	case s.paused || deadline == never:
		b.unschedule(s)
	case s.heapIndex >= 0:
		s.deadline = deadline
		heap.Fix(&b.due, s.heapIndex)
	default:
		s.deadline = deadline
		heap.Push(&b.due, s)
	}
}

// forget drops a stream that has ended.
func (b *Bundler) forget(s *Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.ended = true
	delete(b.streams, s.desc.GetName())
	b.unschedule(s)
}
