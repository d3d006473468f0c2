package bundler

import (
	"bytes"
	"time"
)

// segment is a run of bytes of a block that were read at about the same time.
type segment struct {
	blk    *block
	lo, hi int
	// at is when they were read, since the epoch of the bundler.
	at time.Duration
}

// queue holds the bytes of a stream that are not in an entry yet. Segments of one block are neighbours in it, too.
type queue struct {
	segs []segment
	size int
}

// push appends a segment, and takes over its reference to the block.
func (q *queue) push(s segment) {
	q.size += s.hi - s.lo
	if n := len(q.segs); n > 0 {
		if last := &q.segs[n-1]; last.blk == s.blk && last.at == s.at {
			last.hi = s.hi
			s.blk.release()
			return
		}
	}
	q.segs = append(q.segs, s)
}

// contiguous returns the bytes that lie at the front in one block.
func (q *queue) contiguous() []byte {
	first := &q.segs[0]
	hi := first.hi
	for i := 1; i < len(q.segs) && q.segs[i].blk == first.blk; i++ {
		hi = q.segs[i].hi
	}
	return first.blk.data[first.lo:hi]
}

// peek returns the first n bytes, for an entry of the arena: a slice of a block, which the arena then holds, or a copy in the arena
// when they lie in several.
func (q *queue) peek(n int, a *arena) []byte {
	if c := q.contiguous(); len(c) >= n {
		a.hold(q.segs[0].blk)
		return c[:n:n]
	}
	joined := a.join(n)
	for i := 0; len(joined) < n; i++ {
		s := &q.segs[i]
		joined = append(joined, s.blk.data[s.lo:min(s.hi, s.lo+n-len(joined))]...)
	}
	return joined
}

// index returns the distance of the first c, not looking further than limit bytes, or -1.
func (q *queue) index(c byte, limit int) int {
	at := 0
	for i := range q.segs {
		s := &q.segs[i]
		part := s.blk.data[s.lo:min(s.hi, s.lo+limit-at)]
		if k := bytes.IndexByte(part, c); k >= 0 {
			return at + k
		}
		if at += len(part); at >= limit {
			break
		}
	}
	return -1
}

// consume drops the first n bytes.
func (q *queue) consume(n int) {
	q.size -= n
	drop := 0
	for n > 0 {
		s := &q.segs[drop]
		k := min(n, s.hi-s.lo)
		s.lo += k
		n -= k
		if s.lo == s.hi {
			s.blk.release()
			drop++
		}
	}
	q.drop(drop)
}

// advance is consume within the first segment.
func (q *queue) advance(n int) {
	q.size -= n
	s := &q.segs[0]
	s.lo += n
	if s.lo == s.hi {
		s.blk.release()
		q.drop(1)
	}
}

func (q *queue) drop(n int) {
	if n > 0 {
		k := copy(q.segs, q.segs[n:])
		clear(q.segs[k:])
		q.segs = q.segs[:k]
	}
}
