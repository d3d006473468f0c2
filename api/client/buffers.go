package client

import (
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// gRPC has a buffer of 1 MiB for each message of more than 32 KiB, and clears all of it, on each side. With sizes between, messages that
// carry content cost what their content does. The codec has one pool for the process, so it is set for all of it.
func init() {
	pool, err := mem.NewBinaryTieredBufferPool(8, 12, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		panic(err) // impossible: the sizes are constant
	}
	experimental.SetDefaultBufferPool(pool)
}
