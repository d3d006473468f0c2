package client

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxPipelined is less content than an append may have to share a stream with others.
	maxPipelined = 64 << 10
	// maxPipelines is how many streams a client has at most. Appends to more journals than that have RPCs of their own, so that
	// writing a little to very many journals does not cost brokers a stream for each.
	maxPipelines = 64
	// maxPipelinedBatch is how much content goes into a message if it is there at once; brokers take 4 MiB.
	maxPipelinedBatch = 1 << 20
	// pipelineRest is how long a stream that nobody uses is kept, at least.
	pipelineRest = 5 * time.Second
	// pipelineLife is how long a stream is used. Its token is good for longer.
	pipelineLife = 15 * time.Minute
	// pipelineRetry is how long brokers that do not know these streams are not asked again.
	pipelineRetry = time.Minute
)

// errNotPipelined says that an append must have an RPC of its own.
var errNotPipelined = errors.New("the broker has no streams of appends")

// pipelines are the streams of small appends of a client, one for each journal that is being appended to. An append has the
// semantics of an Append RPC, at a fraction of its cost: three messages, the headers and the trailers of an RPC are most
// of what a small append takes.
type pipelines struct {
	client     pb.PipelineClient
	router     pb.DispatchRouter
	authorizer auth.Authorizer // nil for none
	ctx        context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup

	mu      sync.Mutex
	streams map[pb.Journal]*pipeline
	refused time.Time // until when the brokers are not asked
}

func newPipelines(c pb.PipelineClient, router pb.DispatchRouter, a auth.Authorizer) *pipelines {
	ps := &pipelines{client: c, router: router, authorizer: a, streams: make(map[pb.Journal]*pipeline)}
	ps.ctx, ps.cancel = context.WithCancel(context.Background())
	return ps
}

// pipelinesOf returns the streams that appends through a client may use, or nil.
func pipelinesOf(rjc pb.RoutedJournalClient) *pipelines {
	if c, ok := rjc.(interface{ pipelines() *pipelines }); ok {
		return c.pipelines()
	}
	return nil
}

// close ends all streams.
func (ps *pipelines) close() {
	ps.mu.Lock()
	ps.cancel()
	ps.mu.Unlock()
	ps.running.Wait()
}

// append makes an append, whose request is valid. release is called when content is not used any more, which is never if ctx
// ended before. errNotPipelined says that nothing was done, and nothing was released.
func (ps *pipelines) append(ctx context.Context, req *pb.AppendRequest, content []byte, release func()) (*pb.AppendResponse, error) {
	if _, own := grpcmetadata.FromOutgoingContext(ctx); own || ps == nil {
		return nil, errNotPipelined
	}
	if _, own := auth.ClaimsOf(ctx); own {
		return nil, errNotPipelined
	}
	item := &pb.PipelinedAppend{Content: content}
	if !equalRequests(req, &pb.AppendRequest{Journal: req.Journal}) {
		item.Request = proto.CloneOf(req)
	}
	op := &pipelined{item: item, done: make(chan struct{})}
	if err := ps.submit(pb.Journal(req.Journal), op); err != nil {
		return nil, err
	}
	select {
	case <-op.done:
		if op.err == nil || !errors.Is(op.err, errNotPipelined) {
			release()
		}
		return op.response, op.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// submit gives an append to the journal's stream, which is made if need be.
func (ps *pipelines) submit(journal pb.Journal, op *pipelined) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.ctx.Err() != nil || time.Now().Before(ps.refused) {
		return errNotPipelined
	}
	p := ps.streams[journal]
	if p == nil && len(ps.streams) >= maxPipelines {
		return errNotPipelined
	}
	if p == nil || !p.add(op) {
		p = &pipeline{pipelines: ps, journal: journal, work: make(chan struct{}, 1), waiting: make(map[uint64]*pipelined)}
		p.ctx, p.cancel = context.WithCancel(ps.ctx)
		ps.streams[journal] = p
		p.add(op)
		ps.running.Go(p.run)
	}
	return nil
}

// forget drops a stream that takes no more appends.
func (ps *pipelines) forget(p *pipeline) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.streams[p.journal] == p {
		delete(ps.streams, p.journal)
	}
}

// pipelined is an append on its way.
type pipelined struct {
	item     *pb.PipelinedAppend
	done     chan struct{}
	response *pb.AppendResponse
	err      error
}

// pipeline is a stream of appends to a journal. One goroutine opens it and sends what callers have queued, all at once;
// another receives the outcomes.
type pipeline struct {
	*pipelines
	journal pb.Journal
	ctx     context.Context
	cancel  context.CancelFunc
	work    chan struct{} // wakes the sender

	header *pb.Header // used by receive: the last one

	mu      sync.Mutex
	queue   []*pipelined
	waiting map[uint64]*pipelined // those that were sent
	last    uint64
	used    bool // since the sender looked last
	retired bool // takes no more
}

