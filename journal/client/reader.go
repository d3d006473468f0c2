package client

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Reader reads a journal through one Read RPC. If the request has DoNotProxy set, the broker may end that with the URL of a
// fragment; the reader then fetches the fragment from its store.
//
// Read returns io.EOF when the request's EndOffset is reached, at the end of a fragment that was fetched, and when the
// broker ended the RPC, because the journal moved or the broker shuts down. It may return zero bytes without an error: Response
// then holds something new. Any error but ErrOffsetJump is final.
type Reader struct {
	// Request is the request; its Offset is always that of the next byte to be returned.
	Request *pb.ReadRequest
	// Response is the last response, never nil. With content come the fragment and the write head of the last metadata.
	Response *pb.ReadResponse

	ctx     context.Context
	rjc     pb.RoutedJournalClient
	route   *pb.Route // Of the last header: of the RPC before until this one begins, then of this one.
	stream  pb.Journal_ReadClient
	cancel  context.CancelFunc
	content []byte          // Received and not yet returned.
	direct  *FragmentReader // Once the RPC has ended with a URL.
	counter prometheus.Counter
	err     error // Final.
}

// NewReader returns a reader. Its RPC begins with the first Read, and is given up when ctx ends.
func NewReader(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.ReadRequest) *Reader {
	return &Reader{
		Request:  proto.CloneOf(req),
		Response: new(pb.ReadResponse),
		ctx:      ctx,
		rjc:      rjc,
		counter:  traffic.of(traffic.read, req.GetJournal()),
	}
}

// again returns a reader that goes on where r ended, with a new RPC.
func (r *Reader) again() *Reader {
	return &Reader{Request: r.Request, Response: r.Response, ctx: r.ctx, rjc: r.rjc, route: r.route, counter: r.counter}
}

// Read implements io.Reader. Read(nil) receives at most one message without consuming content.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.read(p)
	if n != 0 {
		r.counter.Add(float64(n))
	}
	if err != nil && !errors.Is(err, ErrOffsetJump) {
		r.err = err
		if r.direct != nil {
			_ = r.direct.Close() // What it read is complete, or the error says why not.
		}
		if r.cancel != nil {
			r.cancel()
		}
	}
	return n, err
}

func (r *Reader) read(p []byte) (int, error) {
	if r.direct != nil {
		return r.readDirect(p)
	}
	if len(r.content) != 0 {
		n := copy(p, r.content)
		r.content = r.content[n:]
		r.Request.Offset += int64(n)
		return n, nil
	}
	if r.stream != nil && r.atEnd() {
		return 0, io.EOF
	}
	if r.stream == nil {
		if err := r.start(); err != nil {
			return 0, err
		}
	}
	for {
		resp, err := r.stream.Recv()
		switch {
		case r.Response.Status != pb.Status_OK && err != nil:
			return 0, errorOfStatus(r.Response.Status)
		case errors.Is(err, io.EOF) && r.refersToStore():
			if err := r.openDirect(); err != nil {
				return 0, err
			}
			return r.readDirect(p)
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			return 0, mapContext(r.ctx, err)
		}
		jump, err := r.receive(resp)
		switch {
		case err != nil:
			return 0, err
		case jump:
			return 0, ErrOffsetJump
		case resp.Status == pb.Status_OK:
			return 0, nil
		}
		// A refusal: its stream ends next.
	}
}

