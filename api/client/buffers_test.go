package client

import (
	"testing"

	"google.golang.org/grpc/mem"
)

// TestBuffers asks gRPC for buffers: none is more than twice as large as what it is for.
func TestBuffers(t *testing.T) {
	for _, n := range []int{16<<10 + 1, 32 << 10, 32<<10 + 1, 100 << 10, 500 << 10, 1 << 20} {
		b := mem.DefaultBufferPool().Get(n)
		if len(*b) != n || cap(*b) >= 2*n {
			t.Errorf("%d bytes, and room for %d, for a message of %d", len(*b), cap(*b), n)
		}
		mem.DefaultBufferPool().Put(b)
	}
}
