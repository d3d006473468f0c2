package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// RetryReader is a Reader that survives: when its RPC ends or fails it begins another one where that stopped.
//
// A request with Offset -1 first asks where the journal ends, and Read returns ErrOffsetJump with the answer; from then on
// nothing that is appended is missed, however often the RPC is begun again.
//
// It is used by one goroutine at a time, except that Cancel may be called by any.
type RetryReader struct {
	// Context is the parent of the contexts of the underlying readers.
	Context context.Context
	// Client is what the underlying readers use.
	Client pb.RoutedJournalClient
	// Reader is the current underlying reader. It changes with each RPC. Its Request may be modified between Reads and
	// applies to the next RPC.
	Reader *Reader
	// Cancel makes a Read that waits, and all later ones, return context.Canceled, until Restart.
	Cancel context.CancelFunc
	// Policy decides which errors Read returns. nil is DefaultErrorPolicy.
	Policy ErrorPolicy
	// Logger gets the errors that are retried. nil discards them.
	Logger *slog.Logger

	// Attempts, and ends of RPCs, since there was content.
	failed, ended int
}

// ErrorPolicy reports whether a RetryReader returns err from Read, rather than trying again. Attempt counts the failures
// since there was content, from zero.
//
// It is not asked about the end of the context, the EndOffset, an ErrOffsetJump, or the ErrOffsetNotYetAvailable of a request
// that does not block, which are always returned; nor about the end of an RPC without an error, after which there is always
// another one.
type ErrorPolicy func(err error, attempt int) bool

// DefaultErrorPolicy returns errors that another attempt would not change: requests that are invalid, not allowed or not
// authorized, content that is damaged, journals that are suspended, ones that do not exist after 300 ms, which covers those just
// created, and fragments that their store has refused as often, each time with a fresh URL.
func DefaultErrorPolicy(err error, attempt int) bool {
	kind := fault.KindOf(err)
	_, store := errors.AsType[*storeError](err)
	switch {
	case errors.Is(err, ErrJournalNotFound), store && kind != fault.Transient && kind != fault.DataLoss:
		return attempt >= 4
	case errors.Is(err, ErrSuspended):
		return true
	}
	switch kind {
	case fault.Invalid, fault.Denied, fault.Unauthenticated, fault.Unimplemented, fault.DataLoss:
		return true
	}
	return false
}

// NewRetryReader returns a reader of the request, which lasts until ctx ends.
func NewRetryReader(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.ReadRequest) *RetryReader {
	rr := &RetryReader{Context: ctx, Client: rjc}
	rr.Restart(req)
	return rr
}

// Restart begins anew with another request. Call Cancel before, or the old RPC lasts as long as Context.
func (rr *RetryReader) Restart(req *pb.ReadRequest) {
	ctx, cancel := context.WithCancel(rr.Context)
	rr.Reader = NewReader(ctx, rr.Client, req)
	rr.Cancel = cancel
}

// Journal returns the journal that is read.
func (rr *RetryReader) Journal() pb.Journal { return pb.Journal(rr.Reader.Request.Journal) }

// Offset returns the offset of the next byte that Read returns.
func (rr *RetryReader) Offset() int64 { return rr.Reader.Request.Offset }

// Read returns the next bytes, and waits for them when the request blocks. Like that of a Reader it may return zero bytes
// without an error. The errors it returns are
//
//   - that of the context, once Cancel was called or Context ended;
//   - io.EOF at the request's EndOffset;
//   - ErrOffsetNotYetAvailable at the write head, unless the request blocks;
//   - ErrOffsetJump, after which Read may be called again;
//   - those that Policy does not want to be retried.
func (rr *RetryReader) Read(p []byte) (int, error) {
	// The end of an RPC may be tried again at once, but not for ever: a broker may end each one without having sent anything.
	ends, attempt := rr.ended, rr.failed
	rr.failed, rr.ended = 0, 0
	for ; ; attempt++ {
		n, err := rr.readOnce(p)
		if err == nil && n == 0 {
			rr.failed, rr.ended = attempt, ends // Metadata may precede another failure.
		}
		if err == nil || errors.Is(err, ErrOffsetJump) {
			return n, err
		}
		req := rr.Reader.Request
		if errors.Is(err, io.EOF) && req.EndOffset != 0 && req.Offset >= req.EndOffset {
			return n, err
		}
		ctx := rr.Reader.ctx
		rr.Reader = rr.Reader.again()

		switch {
		case ctx.Err() != nil && isContextError(err),
			errors.Is(err, ErrOffsetNotYetAvailable) && !req.Block,
			errors.Is(err, ErrJournalNotFound) && req.Header != nil:
			return n, err
		case fault.Is(err, fault.DataLoss) && rr.surfaces(err, attempt):
			return n, err // At once, since another Read would go on behind the damage.
		case n != 0:
			return n, nil // The rest of it with the next Read.
		case errors.Is(err, io.EOF):
			if ends++; ends == 1 {
				attempt = -1
				continue
			}
		case errors.Is(err, ErrOffsetNotYetAvailable):
			// Block was turned on meanwhile.
		case rr.surfaces(err, attempt):
			return 0, err
		default:
			rr.log(err, attempt)
		}
		if err := waitBackoff(ctx, attempt); err != nil {
			return 0, err
		}
	}
}

