package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// script answers Read RPCs: each with the next list of messages and errors. The last one repeats.
func script(rpcs ...[]any) (*broker, *atomic.Int32) {
	var count atomic.Int32
	return &broker{reads: func(_ *pb.ReadRequest, stream pb.Journal_ReadServer) error {
		n := int(count.Add(1)) - 1
		for _, m := range rpcs[min(n, len(rpcs)-1)] {
			switch m := m.(type) {
			case *pb.ReadResponse:
				if err := stream.Send(m); err != nil {
					return err
				}
			case error:
				return m
			}
		}
		return nil
	}}, &count
}

func metadata(offset, begin, end int64) *pb.ReadResponse {
	return &pb.ReadResponse{
		Header: testHeader(), Offset: offset, WriteHead: end,
		Fragment: &pb.Fragment{Journal: "test/journal", Begin: begin, End: end, Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_NONE},
	}
}

func content(offset int64, text string) *pb.ReadResponse {
	return &pb.ReadResponse{Offset: offset, Content: []byte(text)}
}

func refusal(s pb.Status) *pb.ReadResponse {
	return &pb.ReadResponse{Status: s, Header: testHeader()}
}

func head(offset int64) *pb.ReadResponse {
	return &pb.ReadResponse{Status: pb.Status_OFFSET_NOT_YET_AVAILABLE, Header: testHeader(), Offset: offset, WriteHead: offset}
}

func readRequest(offset int64) *pb.ReadRequest {
	return &pb.ReadRequest{Journal: "test/journal", Offset: offset}
}

func TestReader(t *testing.T) {
	for _, c := range []struct {
		name   string
		rpc    []any
		req    *pb.ReadRequest
		text   string // Everything that is read,
		offset int64  // where the reader is then,
		err    error  // and why it ends.
		jumps  int
	}{
		{
			name: "content to the head",
			rpc:  []any{metadata(3, 0, 8), content(3, "abc"), content(6, "de"), head(8)},
			req:  readRequest(3), text: "abcde", offset: 8, err: ErrOffsetNotYetAvailable,
		},
		{name: "end of the RPC", rpc: []any{metadata(0, 0, 2), content(0, "ab")}, req: readRequest(0), text: "ab", offset: 2, err: io.EOF},
		{name: "nothing", rpc: nil, req: readRequest(7), offset: 7, err: io.EOF},
		{
			name: "end offset", rpc: []any{metadata(0, 0, 9), content(0, "abc"), content(3, "never")},
			req: &pb.ReadRequest{Journal: "test/journal", EndOffset: 3}, text: "abc", offset: 3, err: io.EOF,
		},
		{
			name: "more than was asked for", rpc: []any{metadata(0, 0, 9), content(0, "abcdef")},
			req: &pb.ReadRequest{Journal: "test/journal", EndOffset: 3}, text: "abc", offset: 3, err: io.EOF,
		},
		{
			name: "an empty range", rpc: []any{errUnavailable},
			req: &pb.ReadRequest{Journal: "test/journal", Offset: 3, EndOffset: 3, Block: true}, offset: 3, err: io.EOF,
		},
		{
			name: "jump", rpc: []any{metadata(5, 5, 9), content(5, "abcd")},
			req: readRequest(1), text: "abcd", offset: 9, err: io.EOF, jumps: 1,
		},
		{
			name: "jump past the end offset to a persisted fragment",
			rpc: []any{func() *pb.ReadResponse {
				m := metadata(50, 50, 90)
				m.FragmentUrl = "http://store/x"
				return m
			}()},
			req: &pb.ReadRequest{Journal: "test/journal", EndOffset: 10, DoNotProxy: true}, offset: 50, err: io.EOF, jumps: 1,
		},
		{name: "the head, empty", rpc: []any{head(0)}, req: readRequest(-1), offset: 0, err: ErrOffsetNotYetAvailable, jumps: 1},
		{name: "refusal of the head", rpc: []any{refusal(pb.Status_INSUFFICIENT_JOURNAL_BROKERS)}, req: readRequest(-1), offset: -1, err: ErrInsufficientJournalBrokers},
		{name: "not allowed", rpc: []any{refusal(pb.Status_NOT_ALLOWED)}, req: readRequest(4), offset: 4, err: ErrNotAllowed},
		{name: "a status without an error of its own", rpc: []any{refusal(pb.Status_WRONG_ROUTE)}, req: readRequest(4), offset: 4, err: errorOfStatus(pb.Status_WRONG_ROUTE)},
		{
			name: "content, then a jump, then more",
			rpc:  []any{metadata(1, 0, 4), content(1, "bcd"), metadata(9, 9, 12), content(9, "jkl"), errUnavailable},
			req:  readRequest(1), text: "bcdjkl", offset: 12, err: errUnavailable, jumps: 1,
		},
		{name: "not found", rpc: []any{refusal(pb.Status_JOURNAL_NOT_FOUND)}, req: readRequest(0), err: ErrJournalNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _ := script(c.rpc)
			r := NewReader(t.Context(), b.start(t), c.req)
			var text strings.Builder
			p := make([]byte, 2)
			for {
				n, err := r.Read(p)
				text.Write(p[:n])
				if errors.Is(err, ErrOffsetJump) {
					c.jumps--
					continue
				}
				if err == nil {
					continue
				}
				_, again := r.Read(p)
				for _, err := range []error{err, again} {
					if !errors.Is(err, c.err) && err.Error() != c.err.Error() {
						t.Fatalf("got error %v, want %v", err, c.err)
					}
				}
				break
			}
			if text.String() != c.text || r.Request.Offset != c.offset || c.jumps != 0 {
				t.Errorf("read %q up to offset %d, jumps missing: %d", text.String(), r.Request.Offset, c.jumps)
			}
		})
	}
}

