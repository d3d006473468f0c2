package broker

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// stockContent is the most content of a response that every client takes: the whole message stays below 32 KiB.
	stockContent = 1<<15 - 32
	// maxContent is the most content of a response to clients that ask for more. The whole message fits the largest
	// buffers that gRPC keeps.
	maxContent = 1<<20 - 1<<10
	// readAhead is how much content is read at once if there is so much, in whichever messages it is sent.
	readAhead = 256 << 10
	// roundOffset is a multiple of the blocks of all engines.
	roundOffset = 64 << 10
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
	if err := b.awaitListing(c.ctx, resolved.spec, true); err != nil {
		// What is known is read all the same; who blocks is told of the rest as it is listed.
		b.logger.Debug("a journal is read before its stores were listed", "journal", resolved.journal, "error", err)
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
		if meta.GetFragmentUrl() != "" && r.request.GetDoNotProxy() {
			return protocol.Status_OK, nil // whoever reads fetches it
		}
		last := fragment.End
		if end != 0 {
			last = min(last, end)
		}
		if err := r.send(ctx, &fragment, last); err != nil {
			return protocol.Status_OK, err
		}
		if r.offset == end && end != 0 {
			return protocol.Status_OK, nil
		}
	}
}

// next finds the next fragment, and waits for it if the request says so. It moves the offset to where content is. No
// response means that the journal or the broker is gone.
func (r *reading) next(ctx context.Context) (*protocol.ReadResponse, indexed, error) {
	resp, fragment, ok, err := r.look(ctx)
	if ok || err != nil {
		return resp, fragment, err
	}
	changed, stop := r.broker.engine.Watch(r.journal)
	defer stop()
	listed, stopListed := r.broker.listedHub.Watch(r.journal)
	defer stopListed()
	r.broker.metrics.blockedReads.Inc()
	defer r.broker.metrics.blockedReads.Dec()
	for {
		if resp, fragment, ok, err = r.look(ctx); ok || err != nil {
			return resp, fragment, err
		}
		select {
		case <-changed:
		case <-listed:
		case <-ctx.Done():
			return nil, indexed{}, nil
		case <-r.broker.closing:
			return nil, indexed{}, nil
		}
	}
}

// look is next without waiting: ok says that there is nothing to wait for.
func (r *reading) look(ctx context.Context) (resp *protocol.ReadResponse, fragment indexed, ok bool, err error) {
	v, err := r.broker.view(ctx, r.journal)
	if fault.Is(err, fault.NotFound) || err == nil && v.state.Created != r.created {
		return nil, fragment, true, nil
	}
	if err != nil {
		return nil, fragment, false, err
	}
	if r.offset == protocol.OffsetHead {
		r.offset = v.end()
	}
	r.offset, fragment, ok = v.query(r.offset, r.request.GetBeginModTime(), time.Now())
	switch {
	case ok:
		resp = &protocol.ReadResponse{
			Offset:    int64(r.offset),
			WriteHead: int64(max(v.end(), fragment.End)),
			Fragment:  fragment.message(r.journal),
		}
		if !fragment.local() && (r.request.GetDoNotProxy() || r.request.GetMetadataOnly()) {
			resp.FragmentUrl, err = r.broker.readURL(ctx, resp.GetFragment())
		}
		return resp, fragment, true, err
	case r.request.GetBlock():
		return nil, fragment, false, nil
	}
	return &protocol.ReadResponse{
		Status:    protocol.Status_OFFSET_NOT_YET_AVAILABLE,
		Offset:    int64(r.offset),
		WriteHead: int64(v.end()),
	}, fragment, true, nil
}

// send sends content of a fragment from the offset to last. A fragment that has been dropped meanwhile sends nothing more.
func (r *reading) send(ctx context.Context, f *indexed, last protocol.Offset) (err error) {
	content, err := r.broker.open(ctx, r.journal, f, r.offset, last)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	buf := r.broker.buffers.get(int(min(int64(last-r.offset), int64(max(r.chunk, readAhead)))))
	// Messages are encoded before Send returns, so the buffer can be used again.
	defer r.broker.buffers.put(buf)
	for r.offset < last {
		p := (*buf)[:r.readSize(f, last)]
		n, err := content.Read(p)
		for p = p[:n]; len(p) > 0; p = p[len(r.resp.Content):] {
			r.resp.Reset()
			r.resp.Offset, r.resp.Content = int64(r.offset), p[:min(len(p), r.chunk)]
			if err := r.stream.Send(&r.resp); err != nil {
				return err
			}
			r.offset += protocol.Offset(len(r.resp.Content))
		}
		r.broker.metrics.readBytes.Add(float64(n))
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

// readSize returns how much content is read at once: for a reader that is behind several messages, up to a round offset, since
// engines verify content in blocks.
func (r *reading) readSize(f *indexed, last protocol.Offset) int64 {
	size := int64(max(r.chunk, readAhead))
	rest := int64(last - r.offset)
	if rest <= size {
		return rest
	}
	if over := (int64(r.offset-f.Begin) + size) % roundOffset; over < size {
		size -= over
	}
	return size
}
