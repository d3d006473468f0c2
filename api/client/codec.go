package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/wire"
)

// bounded is gRPC's codec for servers: it does not decode what would take many times its size. gRPC decodes before it asks who calls.
type bounded struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return bounded{encoding.GetCodecV2(protocodec.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c bounded) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(proto.Message); ok && wire.Long(data.Len()) && wire.TooMany(data.Materialize(), m.ProtoReflect().Descriptor()) {
		return fmt.Errorf("it has more than %d fields", wire.MaxFields)
	}
	return c.CodecV2.Unmarshal(data, v)
}