func TestReaderKeepsMetadata(t *testing.T) {
	b, _ := script([]any{metadata(0, 0, 4), content(0, "ab"), content(2, "cd")})
	r := NewReader(t.Context(), b.start(t), readRequest(0))
	got, err := io.ReadAll(r)
	wantNil(t, err)
	if string(got) != "abcd" || r.Response.Fragment.GetEnd() != 4 || r.Response.WriteHead != 4 {
		t.Errorf("read %q, then %v", got, r.Response)
	}
}

func TestReaderRefusesBadResponses(t *testing.T) {
	for name, rpc := range map[string][]any{
		"offset going back": {metadata(3, 0, 8), content(2, "abc")},
		"invalid":           {&pb.ReadResponse{Status: 99}},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := script(rpc)
			_, err := io.ReadAll(NewReader(t.Context(), b.start(t), readRequest(3)))
			if !fault.Is(err, fault.Internal) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReaderContexts(t *testing.T) {
	rjc := (&broker{}).start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewReader(ctx, rjc, readRequest(0)).Read(nil)
	wantErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err = NewReader(ctx, rjc, readRequest(0)).Read(nil)
	wantErrorIs(t, err, context.DeadlineExceeded)
	if _, err = NewReader(t.Context(), rjc, readRequest(-2)).Read(nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestReaderSeekAndAdjustedOffset(t *testing.T) {
	b, _ := script([]any{metadata(0, 0, 6), content(0, "ab\ncde")})
	r := NewReader(t.Context(), b.start(t), readRequest(0))
	br := bufio.NewReader(r)
	_, err := br.ReadString('\n')
	wantNil(t, err)
	if got := r.AdjustedOffset(br); got != 3 {
		t.Errorf("adjusted offset %d", got)
	}
	for _, c := range []struct {
		offset int64
		whence int
		ok     bool
	}{{6, io.SeekStart, true}, {0, io.SeekCurrent, true}, {1, io.SeekStart, false}, {1, io.SeekCurrent, false}, {0, io.SeekEnd, false}} {
		if at, err := r.Seek(c.offset, c.whence); (err == nil) != c.ok || at != 6 {
			t.Errorf("%v: at %d, %v", c, at, err)
		}
	}
}

func TestRetryReaderSurvives(t *testing.T) {
	b, _ := script(
		[]any{metadata(0, 0, 6), content(0, "ab"), errUnavailable},
		[]any{refusal(pb.Status_INSUFFICIENT_JOURNAL_BROKERS)},
		nil,
		[]any{metadata(2, 0, 6), content(2, "cd")},
		[]any{metadata(4, 0, 6), content(4, "ef"), head(6)},
	)
	rr := NewRetryReader(t.Context(), b.start(t), readRequest(0))
	defer rr.Cancel()
	got, err := io.ReadAll(rr)
	wantErrorIs(t, err, ErrOffsetNotYetAvailable)
	if string(got) != "abcdef" || rr.Offset() != 6 || rr.Journal() != "test/journal" {
		t.Errorf("read %q up to %d", got, rr.Offset())
	}
}

// endless is a broker that ends each RPC when it has sent what it knows of a fragment, and nothing of its content.
type endless struct {
	pb.NoopDispatchRouter
	pb.JournalClient
	rpcs int
}

func (e *endless) Read(context.Context, *pb.ReadRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ReadResponse], error) {
	if e.rpcs++; e.rpcs > 1000 {
		return nil, errUnavailable // which makes the reader wait
	}
	return &endlessStream{}, nil
}

type endlessStream struct {
	grpc.ClientStream
	sent bool
}

func (s *endlessStream) Recv() (*pb.ReadResponse, error) {
	if s.sent {
		return nil, io.EOF
	}
	s.sent = true
	return metadata(0, 0, 6), nil
}

// Whoever sends nothing is not asked without a pause.
func TestRetryReaderDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b := new(endless)
		_, err := io.ReadAll(NewRetryReader(ctx, b, &pb.ReadRequest{Journal: "test/journal", Block: true}))
		wantErrorIs(t, err, context.DeadlineExceeded)
		if b.rpcs < 10 || b.rpcs > 30 {
			t.Errorf("%d RPCs in a minute", b.rpcs)
		}
	})
}

