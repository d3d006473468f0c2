package bundler

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// MaxDatagramSize is the largest datagram, in bytes.
const MaxDatagramSize = 10 << 20

var (
	errDatagramTooLarge = errors.New("datagram is too large")
	errDatagramOverlong = fmt.Errorf("%w: its length does not fit 64 bits", errDatagramTooLarge)
)

// datagramParser makes entries of datagrams, each of which has its length before it, and fragments of those that do not fit
// (spec butler 7.5).
type datagramParser struct {
	// count is the number of complete datagrams so far.
	count uint64

	// Of the datagram in progress, if begun is true:
	begun bool
	// size and left are its length and how much of it is not in an entry yet.
	size, left int
	// fragments is the number of its entries.
	fragments uint32
	// at is when its first byte was read, until an entry has it.
	at time.Duration
}

func (p *datagramParser) next(q *queue, lim limits, aggressive, closed bool, a *arena) (*slot, error) {
	if !p.begun {
		if err := p.begin(q, closed); err != nil || !p.begun {
			return nil, err
		}
	}
	// Tags and lengths of data and partial take at most 6 and 26 bytes.
	n := min(p.left, lim.raw, lim.encoded-32, q.size)
	if n < 0 || n == 0 && p.left > 0 {
		return nil, nil
	}
	if n < p.left {
		if !aggressive {
			return nil, nil
		}
		n = q.cut(n)
	}

	s := a.slot()
	s.at = p.at
	s.raw = n
	s.dgram.Data, s.dgram.Partial = nil, nil
	s.encoded = 0
	if n > 0 {
		if p.fragments > 0 {
			s.at = q.segs[0].at
		}
		s.dgram.Data = q.peek(n, a)
		s.encoded = fieldSize(n)
		q.consume(n)
	}
	p.left -= n
	if p.left > 0 || p.fragments > 0 {
		s.partial.Index, s.partial.Size, s.partial.Last = p.fragments, uint64(p.size), p.left == 0
		s.dgram.Partial = &s.partial
		s.encoded += partialSize(p.fragments, p.size, p.left == 0)
	}
	s.dgramC.Datagram = &s.dgram
	s.entry.Content = &s.dgramC
	s.entry.Sequence = p.count
	p.fragments++
	if p.left == 0 {
		p.begun = false
		p.count++
	}
	return s, nil
}

// begin takes the length of the next datagram, if it is there.
func (p *datagramParser) begin(q *queue, closed bool) error {
	var head [binary.MaxVarintLen64]byte
	n := 0
	for i := 0; i < len(q.segs) && n < len(head); i++ {
		s := &q.segs[i]
		n += copy(head[n:], s.blk.data[s.lo:s.hi])
	}
	size, k := binary.Uvarint(head[:n])
	switch {
	case k < 0 || k == 0 && n == len(head):
		return errDatagramOverlong
	case k == 0:
		if closed {
			q.consume(n) // a length that was cut off says nothing
		}
		return nil
	case size > MaxDatagramSize:
		return fmt.Errorf("%w: %d bytes; at most %d are allowed", errDatagramTooLarge, size, MaxDatagramSize)
	}
	*p = datagramParser{count: p.count, begun: true, size: int(size), left: int(size), at: q.segs[0].at}
	q.consume(k)
	return nil
}

func partialSize(index uint32, size int, last bool) int {
	n := 1 + varintSize(uint64(size))
	if index > 0 {
		n += 1 + varintSize(uint64(index))
	}
	if last {
		n += 2
	}
	return fieldSize(n)
}
