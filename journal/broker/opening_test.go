package broker_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// Streams that were opened and say nothing hold up neither the broker's end nor its other clients.
func TestHalfOpenAppends(t *testing.T) {
	c := one(t)
	recv := make(chan error)
	const n = 200
	for range n {
		stream, err := c.client.Append(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { recv <- stream.RecvMsg(new(protocol.AppendResponse)) }()
	}
	c.mustAppend("test/journal", "content")
	if err := c.broker.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-recv; status.Code(err) != codes.Unavailable {
			t.Fatalf("an append that was not begun ends with %v", err)
		}
	}
}