func TestRetryReaderSurfaces(t *testing.T) {
	for _, c := range []struct {
		fail any
		kind fault.Kind
		rpcs int32
	}{
		{refusal(pb.Status_NOT_ALLOWED), fault.Denied, 1},
		{refusal(pb.Status_SUSPENDED), fault.Precondition, 1},
		{refusal(pb.Status_JOURNAL_NOT_FOUND), fault.NotFound, 5},
		{status.Error(codes.Unauthenticated, "who?"), fault.Unauthenticated, 1},
		{status.Error(codes.InvalidArgument, "what?"), fault.Invalid, 1},
	} {
		b, count := script([]any{c.fail})
		rr := NewRetryReader(t.Context(), b.start(t), readRequest(0))
		_, err := rr.Read(make([]byte, 1))
		if !fault.Is(err, c.kind) || count.Load() != c.rpcs {
			t.Errorf("%v: got %v after %d RPCs", c.fail, err, count.Load())
		}
		rr.Cancel()
	}
}

// A request that has come from a broker is not tried again for a journal that the broker knows of.
func TestRetryReaderBelievesAHeader(t *testing.T) {
	b, count := script([]any{refusal(pb.Status_JOURNAL_NOT_FOUND)})
	req := readRequest(0)
	req.Header = testHeader()
	rr := NewRetryReader(t.Context(), b.start(t), req)
	defer rr.Cancel()
	_, err := rr.Read(make([]byte, 1))
	wantErrorIs(t, err, ErrJournalNotFound)
	if n := count.Load(); n != 1 {
		t.Errorf("%d RPCs", n)
	}
}

func TestRetryReaderPolicy(t *testing.T) {
	b, count := script([]any{refusal(pb.Status_NOT_ALLOWED)}, []any{errUnavailable})
	rr := NewRetryReader(t.Context(), b.start(t), readRequest(0))
	defer rr.Cancel()
	rr.Policy = func(err error, _ int) bool { return fault.Is(err, fault.Transient) }
	_, err := rr.Read(make([]byte, 1))
	if !fault.Is(err, fault.Transient) || count.Load() != 2 {
		t.Errorf("got %v after %d RPCs", err, count.Load())
	}
}