// add queues an append, unless the stream takes no more.
func (p *pipeline) add(op *pipelined) bool {
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		return false
	}
	p.queue = append(p.queue, op)
	p.used = true
	p.mu.Unlock()
	p.wake()
	return true
}

func (p *pipeline) wake() {
	select {
	case p.work <- struct{}{}:
	default:
	}
}

// run is the stream's life.
func (p *pipeline) run() {
	defer p.cancel()
	err := p.exchange()
	p.forget(p)
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the broker ended the stream of appends")
	}
	err = fault.FromGRPC(err)
	if status.Code(err) == codes.Unimplemented {
		p.pipelines.mu.Lock()
		p.refused = time.Now().Add(pipelineRetry)
		p.pipelines.mu.Unlock()
		err = errNotPipelined
	}
	p.mu.Lock()
	p.retired = true
	left := p.queue
	for _, op := range p.waiting {
		left = append(left, op)
	}
	p.queue, p.waiting = nil, nil
	p.mu.Unlock()
	for _, op := range left {
		op.err = err
		close(op.done)
	}
}

// exchange sends and receives, and returns why that ended.
func (p *pipeline) exchange() error {
	ctx := p.ctx
	if p.authorizer != nil {
		var err error
		if ctx, err = auth.WithToken(ctx, p.authorizer, auth.ForJournal(auth.Append, p.journal)); err != nil {
			return err
		}
	}
	stream, err := p.client.Append(pb.WithDispatchItemRoute(ctx, p.router, string(p.journal.StripMeta()), true))
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	p.running.Go(func() {
		err := p.receive(stream)
		p.retire()
		received <- err
		p.cancel() // ends the sender
	})
	unsent := p.send(stream)
	if errors.Is(unsent, io.EOF) {
		unsent = nil // whoever receives learns why
	}
	if unsent != nil {
		p.cancel()
	}
	if err := <-received; unsent == nil {
		return err
	}
	return unsent
}

// send sends what is queued until the stream retires, or ends.
func (p *pipeline) send(stream pb.Pipeline_AppendClient) error {
	ticks := time.NewTicker(pipelineRest)
	defer ticks.Stop()
	born, journal := time.Now(), string(p.journal)
	for {
		select {
		case <-p.work:
		case <-ticks.C:
			if !p.rest() || time.Since(born) > pipelineLife {
				p.retire()
			}
		case <-p.ctx.Done():
			return nil // whoever ended it says why
		}
		for {
			// Callers that were answered together are about to come back.
			runtime.Gosched()
			items, retired := p.take()
			if len(items) != 0 {
				if err := stream.Send(&pb.PipelineRequest{Journal: journal, Appends: items}); err != nil {
					return err
				}
				journal = ""
				continue
			}
			if retired {
				return stream.CloseSend()
			}
			break
		}
	}
}

// rest reports whether the stream was used since the last time, or is.
func (p *pipeline) rest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := p.used || len(p.waiting) != 0
	p.used = false
	return used
}

// retire lets the stream end as soon as everything that it took is answered.
func (p *pipeline) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.forget(p)
	p.wake()
}

// take returns appends for one message, and whether there will be no more of them.
func (p *pipeline) take() (items []*pb.PipelinedAppend, retired bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for size := 0; n < len(p.queue) && (n == 0 || size < maxPipelinedBatch); n++ {
		op := p.queue[n]
		p.last++
		op.item.Id = p.last
		p.waiting[op.item.Id] = op
		items = append(items, op.item)
		size += len(op.item.Content)
	}
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil
	}
	return items, p.retired && len(p.queue) == 0
}

// receive takes outcomes until the stream ends.
func (p *pipeline) receive(stream pb.Pipeline_AppendClient) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, o := range resp.GetOutcomes() {
			p.finish(o)
		}
	}
}

// finish tells a caller the outcome.
func (p *pipeline) finish(o *pb.PipelinedOutcome) {
	p.mu.Lock()
	op := p.waiting[o.GetId()]
	delete(p.waiting, o.GetId())
	p.mu.Unlock()
	if op == nil {
		return
	}
	switch op.response = o.GetResponse(); {
	case op.response == nil:
		op.response = new(pb.AppendResponse)
		op.err = fault.FromGRPC(status.Error(codes.Code(o.GetCode()), o.GetMessage()))
		if op.err == nil {
			op.err = fault.New(fault.Internal, "broker answered an append to %s with nothing", p.journal)
		}
	case op.response.Header == nil:
		op.response.Header = p.header
	default:
		p.header = op.response.Header
		if op.response.Status == pb.Status_NOT_JOURNAL_PRIMARY_BROKER || op.response.Status == pb.Status_NO_JOURNAL_PRIMARY_BROKER {
			p.retire() // the next stream goes where the header says
		}
	}
	close(op.done)
}
