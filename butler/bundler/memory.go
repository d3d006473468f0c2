package bundler

import (
	"sync"
	"sync/atomic"
)

// Blocks come in sizes of minBlock<<(classShift*class).
const (
	minBlock   = 1 << 10
	classShift = 2
	maxClass   = 4 // 256 KiB
)

// share is the part of the free memory that a single new block may take at most: 1/share. So free memory shrinks
// geometrically and is never used up by streams that merely wait for data.
const share = 16

// block is a piece of memory that is filled from its beginning to its end, once.
type block struct {
	data  []byte
	class int
	// refs counts the reader that fills the block, the segments of its stream's queue, and the bundles with slices of it.
	refs atomic.Int32
	mem  *memory
}

func (b *block) retain() { b.refs.Add(1) }

func (b *block) release() {
	if b.refs.Add(-1) == 0 {
		b.mem.put(b)
	}
}

// memory hands out blocks within a limit, and keeps some for the next one who asks.
type memory struct {
	limit, streamLimit int

	mu sync.Mutex
	// used is the size of the blocks in use, kept of those in free.
	used, kept int
	free       [maxClass + 1][]*block
	// waiters are the streams that got no block, oldest first.
	waiters []*Stream
}

// mayHold reports whether a stream that has buffered some bytes may have another block.
func (m *memory) mayHold(buffered int) bool {
	// Whoever has next to nothing may always go on, so that nobody waits for others' sake.
	return buffered < minBlock || buffered < min(m.streamLimit, m.limit-m.used)
}

// get returns a block of at most the given class. If the stream has its share already, it is noted as a waiter and gets nil.
func (m *memory) get(s *Stream, class int) *block {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mayHold(int(s.buffered.Load())) {
		s.waiting.Store(true)
		m.waiters = append(m.waiters, s)
		return nil
	}
	for class > 0 && minBlock<<(classShift*class) > (m.limit-m.used)/share {
		class--
	}
	size := minBlock << (classShift * class)
	b := m.pop(class)
	if b == nil && class > 0 && m.used+m.kept+size > m.limit {
		// A smaller one that is there is better than a new one that others have to go for.
		b = m.pop(class - 1)
	}
	if b != nil {
		m.used += len(b.data)
		b.refs.Store(1)
		return b
	}
	m.used += size
	for c := range m.free {
		for m.used+m.kept > m.limit && m.pop(c) != nil {
		}
	}
	b = &block{data: make([]byte, size), class: class, mem: m}
	b.refs.Store(1)
	return b
}

// pop takes a block out of those that are kept; nil if there is none of the class.
func (m *memory) pop(class int) *block {
	k := len(m.free[class]) - 1
	if k < 0 {
		return nil
	}
	b := m.free[class][k]
	m.free[class][k] = nil // whether the block is used again or not, nothing here may keep its memory alive
	m.free[class] = m.free[class][:k]
	m.kept -= len(b.data)
	return b
}

// extra returns a block of the smallest size, whatever the limit.
func (m *memory) extra() *block {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += minBlock
	b := &block{data: make([]byte, minBlock), mem: m}
	b.refs.Store(1)
	return b
}

func (m *memory) put(b *block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= len(b.data)
	if m.used+m.kept+len(b.data) <= m.limit {
		m.free[b.class] = append(m.free[b.class], b)
		m.kept += len(b.data)
	}
}

// wake wakes the waiters that may have a block now, oldest first, as far as the memory will go.
func (m *memory) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiters) == 0 {
		return
	}
	left := m.limit - m.used
	still := m.waiters[:0]
	for _, s := range m.waiters {
		buffered := int(s.buffered.Load())
		if buffered >= minBlock && buffered >= min(m.streamLimit, left) {
			still = append(still, s)
			continue
		}
		left -= minBlock << (classShift * min(s.class.Load(), maxClass))
		s.waiting.Store(false)
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
	clear(m.waiters[len(still):])
	m.waiters = still
}

// forget removes a stream from the waiters.
func (m *memory) forget(s *Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, w := range m.waiters {
		if w == s {
			m.waiters = append(m.waiters[:i], m.waiters[i+1:]...)
			break
		}
	}
	s.waiting.Store(false)
}