// A read of the tail neither restarts at zero nor skips what is appended while its RPC is broken.
func TestRetryReaderTail(t *testing.T) {
	var count atomic.Int32
	var b broker
	b.reads = func(req *pb.ReadRequest, stream pb.Journal_ReadServer) error {
		switch count.Add(1) {
		case 1:
			return stream.Send(refusal(pb.Status_INSUFFICIENT_JOURNAL_BROKERS))
		case 2:
			if req.Offset != -1 || req.Block || !req.MetadataOnly {
				t.Errorf("got %v", req)
			}
			return stream.Send(head(10))
		case 3:
			return errUnavailable // While something was appended.
		}
		if req.Offset != 10 || !req.Block {
			t.Errorf("got %v", req)
		}
		_ = stream.Send(metadata(10, 10, 13))
		return stream.Send(content(10, "new"))
	}
	rr := NewRetryReader(t.Context(), b.start(t), &pb.ReadRequest{Journal: "test/journal", Offset: -1, Block: true})
	defer rr.Cancel()
	_, err := rr.Read(make([]byte, 9))
	wantErrorIs(t, err, ErrOffsetJump)
	if rr.Offset() != 10 {
		t.Errorf("at %d", rr.Offset())
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(rr, got); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v", got, err)
	}
}

// A range that ends before the journal does has no tail.
func TestRetryReaderTailBehindItsEnd(t *testing.T) {
	b, count := script([]any{head(10)})
	rr := NewRetryReader(t.Context(), b.start(t), &pb.ReadRequest{Journal: "test/journal", Offset: -1, EndOffset: 5, Block: true})
	defer rr.Cancel()
	_, err := rr.Read(make([]byte, 9))
	wantErrorIs(t, err, ErrOffsetJump)
	for range 2 {
		_, err = rr.Read(make([]byte, 9))
		wantErrorIs(t, err, io.EOF)
	}
	if n := count.Load(); n != 1 || rr.Offset() != 10 {
		t.Errorf("%d RPCs, at %d", n, rr.Offset())
	}
}

func TestRetryReaderCancelAndRestart(t *testing.T) {
	b := &broker{}
	rjc := b.start(t)
	s := closed(t, NewAppendService(context.Background(), rjc))
	wantNil(t, put(t, s, request("test/journal"), "0123456789").Err())

	rr := NewRetryReader(t.Context(), rjc, &pb.ReadRequest{Journal: "test/journal", Block: true})
	br := bufio.NewReader(rr)
	for _, c := range []struct {
		offset int64
		whence int
		want   int64
	}{{4, io.SeekStart, 4}, {1, io.SeekCurrent, 6}, {-5, io.SeekCurrent, 2}, {9, io.SeekStart, 9}} {
		at, err := rr.AdjustedSeek(c.offset, c.whence, br)
		if err != nil || at != c.want || rr.AdjustedOffset(br) != c.want {
			t.Fatalf("%v: at %d, %v", c, at, err)
		}
		if got, err := br.ReadByte(); err != nil || got != byte('0'+c.want) {
			t.Fatalf("%v: read %q, %v", c, got, err)
		}
	}
	if _, err := rr.Seek(0, io.SeekEnd); err == nil {
		t.Error("the end was sought")
	}
	done := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, br)
		done <- err
	}()
	rr.Cancel()
	wantErrorIs(t, <-done, context.Canceled)

	rr.Restart(&pb.ReadRequest{Journal: "test/journal", Offset: 3, EndOffset: 6, Block: true})
	defer rr.Cancel()
	got, err := io.ReadAll(rr)
	if err != nil || string(got) != "345" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestBlockedReaderIsWoken(t *testing.T) {
	b := &broker{}
	rjc := b.start(t)
	s := closed(t, NewAppendService(context.Background(), rjc))
	rr := NewRetryReader(t.Context(), rjc, &pb.ReadRequest{Journal: "test/journal", Block: true, EndOffset: 6})
	defer rr.Cancel()
	done := make(chan string)
	go func() {
		got, err := io.ReadAll(rr)
		if err != nil {
			t.Error(err)
		}
		done <- string(got)
	}()
	put(t, s, request("test/journal"), "abc")
	put(t, s, request("test/journal"), "def")
	if got := <-done; got != "abcdef" {
		t.Errorf("read %q", got)
	}
}
