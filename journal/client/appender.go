package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Appender appends to a journal through one Append RPC. Nothing is visible to readers before Close has succeeded. Brokers
// cut off an append that stalls for about a second, so the content must be at hand.
type Appender struct {
	// Request opens the RPC.
	Request *pb.AppendRequest
	// Response is that of the broker, after Close.
	Response *pb.AppendResponse

	ctx    context.Context
	rjc    pb.RoutedJournalClient
	stream pb.Journal_AppendClient
	cancel context.CancelFunc
	chunk  pb.AppendRequest
	chunks chunking
	sent   prometheus.Counter
}

// NewAppender returns an appender. Its RPC begins with the first byte written, or with Close, and is given up when ctx ends.
func NewAppender(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.AppendRequest) *Appender {
	return &Appender{
		Request: proto.CloneOf(req), Response: new(pb.AppendResponse), ctx: ctx, rjc: rjc,
		sent: traffic.of(traffic.appended, req.GetJournal()),
	}
}

// Write sends p as one message, which must not be larger than the broker accepts: usually 4 MiB. An error is the reason
// why the append failed; nothing of it will be committed.
func (a *Appender) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // An empty message would commit.
	}
	if err := a.start(); err != nil {
		return 0, err
	}
	a.chunk.Content = p
	began := time.Now()
	err := a.stream.Send(&a.chunk)
	a.chunk.Content = nil
	if err == nil {
		a.chunks.sent(len(p), time.Since(began))
		a.sent.Add(float64(len(p)))
		return len(p), nil
	}
	return 0, a.refused(err)
}

// Close commits what was written. If it fails, the append was possibly made nevertheless.
func (a *Appender) Close() error {
	if err := a.start(); err != nil {
		return err
	}
	if err := a.stream.Send(new(pb.AppendRequest)); err != nil {
		return a.refused(err)
	}
	return a.receive()
}

// Abort makes the broker discard what was written. It waits until the broker has done so.
func (a *Appender) Abort() {
	if a.stream == nil {
		return
	}
	// Whatever it answers, it has not been told to commit.
	_, _ = a.stream.CloseAndRecv()
	a.cancel()
}

// Reset makes the appender usable for another append of the same request. It may be called after Close, Abort, and a failed
// Write.
func (a *Appender) Reset() {
	a.stream, a.Response = nil, new(pb.AppendResponse)
}

func (a *Appender) start() error {
	if a.stream != nil {
		return nil
	}
	if !a.Request.IsOpening() {
		return fault.New(fault.Invalid, "append: the request names no journal")
	}
	if err := a.Request.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(a.ctx)
	if _, ok := auth.ClaimsOf(ctx); !ok {
		ctx = auth.WithClaims(ctx, auth.ForJournal(auth.Append, pb.Journal(a.Request.Journal)))
	}
	stream, err := a.rjc.Append(pb.WithDispatchItemRoute(ctx, a.rjc, a.item(), true))
	if err != nil {
		cancel()
		return mapContext(a.ctx, err)
	}
	a.stream, a.cancel = stream, cancel
	if err := stream.Send(a.Request); err != nil {
		return a.refused(err)
	}
	return nil
}

func (a *Appender) item() string { return string(pb.Journal(a.Request.Journal).StripMeta()) }

// refused returns why a message could not be sent.
func (a *Appender) refused(err error) error {
	if !errors.Is(err, io.EOF) {
		a.cancel()
		return mapContext(a.ctx, err)
	}
	// If the connection broke before the stream had left, gRPC would now open the stream again, send what was sent so far and
	// the end: an append that is cut off. Asking for the context rules that out.
	a.stream.Context()
	if err := a.receive(); err != nil {
		return err
	}
	return fault.New(fault.Internal, "broker acknowledged an append to %s before its end", a.Request.Journal)
}

// receive ends the sending side and takes the response.
func (a *Appender) receive() error {
	defer a.cancel()
	resp, err := a.stream.CloseAndRecv()
	if err != nil {
		return mapContext(a.ctx, err)
	}
	a.Response = resp
	return answered(a.rjc, a.Request, resp)
}

