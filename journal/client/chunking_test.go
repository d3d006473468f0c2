package client

import (
	"testing"
	"time"
)

// On any connection that is faster than brokers demand every message arrives within a second, however much is buffered on the way.
func TestChunking(t *testing.T) {
	for _, rate := range []int{70 << 10, 150 << 10, 1 << 20, 4 << 20, 100 << 20, 1 << 30} { // bytes a second
		for _, room := range []int{0, 64 << 10, 4 << 20} { // in buffers
			var ch chunking
			backlog, largest := time.Duration(0), 0
			perByte := time.Second / time.Duration(rate)
			if perByte == 0 {
				perByte = 1
			}
			for range 2000 {
				n := ch.size()
				largest = max(largest, n)
				transfer := time.Duration(n) * perByte
				if transfer > 700*time.Millisecond || n < minChunk || n > chunkSize {
					t.Fatalf("at %d bytes a second with %d of buffers a message of %d bytes takes %v", rate, room, n, transfer)
				}
				// It is sent at once as long as there is room, and else as others arrive.
				backlog += transfer
				took := max(0, backlog-time.Duration(room)*perByte)
				backlog -= took
				ch.sent(n, took)
			}
			if rate >= 100<<20 && largest != chunkSize {
				t.Errorf("at %d bytes a second messages come to %d bytes", rate, largest)
			}
		}
	}
}

// An answer says how fast a connection is at least.
func TestChunkingByAnswers(t *testing.T) {
	for _, c := range []struct {
		n    int64
		took time.Duration
		want int
	}{
		{100 << 10, 0, minChunk}, // Too little to say.
		{1 << 20, time.Second, 4 * minChunk},
		{1 << 20, 10 * time.Second, minChunk},
		{64 << 20, time.Second, chunkSize},
	} {
		var ch chunking
		if ch.answered(c.n, c.took); ch.size() != c.want {
			t.Errorf("%d bytes in %v: messages of %d bytes", c.n, c.took, ch.size())
		}
	}
	// A connection that becomes slow gets small messages again, and the last message of an append says nothing.
	ch := chunking{doubled: 4, total: buffered}
	for range 4 {
		ch.sent(chunkSize, time.Second)
	}
	ch.sent(10, 0)
	if ch.size() != minChunk {
		t.Errorf("%d bytes", ch.size())
	}
}
