package bundler

import (
	"math/bits"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// limits is how much an entry may take.
type limits struct {
	// raw bytes of content.
	raw int
	// encoded bytes of content, as serialized.
	encoded int
}

// parser cuts the bytes of a stream into entries (spec butler 7.2).
type parser interface {
	// next takes the next entry from the queue, or returns nil when there is not enough data for one. It leaves time and indices,
	// but for the sequence, to the caller. If aggressive, data may be split wherever necessary; closed, which implies aggressive,
	// says that no more data follows: what cannot become an entry is then dropped, and the queue is empty when next returns
	// nil although there is room.
	// An error is fatal to the stream.
	next(q *queue, lim limits, aggressive, closed bool, a *arena) (*slot, error)
}

func newParser(t logpb.StreamType) parser {
	switch t {
	case logpb.StreamType_BINARY:
		return new(binaryParser)
	case logpb.StreamType_DATAGRAM:
		return new(datagramParser)
	default:
		return new(textParser)
	}
}

// contiguousEnough is the number of bytes from which on an entry that may be cut anywhere is cut at the end of a block, to save
// a copy.
const contiguousEnough = 4 << 10

// cut returns how many of n bytes to take, so that they need no copying if possible.
func (q *queue) cut(n int) int {
	if c := len(q.contiguous()); c < n && c >= contiguousEnough {
		return c
	}
	return n
}

func varintSize(v uint64) int { return (9*bits.Len64(v) + 64) / 64 }

// fieldSize is the size of a length-delimited field with a small number.
func fieldSize(n int) int { return 1 + varintSize(uint64(n)) + n }
