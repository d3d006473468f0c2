package broker

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// openingTime is how long a client may take to say what it appends to. What follows has to keep to the minimum rate.
const openingTime = 10 * time.Second

// receiveOpening returns the first message of an append, validated. A stream that brings none is no append yet: it ends when
// the broker closes, and after a while.
//
// Like receive, it leaves a goroutine behind that ends with the RPC, and for which Close waits.
func (b *Broker) receiveOpening(ctx context.Context, stream grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]) (*protocol.AppendRequest, error) {
	var opening *protocol.AppendRequest
	received := make(chan error, 1)
	b.calls.Add(1) // the call that we are in has kept Close waiting until now
	go func() {
		defer b.calls.Done()
		req, err := stream.Recv()
		opening = req
		received <- err
	}()
	limit := time.NewTimer(openingTime)
	defer limit.Stop()
	select {
	case err := <-received:
		if err == nil {
			err = checkOpening(opening)
		}
		return opening, err
	case <-ctx.Done():
		return nil, fault.New(fault.KindOf(ctx.Err()), "receive an append: %w", context.Cause(ctx))
	case <-b.closing:
		return nil, errClosing
	case <-limit.C:
		return nil, fault.New(fault.Deadline, "receive an append: the client has not said within %v what it appends to", openingTime)
	}
}
