package broker

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// maxBuffered is the largest append that is received in memory.
const maxBuffered = 1 << 20

// content is that of an append: the first message's own bytes while it is the only one, then a buffer, then a stage.
type content struct {
	bytes []byte
	owned bool
	stage engine.Stage
	size  int64
}

// add takes a message's content, which is the caller's no more.
func (c *content) add(ctx context.Context, e engine.Engine, p []byte) error {
	c.size += int64(len(p))
	switch {
	case c.stage != nil:
		_, err := c.stage.Write(p)
		return err
	case c.bytes == nil && len(p) <= maxBuffered:
		c.bytes = p
		return nil
	case len(c.bytes)+len(p) <= maxBuffered:
		if !c.owned {
			// Room for as much again: most appends are of one message or of many.
			c.bytes, c.owned = append(make([]byte, 0, 2*(len(c.bytes)+len(p))), c.bytes...), true
		}
		c.bytes = append(c.bytes, p...)
		return nil
	}
	var err error
	if c.stage, err = e.Stage(ctx); err != nil {
		return err
	}
	for _, p := range [][]byte{c.bytes, p} {
		if _, err := c.stage.Write(p); err != nil {
			return err
		}
	}
	c.bytes = nil
	return nil
}

// drop releases what the content took.
func (c *content) drop() error {
	if c.stage == nil {
		return nil
	}
	return c.stage.Close()
}

// received is what a stream brought.
type received struct {
	content
	status         protocol.Status
	total, delayed int64
	err            error
}

// receive takes the content, up to the end of the stream, from a client that keeps to its rates. Only a stream that was ended
// with the empty message commits.
//
// A stream that waits for its client cannot be told to stop; it stops when the RPC has ended. So a goroutine of its own
// receives. It is left behind when the client has stalled, and Close waits for it.
func (a *appending) receive(ctx context.Context) error {
	b := a.broker
	b.metrics.receiving.Inc()
	defer b.metrics.receiving.Dec()
	r := &receiver{
		broker: b, stream: a.stream, journal: a.resolved.journal, takesContent: a.takesContent(),
		pace: b.rates.begin(a.resolved.spec, b.engine.Specs()),
		paid: make(chan struct{}, 1),
	}
	done, left := make(chan *received), make(chan struct{})
	defer close(left)
	b.calls.Add(1) // the call that we are in has kept Close waiting until now
	go func() {
		defer b.calls.Done()
		out := r.run(ctx)
		select {
		case done <- out:
		case <-left:
			b.rollBack(r.journal, &out.content)
		}
	}()
	ticks := time.NewTicker(quantum)
	defer ticks.Stop()
	closing := b.closing
	for {
		select {
		case out := <-done:
			a.content, a.resp.Status = out.content, out.status
			a.resp.TotalChunks, a.resp.DelayedChunks = out.total, out.delayed
			return out.err
		case <-ctx.Done():
			return fault.New(fault.KindOf(ctx.Err()), "append to %s: %w", r.journal, context.Cause(ctx))
		case <-closing:
			// Whoever is held back would only delay the end.
			closing = nil
			r.pace.lift()
			r.release()
		case <-ticks.C:
			paid, stalled := r.pace.tick(b.rates.now())
			if paid {
				r.release()
			}
			if stalled {
				b.metrics.stalled.Inc()
				return fault.New(fault.Deadline, "append to %s: rolled back, since the client sent less than %d bytes a second", r.journal, r.pace.least)
			}
		}
	}
}

// rollBack drops content that will not be committed.
func (b *Broker) rollBack(journal protocol.Journal, c *content) {
	if c.size > 0 {
		b.metrics.rollbacks.Inc()
		b.metrics.rolledBack.Add(float64(c.size))
	}
	b.drop(journal, c)
}

func (b *Broker) drop(journal protocol.Journal, c *content) {
	if err := c.drop(); err != nil {
		b.logger.Warn("cannot drop the staged content of an append", "journal", journal, "error", err)
	}
}

// receiver receives the content of one append.
type receiver struct {
	broker       *Broker
	stream       grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]
	journal      protocol.Journal
	takesContent bool
	pace         *pace
	// paid wakes the receiver when the message that it holds back may have been paid for.
	paid chan struct{}
}

func (r *receiver) release() {
	select {
	case r.paid <- struct{}{}:
	default:
	}
}

func (r *receiver) run(ctx context.Context) *received {
	out := new(received)
	out.err = r.receive(ctx, out)
	return out
}

func (r *receiver) receive(ctx context.Context, out *received) error {
	for commit := false; ; {
		req, err := r.stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && commit:
			return nil
		case errors.Is(err, io.EOF):
			// Nothing is wrong with the append but that it was cut off; the same one may succeed.
			return fault.New(fault.Transient, "append to %s: rolled back, since the stream ended without an empty message: %w", r.journal, io.ErrUnexpectedEOF)
		case err != nil:
			return err
		}
		if err := req.Validate(); err != nil {
			return err
		}
		out.total++
		switch {
		case req.IsOpening():
			return fault.New(fault.Invalid, "append to %s: a second message with a journal", r.journal)
		case commit:
			return fault.New(fault.Invalid, "append to %s: a message after the empty one", r.journal)
		case len(req.GetContent()) == 0:
			commit = true
		case !r.takesContent:
			out.status = protocol.Status_NOT_ALLOWED
			return nil
		default:
			if err := r.await(ctx, int64(len(req.GetContent())), out); err != nil {
				return err
			}
			// What a slow disk takes is not the client's time.
			r.pace.rest(true)
			err := out.add(ctx, r.broker.engine, req.GetContent())
			r.pace.rest(false)
			if err != nil {
				return err
			}
		}
	}
}

// await holds a message back until the journal's maximum rate allows it.
func (r *receiver) await(ctx context.Context, n int64, out *received) error {
	if r.pace.chunk(n) {
		return nil
	}
	out.delayed++
	r.broker.metrics.delayed.Inc()
	for !r.pace.free() {
		select {
		case <-r.paid:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