func (rr *RetryReader) surfaces(err error, attempt int) bool {
	if rr.Policy == nil {
		return DefaultErrorPolicy(err, attempt)
	}
	return rr.Policy(err, attempt)
}

func (rr *RetryReader) log(err error, attempt int) {
	routing := errors.Is(err, ErrInsufficientJournalBrokers) || errors.Is(err, ErrNotJournalBroker)
	if rr.Logger == nil || routing && attempt == 0 {
		return
	}
	rr.Logger.Warn("read failed, trying again", "journal", rr.Journal(), "offset", rr.Offset(), "attempt", attempt, "error", err)
}

// readOnce reads, or finds the write head if that is where the reader shall begin.
func (rr *RetryReader) readOnce(p []byte) (int, error) {
	if pb.Offset(rr.Offset()) != pb.OffsetHead {
		return rr.Reader.Read(p)
	}
	head, err := rr.findHead()
	if err == nil && head.Request.Offset == 0 {
		// A broker that was given the journal just now may not know yet what is in its stores. It lists fragments when it does.
		if err = rr.awaitListing(); err == nil {
			head, err = rr.findHead()
		}
	}
	if err != nil {
		return 0, err
	}
	rr.Reader.Request.Offset, rr.Reader.Response = head.Request.Offset, head.Response
	if rr.Reader.atEnd() {
		rr.Reader.err = io.EOF
	}
	return 0, ErrOffsetJump
}

// findHead returns a reader that has found the write head.
func (rr *RetryReader) findHead() (*Reader, error) {
	req := proto.CloneOf(rr.Reader.Request)
	req.Block, req.MetadataOnly = false, true
	probe := NewReader(rr.Reader.ctx, rr.Client, req)
	probe.route = rr.Reader.route
	for {
		_, err := probe.Read(nil)
		if err == nil {
			continue
		}
		rr.Reader.route = probe.route // Also a refusal tells where to ask next.
		if !errors.Is(err, ErrOffsetJump) {
			return nil, err
		}
		head := &Reader{Request: proto.CloneOf(probe.Request), Response: probe.Response}
		// Nothing else is wanted of this RPC; reading on ends it.
		_, _ = probe.Read(nil)
		probe.cancel()
		return head, nil
	}
}

// awaitListing returns when the broker that was asked for the head has listed the stores of the journal.
func (rr *RetryReader) awaitListing() error {
	ctx := rr.Reader.ctx
	rpcCtx := pb.WithDispatchItemRoute(ctx, rr.Client, rr.Reader.item(), false)
	if rr.Reader.route != nil {
		rpcCtx = pb.WithDispatchRoute(ctx, rr.Reader.route, nil)
	}
	resp, err := rr.Client.ListFragments(rpcCtx, &pb.FragmentsRequest{
		Journal: string(rr.Journal()), PageLimit: 1, DoNotProxy: rr.Reader.Request.DoNotProxy,
	})
	switch {
	case err != nil:
		return mapContext(ctx, err)
	case resp.GetStatus() != pb.Status_OK:
		return errorOfStatus(resp.GetStatus())
	}
	return nil
}

// AdjustedOffset returns the offset of the next byte that br, which must wrap this reader, will return.
func (rr *RetryReader) AdjustedOffset(br *bufio.Reader) int64 { return rr.Reader.AdjustedOffset(br) }

// Seek sets the offset of the next Read. The end of a journal cannot be sought.
func (rr *RetryReader) Seek(offset int64, whence int) (int64, error) {
	target, err := seekTarget(rr.Offset(), offset, whence)
	if err != nil {
		return rr.Offset(), err
	}
	if _, err := rr.Reader.Seek(target, io.SeekStart); err == nil {
		return target, nil
	}
	rr.Cancel()
	req := rr.Reader.Request
	req.Offset = target
	rr.Restart(req)
	return target, nil
}

// AdjustedSeek sets the offset of the next byte that br, which must wrap this reader, will return. If br has it in its buffer,
// what is before it is discarded.
func (rr *RetryReader) AdjustedSeek(offset int64, whence int, br *bufio.Reader) (int64, error) {
	target, err := seekTarget(rr.AdjustedOffset(br), offset, whence)
	if err != nil {
		return rr.AdjustedOffset(br), err
	}
	if skip := target - rr.AdjustedOffset(br); skip >= 0 && skip <= int64(br.Buffered()) {
		_, err := br.Discard(int(skip))
		return target, err
	}
	if _, err := rr.Seek(target, io.SeekStart); err != nil {
		return rr.Offset(), err
	}
	br.Reset(rr)
	return target, nil
}
