package broker

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxPipeline is how many bytes of content a stream may have under way. While there are more it is not read on, so that
	// the client is held back.
	maxPipeline = 4 << 20
	// leastPipelined is what each append counts for at least.
	leastPipelined = 4 << 10
)

// Pipeline returns the service of small appends, many on one stream.
func (b *Broker) Pipeline() protocol.PipelineServer { return pipelines{broker: b} }

type pipelines struct {
	protocol.UnimplementedPipelineServer
	broker *Broker
}

// Append makes the appends of one stream.
//
// As in receive, a goroutine of its own receives: a stream that waits for its client cannot be told to stop.
func (s pipelines) Append(stream protocol.Pipeline_AppendServer) (err error) {
	b := s.broker
	c, err := b.enter(stream.Context(), "Pipeline", auth.Append)
	if err != nil {
		return err
	}
	defer c.end(&err)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	p := &pipeline{broker: b, call: c, stream: stream, ctx: ctx, items: make(chan *protocol.PipelinedAppend), ready: make(chan struct{}, 1)}
	p.room.L = &p.mu
	b.calls.Add(1) // the call that we are in has kept Close waiting until now
	go func() {
		defer b.calls.Done()
		defer close(p.items)
		p.stop(p.receive())
	}()
	return p.respond(cancel)
}

// pipeline is a stream of appends to one journal.
type pipeline struct {
	broker *Broker
	call   *call
	stream protocol.Pipeline_AppendServer
	ctx    context.Context
	// items go from receive to work.
	items chan *protocol.PipelinedAppend
	// ready wakes respond.
	ready chan struct{}

	journal string           // used by receive
	header  *protocol.Header // used by respond: the last one that was sent

	mu       sync.Mutex
	room     sync.Cond // wakes receive
	outcomes []*protocol.PipelinedOutcome
	underWay int   // appends
	weight   int64 // of them
	stopped  bool  // no append begins
	err      error // why
}

// respond sends outcomes until the client has ended the stream and everything is answered. When the broker closes, what has
// begun is finished, and the rest is left to other brokers.
func (p *pipeline) respond(cancel context.CancelFunc) error {
	closing, ended := p.broker.closing, p.ctx.Done()
	for {
		select {
		case <-p.ready:
		case <-closing:
			closing = nil
			p.stop(nil)
		case <-ended:
			ended = nil
			p.stop(fault.New(fault.KindOf(p.ctx.Err()), "appends: %w", context.Cause(p.ctx)))
		}
		// Whoever was made durable by the same sync is about to run: a message for all of them costs as much as one for the first.
		runtime.Gosched()
		outcomes, done, err := p.take()
		if len(outcomes) != 0 && p.ctx.Err() == nil {
			if err := p.stream.Send(&protocol.PipelineResponse{Outcomes: p.withoutHeaders(outcomes)}); err != nil {
				cancel() // whoever is to know the outcomes is gone
			}
		}
		if done {
			return err
		}
	}
}

// take returns the outcomes that have not been sent, and whether these were the last ones.
func (p *pipeline) take() (outcomes []*protocol.PipelinedOutcome, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	outcomes, p.outcomes = p.outcomes, nil
	return outcomes, p.stopped && p.underWay == 0, p.err
}

// withoutHeaders leaves out the headers that say what the one before said.
func (p *pipeline) withoutHeaders(outcomes []*protocol.PipelinedOutcome) []*protocol.PipelinedOutcome {
	for _, o := range outcomes {
		h := o.GetResponse().GetHeader()
		switch {
		case h == nil:
		case p.header != nil && h.Route == p.header.Route && h.Etcd.Revision == p.header.Etcd.Revision:
			o.Response.Header = nil
		default:
			p.header = h
		}
	}
	return outcomes
}

func (p *pipeline) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// stop keeps further appends from beginning. The first reason counts.
func (p *pipeline) stop(err error) {
	p.mu.Lock()
	if !p.stopped {
		p.stopped, p.err = true, err
	}
	p.room.Signal()
	p.mu.Unlock()
	p.wake()
}

