package client

import (
	"testing"
	"time"
)

// On any connection that is faster than brokers demand, every message arrives within a second.
func TestChunking(t *testing.T) {
	for _, c := range []struct {
		rate  int // bytes a second
		least int // that messages should come to
	}{
		{100 << 10, minChunk}, {1 << 20, 64 << 10}, {4 << 20, 256 << 10}, {100 << 20, chunkSize}, {1 << 30, chunkSize},
	} {
		var ch chunking
		largest := 0
		for range 50 {
			n := ch.size()
			took := time.Duration(n) * time.Second / time.Duration(c.rate)
			if took > 500*time.Millisecond || n < minChunk || n > chunkSize {
				t.Fatalf("at %d bytes a second a message of %d bytes takes %v", c.rate, n, took)
			}
			largest = max(largest, n)
			ch.sent(n, took)
		}
		if largest < c.least {
			t.Errorf("at %d bytes a second messages come to %d bytes", c.rate, largest)
		}
	}
	// A connection that becomes slow gets small messages again, and the last message of an append says nothing.
	ch := chunking{doubled: 4}
	for range 4 {
		ch.sent(chunkSize, time.Second)
	}
	ch.sent(10, 0)
	if ch.size() != minChunk {
		t.Errorf("%d bytes", ch.size())
	}
}
