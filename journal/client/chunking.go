package client

import "time"

const (
	// chunkSize is the most bytes of content in a message. Larger ones save little and come closer to the limit of brokers.
	chunkSize = minChunk << 4
	// minChunk is what every broker gets in time that gets anything in time: half a second's worth of the least rate they demand. With
	// what goes before the content, a message fits a buffer whose size is a power of two, as gRPC has them.
	minChunk = 32<<10 - 32
	// chunkTime is how long a message should take. Brokers count whole messages, and cut off an append of which they have got
	// too little for a second.
	chunkTime = 200 * time.Millisecond
	// buffered is what may be on its way, in buffers of this machine and others, while sending seems to take no time.
	buffered = 8 << 20
)

// chunking finds how large messages may be for a connection of unknown speed. The zero value begins with small ones.
type chunking struct {
	doubled int
	total   int64 // bytes sent since anything was slow
}

// size returns the size of the next message.
func (c *chunking) size() int { return minChunk << c.doubled }

// sent learns how long a message of n bytes took.
func (c *chunking) sent(n int, took time.Duration) {
	c.total += int64(n)
	switch {
	case took > chunkTime:
		c.doubled, c.total = max(0, c.doubled-1), 0
	case took < chunkTime/4 && n >= c.size() && c.size() < chunkSize && c.total > buffered:
		c.doubled++
	}
}

// answered learns how long it took until a broker had got n bytes and had answered.
func (c *chunking) answered(n int64, took time.Duration) {
	took = max(took, time.Microsecond)
	for c.size() < chunkSize && n >= 4*minChunk && float64(n)/took.Seconds() >= 2*float64(c.size())/chunkTime.Seconds() {
		c.doubled++
	}
}