// answered returns what a response means.
func answered(rjc pb.RoutedJournalClient, req *pb.AppendRequest, resp *pb.AppendResponse) error {
	if err := validateResponse("AppendResponse", resp); err != nil {
		return err
	}
	rjc.UpdateRoute(string(pb.Journal(req.Journal).StripMeta()), resp.Header.Route)

	switch resp.Status {
	case pb.Status_OK:
		return nil
	case pb.Status_REGISTER_MISMATCH:
		return registerMismatch(req, resp)
	case pb.Status_FRAGMENT_STORE_UNHEALTHY:
		return fmt.Errorf("%s: %w", resp.StoreHealthError, ErrFragmentStoreUnhealthy)
	}
	return errorOfStatus(resp.Status)
}

var (
	chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}
	// smalls has buffers for content that may share a stream with that of others.
	smalls = sync.Pool{New: func() any { return new([maxPipelined]byte) }}
)

// Append makes one append of all content, each reader from its beginning to its end; of none if there is no reader. It tries
// again while brokers are not there or do not agree on who is primary, reading the content again. Other errors are
// returned, along with the broker's response as far as there is one.
func Append(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.AppendRequest, content ...io.ReaderAt) (*pb.AppendResponse, error) {
	for attempt := 0; ; attempt++ {
		resp, err := appendOnce(ctx, rjc, req, content)
		if err == nil || !retriesAppend(err) {
			return resp, err
		}
		if err := waitBackoff(ctx, attempt); err != nil {
			return resp, err
		}
	}
}

func appendOnce(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.AppendRequest, content []io.ReaderAt) (*pb.AppendResponse, error) {
	if err := validateStart(req); err != nil {
		return new(pb.AppendResponse), err
	}
	small := smalls.Get().(*[maxPipelined]byte)
	rest := small[:]
	err := readContent(content, func(r io.ReaderAt, pos int64) (int, error) {
		n, err := r.ReadAt(rest, pos)
		if rest = rest[n:]; len(rest) == 0 {
			return n, errNotSmall
		}
		return n, err
	})
	switch {
	case err == nil:
		return appendSmall(ctx, rjc, req, small, len(small)-len(rest))
	case !errors.Is(err, errNotSmall):
		smalls.Put(small)
		return new(pb.AppendResponse), fmt.Errorf("append to %s: read content: %w", req.Journal, err)
	}
	smalls.Put(small)

	a := NewAppender(ctx, rjc, req)
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	var failed error // of the append
	err = readContent(content, func(r io.ReaderAt, pos int64) (int, error) {
		n, err := r.ReadAt(buf[:a.chunks.size()], pos)
		if n != 0 {
			if _, failed = a.Write(buf[:n]); failed != nil {
				return n, failed
			}
		}
		return n, err
	})
	switch {
	case failed != nil:
		return a.Response, failed
	case err != nil:
		a.Abort()
		return a.Response, fmt.Errorf("append to %s: read content: %w", req.Journal, err)
	}
	err = a.Close()
	return a.Response, err
}

// errNotSmall says that content fills a small buffer.
var errNotSmall = errors.New("not small")

// readContent calls read with each reader and rising positions, until it returns io.EOF.
func readContent(content []io.ReaderAt, read func(r io.ReaderAt, pos int64) (int, error)) error {
	for _, r := range content {
		for pos := int64(0); ; {
			n, err := read(r, pos)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			pos += int64(n)
		}
	}
	return nil
}

// appendSmall appends the first n bytes of a buffer of smalls, which goes back there: over a stream that is shared, or else
// by an RPC of its own.
func appendSmall(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.AppendRequest, buf *[maxPipelined]byte, n int) (*pb.AppendResponse, error) {
	resp, err := pipelinesOf(rjc).append(ctx, req, buf[:n], func() { smalls.Put(buf) })
	if !errors.Is(err, errNotPipelined) {
		traffic.of(traffic.appended, req.Journal).Add(float64(n))
		if err != nil {
			return new(pb.AppendResponse), err
		}
		return resp, answered(rjc, req, resp)
	}
	defer smalls.Put(buf)
	a := NewAppender(ctx, rjc, req)
	if _, err := a.Write(buf[:n]); err != nil {
		return a.Response, err
	}
	err = a.Close()
	return a.Response, err
}

func retriesAppend(err error) bool {
	return errors.Is(err, ErrNotJournalPrimaryBroker) ||
		errors.Is(err, ErrNoJournalPrimaryBroker) ||
		errors.Is(err, ErrInsufficientJournalBrokers) ||
		status.Code(err) == codes.Unavailable && !isStatusError(err)
}

// isStatusError tells the broker's statuses from failures of the transport.
func isStatusError(err error) bool {
	for _, s := range statusErrors {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