// start begins the RPC.
func (r *Reader) start() error {
	if err := r.Request.Validate(); err != nil {
		return err
	}
	if r.atEnd() && !r.Request.MetadataOnly {
		return io.EOF // A broker might wait for content that nobody wants.
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.cancel = cancel
	if r.route != nil {
		ctx = pb.WithDispatchRoute(ctx, r.route, nil)
		r.route = nil // If nobody answers it is worth nothing.
	} else {
		ctx = pb.WithDispatchItemRoute(ctx, r.rjc, r.item(), false)
	}
	r.Response = new(pb.ReadResponse)
	stream, err := r.rjc.Read(ctx, r.Request)
	if err != nil {
		return mapContext(r.ctx, err)
	}
	r.stream = stream
	return nil
}

// item is what the router knows the journal by.
func (r *Reader) item() string { return string(pb.Journal(r.Request.Journal).StripMeta()) }

// receive takes in a response, and reports whether it lies beyond the offset that was asked for.
func (r *Reader) receive(resp *pb.ReadResponse) (jump bool, err error) {
	if err := validateResponse("ReadResponse", resp); err != nil {
		return false, err
	}
	if resp.Header != nil {
		r.route = resp.Header.Route
		r.rjc.UpdateRoute(r.item(), r.route)
	}
	if len(resp.Content) != 0 {
		resp.Fragment, resp.WriteHead = r.Response.Fragment, r.Response.WriteHead
		r.content = resp.Content
		if end := r.Request.EndOffset; end != 0 && resp.Offset+int64(len(r.content)) > end {
			r.content = r.content[:max(0, end-resp.Offset)] // More than was asked for.
		}
	}
	r.Response = resp

	// Only these say where the reader is. A refusal carries no offset, and must not turn a read of the head into one of the
	// whole journal.
	switch {
	case len(resp.Content) != 0, resp.Fragment != nil:
	case resp.Status == pb.Status_OFFSET_NOT_YET_AVAILABLE && resp.Offset > r.Request.Offset:
	default:
		return false, nil
	}
	if resp.Offset < r.Request.Offset {
		return false, fault.New(fault.Internal, "broker sent offset %d of %s, which is before the requested %d",
			resp.Offset, r.Request.Journal, r.Request.Offset)
	}
	jump = resp.Offset > r.Request.Offset
	r.Request.Offset = resp.Offset
	return jump, nil
}

// refersToStore reports whether the broker ended the RPC because the reader shall fetch the fragment by itself.
func (r *Reader) refersToStore() bool {
	return r.Response.FragmentUrl != "" && len(r.Response.Content) == 0 && !r.atEnd() && !r.Request.MetadataOnly
}

// atEnd reports whether the reader has come to its EndOffset, or jumped over it.
func (r *Reader) atEnd() bool {
	return r.Request.EndOffset != 0 && r.Request.Offset >= r.Request.EndOffset
}

func (r *Reader) openDirect() error {
	direct, err := OpenFragmentURL(r.ctx, r.Response.Fragment, r.Request.Offset, r.Response.FragmentUrl)
	if err != nil {
		return ofStore(r.ctx, err)
	}
	r.direct = direct
	return nil
}

// readDirect reads from the fragment's store.
func (r *Reader) readDirect(p []byte) (int, error) {
	if end := r.Request.EndOffset; end != 0 {
		rest := end - r.Request.Offset
		if rest <= 0 {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), rest)]
	}
	n, err := r.direct.Read(p)
	r.Request.Offset += int64(n)
	return n, ofStore(r.ctx, err)
}

// AdjustedOffset returns the offset of the next byte that br, which must wrap this reader, will return.
func (r *Reader) AdjustedOffset(br *bufio.Reader) int64 {
	return r.Request.Offset - int64(br.Buffered())
}

// maxDiscard is how much is read on to get ahead within a fragment that a new reader could open in its middle.
const maxDiscard = 1 << 20

// Seek sets the offset of the next byte if that is ahead and within the fragment that is fetched from its store, by reading up to
// it. Otherwise it returns ErrSeekRequiresNewReader and changes nothing. The end of a journal cannot be sought.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	target, err := seekTarget(r.Request.Offset, offset, whence)
	switch {
	case err != nil || target == r.Request.Offset:
		return r.Request.Offset, err
	case r.direct == nil || r.err != nil || target < r.Request.Offset || target >= r.direct.End,
		r.direct.CompressionCodec == pb.CompressionCodec_NONE && target-r.Request.Offset > maxDiscard:
		return r.Request.Offset, ErrSeekRequiresNewReader
	}
	err = ofStore(r.ctx, r.direct.discard(target))
	r.Request.Offset = r.direct.Offset
	return r.Request.Offset, err
}

func seekTarget(current, offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		return offset, nil
	case io.SeekCurrent:
		return current + offset, nil
	case io.SeekEnd:
		return 0, fault.New(fault.Invalid, "a journal cannot be read from its end backwards; read at offset -1")
	}
	return 0, fault.New(fault.Invalid, "unknown whence %d", whence)
}