// receive begins appends as they come.
func (p *pipeline) receive() error {
	for first := true; ; first = false {
		req, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case first && req.GetJournal() == "":
			return fault.New(fault.Invalid, "appends: the first message names no journal")
		case !first && req.GetJournal() != "":
			return fault.New(fault.Invalid, "appends to %s: a second message with a journal", p.journal)
		case first:
			p.journal = req.GetJournal()
		}
		for _, item := range req.GetAppends() {
			if !p.begin(weightOf(item)) {
				return nil
			}
			select {
			case p.items <- item:
			default: // all that there are have work
				p.broker.calls.Go(func() { p.work(item) })
			}
		}
	}
}

// begin makes room for an append. It reports false if none is to begin any more.
func (p *pipeline) begin(weight int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.stopped && p.weight+weight > maxPipeline && p.underWay > 0 {
		p.room.Wait()
	}
	if p.stopped {
		return false
	}
	p.underWay++
	p.weight += weight
	return true
}

// work makes appends, one after the other, until no more come. Its goroutine is kept for them, since most of what a new one costs
// is the growth of its stack.
func (p *pipeline) work(item *protocol.PipelinedAppend) {
	for ok := true; ok; item, ok = <-p.items {
		p.append(item)
	}
}

func weightOf(item *protocol.PipelinedAppend) int64 {
	return max(leastPipelined, int64(len(item.GetContent())))
}

// append makes one append. respond waits for it.
func (p *pipeline) append(item *protocol.PipelinedAppend) {
	began := time.Now()
	p.broker.metrics.began("Append")
	out := &protocol.PipelinedOutcome{Id: item.GetId()}
	resp, err := p.make(item)
	err = fault.GRPC(err)
	if err == nil {
		out.Response = resp
	} else {
		s, _ := status.FromError(err)
		out.Code, out.Message = uint32(s.Code()), s.Message()
		if s.Code() == codes.OK {
			out.Code = uint32(codes.Internal)
		}
	}
	p.broker.metrics.ended("Append", resp.GetStatus(), err, time.Since(began))

	p.mu.Lock()
	p.outcomes = append(p.outcomes, out)
	p.underWay--
	p.weight -= weightOf(item)
	p.room.Signal()
	p.mu.Unlock()
	p.wake()
}

func (p *pipeline) make(item *protocol.PipelinedAppend) (*protocol.AppendResponse, error) {
	req := item.GetRequest()
	switch {
	case req == nil:
		req = &protocol.AppendRequest{Journal: p.journal}
	case req.Journal == "":
		req.Journal = p.journal
	case req.Journal != p.journal:
		return nil, fault.New(fault.Invalid, "append to %s: the stream is for %s", req.Journal, p.journal)
	}
	if err := checkOpening(req); err != nil {
		return nil, err
	}
	if n := len(item.GetContent()); n > maxBuffered {
		return nil, fault.New(fault.Invalid, "append to %s: content of %d bytes; at most %d can share a stream", req.Journal, n, maxBuffered)
	}
	a := &appending{
		broker: p.broker, call: p.call, request: req, resp: new(protocol.AppendResponse),
		content: content{bytes: item.GetContent(), size: int64(len(item.GetContent()))},
	}
	err := a.run(p.ctx)
	if err != nil || a.resp.GetStatus() != protocol.Status_OK {
		p.broker.rollBack(a.resolved.journal, &a.content)
	}
	return a.resp, err
}

// admit takes content that is here already, as soon as the journal's maximum rate allows it.
func (a *appending) admit(ctx context.Context) error {
	a.resp.TotalChunks = 1 // the empty message, which there would be
	if a.content.size == 0 {
		return nil
	}
	if !a.takesContent() {
		a.resp.Status = protocol.Status_NOT_ALLOWED
		return nil
	}
	a.resp.TotalChunks++
	b := a.broker
	if b.rates.of(a.resolved.spec.JournalSpec) == 0 {
		return nil
	}
	pace := b.rates.begin(a.resolved.spec, b.engine.Specs())
	if pace.chunk(a.content.size) {
		return nil
	}
	a.resp.DelayedChunks++
	b.metrics.delayed.Inc()
	ticks := time.NewTicker(quantum)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			if free, _ := pace.tick(b.rates.now()); free {
				return nil
			}
		case <-b.closing:
			return nil // whoever is held back would only delay the end
		case <-ctx.Done():
			return fault.New(fault.KindOf(ctx.Err()), "append to %s: %w", a.resolved.journal, context.Cause(ctx))
		}
	}
}
