package bundler

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

const (
	slotsPerSlab = 32
	linesPerSlab = 2048
	// minRun is the least number of lines that an entry has room for, should it have so many.
	minRun = 64
	// maxSlots and maxLineSlabs bound the memory of a bundle, however small its entries and lines are.
	maxSlots     = 4096
	maxLineSlabs = 8
	// leastJoined and mostJoined bound the memory for joined data, unless an entry needs more.
	leastJoined, mostJoined = 4 << 10, 512 << 10
)

// slot is an entry with all that it may consist of, but its lines.
type slot struct {
	entry   logpb.LogEntry
	offset  durationpb.Duration
	text    logpb.Text
	textC   logpb.LogEntry_Text
	binary  logpb.Binary
	binaryC logpb.LogEntry_Binary
	dgram   logpb.Datagram
	dgramC  logpb.LogEntry_Datagram
	partial logpb.Datagram_Partial

	// at is when the first byte was read, since the epoch of the bundler.
	at time.Duration
	// raw is the number of bytes of content.
	raw int
	// encoded is the size of the serialized content, without its tag and length.
	encoded int
}

// lineSlab is a number of lines, and pointers to each of them to make slices of.
type lineSlab struct {
	lines [linesPerSlab]logpb.Text_Line
	ptrs  [linesPerSlab]*logpb.Text_Line
}

// arena is the memory of the entries of one bundle. It is used again for another bundle, so that neither a line nor an entry
// costs an allocation.
type arena struct {
	slots    []*[slotsPerSlab]slot
	numSlots int
	slabs    []*lineSlab
	// used counts the lines in use of the slabs up to the current one.
	used   int
	blocks []*block
	// joined is memory for what lies in several blocks.
	joined []byte
}

var arenas = sync.Pool{New: func() any { return new(arena) }}

// full reports whether there might be no room for another entry.
func (a *arena) full() bool {
	return a.numSlots >= maxSlots || a.used > maxLineSlabs*linesPerSlab-minRun
}

// slot returns the next slot. Its fields may have any values.
func (a *arena) slot() *slot {
	i, k := a.numSlots/slotsPerSlab, a.numSlots%slotsPerSlab
	if i == len(a.slots) {
		a.slots = append(a.slots, new([slotsPerSlab]slot))
	}
	a.numSlots++
	return &a.slots[i][k]
}

func (a *arena) at(i int) *slot { return &a.slots[i/slotsPerSlab][i%slotsPerSlab] }

// run returns a slab and the index of its first free line; at least minRun are free.
func (a *arena) run() (s *lineSlab, from int) {
	if rest := linesPerSlab - a.used%linesPerSlab; rest < minRun {
		a.used += rest
	}
	i := a.used / linesPerSlab
	if i == len(a.slabs) {
		s := new(lineSlab)
		for k := range s.lines {
			s.ptrs[k] = &s.lines[k]
		}
		a.slabs = append(a.slabs, s)
	}
	return a.slabs[i], a.used % linesPerSlab
}

// hold keeps a block until the arena is released.
func (a *arena) hold(b *block) {
	if n := len(a.blocks); n > 0 && a.blocks[n-1] == b {
		return
	}
	b.retain()
	a.blocks = append(a.blocks, b)
}

// join returns memory for n bytes, with nothing in it.
func (a *arena) join(n int) []byte {
	if cap(a.joined)-len(a.joined) < n {
		a.joined = make([]byte, 0, max(n, min(2*cap(a.joined), mostJoined), leastJoined))
	}
	from := len(a.joined)
	a.joined = a.joined[:from+n]
	return a.joined[from : from : from+n]
}

func (a *arena) release() {
	for _, b := range a.blocks {
		b.release()
	}
	clear(a.blocks)
	a.blocks = a.blocks[:0]
	a.numSlots, a.used, a.joined = 0, 0, a.joined[:0]
	arenas.Put(a)
}
