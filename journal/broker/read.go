package broker

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// stockContent is the most content of a response that every client takes: the whole message stays below 32 KiB.
	stockContent = 1<<15 - 32
	// maxContent is the most content of a response to clients that ask for more. The whole message fits the largest
	// buffers that gRPC keeps.
	maxContent = 1<<20 - 1<<10
)

// bufferPool has buffers for content, of the two sizes that are common.
type bufferPool struct{ small, large sync.Pool }

func (p *bufferPool) get(n int) *[]byte {
	pool, size := &p.small, stockContent
	if n > stockContent {
		pool, size = &p.large, maxContent
	}
	if b, ok := pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}

func (p *bufferPool) put(b *[]byte) {
	if len(*b) > stockContent {
		p.large.Put(b)
	} else {
		p.small.Put(b)
	}
}

// Read sends content (spec protocol 10.6).
func (b *Broker) Read(req *protocol.ReadRequest, stream grpc.ServerStreamingServer[protocol.ReadResponse]) (err error) {
	c, err := b.enter(stream.Context(), "Read", auth.Read)
	if err != nil {
		return err
	}
	defer c.end(&err)

	if err := req.Validate(); err != nil {
		return err
	}
	resolved, err := b.resolve(c, req.GetJournal(), req.GetHeader(), req.GetMinEtcdRevision())
	if err != nil {
		return err
	}
	if c.status = resolved.readable(); c.status != protocol.Status_OK {
		return stream.Send(&protocol.ReadResponse{Status: c.status, Header: resolved.header})
	}
	r := &reading{
		broker: b, stream: stream, request: req,
		journal: resolved.journal, created: resolved.spec.Created, header: resolved.header,
		offset: protocol.Offset(req.GetOffset()), chunk: stockContent,
	}
	if n := int(req.GetMaxContent()); n > stockContent {
		r.chunk = min(n, maxContent)
	}
	c.status, err = r.run(c.ctx)
	if c.ctx.Err() != nil {
		return nil // whoever reads is gone, or its time is over: a plain end
	}
	return err
}

// reading is a read on its way.
type reading struct {
	broker  *Broker
	stream  grpc.ServerStreamingServer[protocol.ReadResponse]
	request *protocol.ReadRequest
	journal protocol.Journal
	created int64
	// header is sent with the first response.
	header *protocol.Header
	offset protocol.Offset
	chunk  int
	resp   protocol.ReadResponse // reused for content
}

// run sends fragment after fragment: what is known of it, then its content.
func (r *reading) run(ctx context.Context) (protocol.Status, error) {
	for {
		meta, fragment, err := r.next(ctx)
		if err != nil || meta == nil {
			return protocol.Status_OK, err
		}
		meta.Header, r.header = r.header, nil
		if err := r.stream.Send(meta); err != nil {
			return protocol.Status_OK, err
		}
		end := protocol.Offset(r.request.GetEndOffset())
		if meta.GetStatus() != protocol.Status_OK || r.request.GetMetadataOnly() || end != 0 && r.offset >= end {
			return meta.GetStatus(), nil
		}
		last := fragment.End
		if end != 0 {
			last = min(last, end)
		}
		if err := r.send(ctx, fragment, last); err != nil {
			return protocol.Status_OK, err
		}
		if r.offset == end && end != 0 {
			return protocol.Status_OK, nil
		}
	}
}

// next finds the next fragment, and waits for it if the request says so. It moves the offset to where content is. No
// response means that the journal or the broker is gone.
func (r *reading) next(ctx context.Context) (*protocol.ReadResponse, engine.Fragment, error) {
	resp, fragment, ok, err := r.look(ctx)
	if ok || err != nil {
		return resp, fragment, err
	}
	changed, stop := r.broker.engine.Watch(r.journal)
	defer stop()
	r.broker.metrics.blockedReads.Inc()
	defer r.broker.metrics.blockedReads.Dec()
	for {
		if resp, fragment, ok, err = r.look(ctx); ok || err != nil {
			return resp, fragment, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, engine.Fragment{}, nil
		case <-r.broker.closing:
			return nil, engine.Fragment{}, nil
		}
	}
}

// look is next without waiting: ok says that there is nothing to wait for.
func (r *reading) look(ctx context.Context) (resp *protocol.ReadResponse, fragment engine.Fragment, ok bool, err error) {
	state, err := r.broker.engine.Load(ctx, r.journal)
	if fault.Is(err, fault.NotFound) || err == nil && state.Created != r.created {
		return nil, fragment, true, nil
	}
	if err != nil {
		return nil, fragment, false, err
	}
	if r.offset == protocol.OffsetHead {
		r.offset = state.Head
	}
	fragment, found := lookup(&state, r.offset)
	switch {
	case found:
		r.offset = max(r.offset, fragment.Begin)
		return &protocol.ReadResponse{
			Offset:    int64(r.offset),
			WriteHead: int64(state.Head),
			Fragment:  fragmentOf(r.journal, fragment),
		}, fragment, true, nil
	case r.request.GetBlock():
		return nil, fragment, false, nil
	}
	return &protocol.ReadResponse{
		Status:    protocol.Status_OFFSET_NOT_YET_AVAILABLE,
		Offset:    int64(r.offset),
		WriteHead: int64(state.Head),
	}, fragment, true, nil
}

// lookup returns the fragment that has an offset, or the first one beyond it. What is missing between the fragments of an
// engine is missing on purpose, so readers need not wait for it.
func lookup(s *engine.State, offset protocol.Offset) (engine.Fragment, bool) {
	i, _ := slices.BinarySearchFunc(s.Finished, offset, func(f engine.Fragment, offset protocol.Offset) int {
		if f.End <= offset {
			return -1
		}
		return 1
	})
	if i < len(s.Finished) {
		return s.Finished[i], true
	}
	return s.Open, s.Open.Len() > 0 && offset < s.Open.End
}

// send sends content of a fragment from the offset to last. A fragment that has been trimmed meanwhile sends nothing more.
func (r *reading) send(ctx context.Context, f engine.Fragment, last protocol.Offset) (err error) {
	content, err := r.broker.engine.Open(ctx, r.journal, f)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	size := int(min(int64(last-r.offset), int64(r.chunk)))
	buf := r.broker.buffers.get(size)
	// The message is encoded before Send returns, so the buffer can be used again.
	defer r.broker.buffers.put(buf)
	for r.offset < last {
		p := (*buf)[:min(int64(last-r.offset), int64(r.chunk))]
		n, err := content.ReadAt(p, r.offset)
		if n > 0 {
			r.resp.Reset()
			r.resp.Offset, r.resp.Content = int64(r.offset), p[:n]
			if err := r.stream.Send(&r.resp); err != nil {
				return err
			}
			r.offset += protocol.Offset(n)
			r.broker.metrics.readBytes.Add(float64(n))
		}
		if err != nil && !(errors.Is(err, io.EOF) && r.offset >= last) {
			return err
		}
		select {
		case <-r.broker.closing:
			return nil
		default:
		}
	}
	return nil
}
