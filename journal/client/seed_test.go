package client_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// The published interface of the client, item by item. Messages travel as pointers; nothing else of it is different.
var (
	_ func(context.Context, pb.RoutedJournalClient, *pb.AppendRequest, ...io.ReaderAt) (*pb.AppendResponse, error) = client.Append
	_ func(context.Context, pb.JournalClient, *pb.ApplyRequest) (*pb.ApplyResponse, error)                         = client.ApplyJournals
	_ func(context.Context, pb.JournalClient, *pb.ApplyRequest, int) (*pb.ApplyResponse, error)                    = client.ApplyJournalsInBatches
	_ func(context.Context, pb.JournalClient, pb.Journal) (*pb.JournalSpec, error)                                 = client.GetJournal
	_ func(root string) (remove func())                                                                            = client.InstallFileTransport
	_ func(context.Context, pb.RoutedJournalClient, *pb.FragmentsRequest) (*pb.FragmentsResponse, error)           = client.ListAllFragments
	_ func(context.Context, pb.JournalClient, *pb.ListRequest) (*pb.ListResponse, error)                           = client.ListAllJournals
	_ func(pb.Journal_ListClient, *pb.ListRequest) (*pb.ListResponse, error)                                       = client.ReadListResponse

	_ client.AsyncJournalClient                                                                = (*client.AppendService)(nil)
	_ pb.RoutedJournalClient                                                                   = client.AppendService{}.RoutedJournalClient
	_ func(*client.AppendService, *pb.AppendRequest, client.OpFutures) *client.AsyncAppend     = (*client.AppendService).StartAppend
	_ func(*client.AppendService, pb.Journal) client.OpFutures                                 = (*client.AppendService).PendingExcept
	_ func(context.Context, pb.RoutedJournalClient, *pb.AppendRequest) *client.Appender        = client.NewAppender
	_ io.WriteCloser                                                                           = (*client.Appender)(nil)
	_ func(*client.Appender)                                                                   = (*client.Appender).Abort
	_ client.OpFuture                                                                          = (*client.AsyncAppend)(nil)
	_ func(*client.AsyncAppend) error                                                          = (*client.AsyncAppend).Release
	_ func(*client.AsyncAppend) *pb.AppendRequest                                              = (*client.AsyncAppend).Request
	_ func(*client.AsyncAppend, error) *client.AsyncAppend                                     = (*client.AsyncAppend).Require
	_ func(*client.AsyncAppend) *pb.AppendResponse                                             = (*client.AsyncAppend).Response
	_ func(*client.AsyncAppend) *bufio.Writer                                                  = (*client.AsyncAppend).Writer
	_ client.OpFuture                                                                          = (*client.AsyncOperation)(nil)
	_ func() *client.AsyncOperation                                                            = client.NewAsyncOperation
	_ func(*client.AsyncOperation, error)                                                      = (*client.AsyncOperation).Resolve
	_ func(error) client.OpFuture                                                              = client.FinishedOperation
	_ map[client.OpFuture]struct{}                                                             = client.OpFutures(nil)
	_ func(client.OpFutures, client.OpFutures) bool                                            = client.OpFutures.IsSubsetOf
	_ func(io.ReadCloser, *pb.Fragment, int64) (*client.FragmentReader, error)                 = client.NewFragmentReader
	_ func(context.Context, *pb.Fragment, int64, string) (*client.FragmentReader, error)       = client.OpenFragmentURL
	_ io.ReadCloser                                                                            = (*client.FragmentReader)(nil)
	_ func(context.Context, pb.RoutedJournalClient, *pb.ReadRequest) *client.Reader            = client.NewReader
	_ io.ReadSeeker                                                                            = (*client.Reader)(nil)
	_ func(*client.Reader, *bufio.Reader) int64                                                = (*client.Reader).AdjustedOffset
	_ func(context.Context, pb.RoutedJournalClient, *pb.ReadRequest) *client.RetryReader       = client.NewRetryReader
	_ io.ReadSeeker                                                                            = (*client.RetryReader)(nil)
	_ func(*client.RetryReader, *bufio.Reader) int64                                           = (*client.RetryReader).AdjustedOffset
	_ func(*client.RetryReader, int64, int, *bufio.Reader) (int64, error)                      = (*client.RetryReader).AdjustedSeek
	_ func(*client.RetryReader) pb.Journal                                                     = (*client.RetryReader).Journal
	_ func(*client.RetryReader) int64                                                          = (*client.RetryReader).Offset
	_ func(*client.RetryReader, *pb.ReadRequest)                                               = (*client.RetryReader).Restart
	_ func(int, time.Duration) *client.RouteCache                                              = client.NewRouteCache
	_ pb.DispatchRouter                                                                        = (*client.RouteCache)(nil)
	_ func(context.Context, pb.JournalClient, *pb.ListRequest, chan error) *client.WatchedList = client.NewWatchedList
	_ func(*client.WatchedList) *pb.ListResponse                                               = (*client.WatchedList).List
	_ func(*client.WatchedList) <-chan error                                                   = (*client.WatchedList).UpdateCh
)

// Further options are optional.
func newAppendService(ctx context.Context, rjc pb.RoutedJournalClient) *client.AppendService {
	return client.NewAppendService(ctx, rjc)
}

// Fields that callers read and write.
var (
	_ = client.Appender{Request: (*pb.AppendRequest)(nil), Response: (*pb.AppendResponse)(nil)}
	_ = client.FragmentReader{Fragment: (*pb.Fragment)(nil), Offset: int64(0)}
	_ = client.Reader{Request: (*pb.ReadRequest)(nil), Response: (*pb.ReadResponse)(nil)}
	_ = client.RetryReader{
		Context: context.Context(nil), Client: pb.RoutedJournalClient(nil), Reader: (*client.Reader)(nil), Cancel: context.CancelFunc(nil),
	}
)

// The text of an error is part of its interface.
func TestErrorTexts(t *testing.T) {
	for err, want := range map[error]string{
		client.ErrInsufficientJournalBrokers: pb.Status_INSUFFICIENT_JOURNAL_BROKERS.String(),
		client.ErrJournalNotFound:            pb.Status_JOURNAL_NOT_FOUND.String(),
		client.ErrNotJournalBroker:           pb.Status_NOT_JOURNAL_BROKER.String(),
		client.ErrNotJournalPrimaryBroker:    pb.Status_NOT_JOURNAL_PRIMARY_BROKER.String(),
		client.ErrOffsetNotYetAvailable:      pb.Status_OFFSET_NOT_YET_AVAILABLE.String(),
		client.ErrRegisterMismatch:           pb.Status_REGISTER_MISMATCH.String(),
		client.ErrWrongAppendOffset:          pb.Status_WRONG_APPEND_OFFSET.String(),
		client.ErrNoJournalPrimaryBroker:     "NO_JOURNAL_PRIMARY_BROKER",
		client.ErrSuspended:                  "SUSPENDED",
		client.ErrIndexHasGreaterOffset:      "INDEX_HAS_GREATER_OFFSET",
		client.ErrNotAllowed:                 "NOT_ALLOWED",
		client.ErrFragmentStoreUnhealthy:     "FRAGMENT_STORE_UNHEALTHY",
		client.ErrOffsetJump:                 "offset jump",
		client.ErrSeekRequiresNewReader:      "seek offset requires new Reader",
		client.ErrDidNotReadExpectedEOF:      "did not read EOF at expected Fragment.End",
	} {
		if err.Error() != want {
			t.Errorf("%q instead of %q", err, want)
		}
	}
}

// The examples of the published documentation.
func TestPublishedExamples(t *testing.T) {
	f := newFleet(t, nil, "east")
	f.add("a/journal/name", 0)
	rjc := pb.NewRoutedJournalClient(f.dial(0, client.DialConfig{}), client.NewRouteCache(256, time.Hour))

	// Copy an input to a journal.
	a := client.NewAppender(t.Context(), rjc, &pb.AppendRequest{Journal: "a/journal/name"})
	_, err := io.Copy(a, strings.NewReader("standard input"))
	check(t, errors.Join(err, a.Close()))
	if a.Response.Commit.GetEnd() != 14 {
		t.Errorf("%v", a.Response)
	}
	// Roll back.
	b := client.NewAppender(t.Context(), rjc, &pb.AppendRequest{Journal: "a/journal/name"})
	_, err = io.WriteString(b, "never seen")
	check(t, err)
	b.Abort()

	// Append in the background, behind other operations.
	mine := client.NewAsyncOperation()
	as := newAppendService(t.Context(), rjc)
	op := as.StartAppend(&pb.AppendRequest{Journal: "a/journal/name"}, client.OpFutures{mine: {}})
	_, _ = op.Writer().WriteString("hello, ")
	_, _ = op.Writer().WriteString("gazette: ")
	_, err = io.Copy(op.Writer(), strings.NewReader("input"))
	check(t, op.Require(err).Release())
	select {
	case <-op.Done():
		t.Error("the append did not wait for what it depends on")
	default:
	}
	pending := as.PendingExcept("other/journal")
	if !(client.OpFutures{op: {}}).IsSubsetOf(pending) || len(as.PendingExcept("a/journal/name")) != 0 {
		t.Errorf("pending: %v", pending)
	}
	mine.Resolve(nil)
	check(t, op.Err())
	if op.Response().Commit.GetBegin() != 14 || op.Request().Journal != "a/journal/name" {
		t.Errorf("%v", op.Response())
	}
	check(t, as.Close(t.Context()))

	// Copy a range of a journal to an output.
	var out strings.Builder
	n, err := io.Copy(&out, client.NewReader(t.Context(), rjc, &pb.ReadRequest{Journal: "a/journal/name", Offset: 9, EndOffset: 20}))
	if err != nil || n != 11 || out.String() != "inputhello," {
		t.Errorf("%q, %v", out.String(), err)
	}

	// Read a line, look at the place, go back.
	rr := client.NewRetryReader(t.Context(), rjc, &pb.ReadRequest{Journal: "a/journal/name"})
	br := bufio.NewReader(rr)
	word, err := br.ReadString(' ')
	check(t, err)
	if word != "standard " || rr.AdjustedOffset(br) != 9 || rr.Journal() != "a/journal/name" || rr.Offset() < 9 {
		t.Errorf("%q, then at %d of %d", word, rr.AdjustedOffset(br), rr.Offset())
	}
	if at, err := rr.AdjustedSeek(-5, io.SeekCurrent, br); at != 4 || err != nil {
		t.Errorf("%d, %v", at, err)
	}
	if _, err := rr.Seek(0, io.SeekEnd); err == nil {
		t.Error("the end was sought")
	}
	rr.Cancel()
	_, err = rr.Read(make([]byte, 1))
	wantIs(t, err, context.Canceled)
	rr.Restart(&pb.ReadRequest{Journal: "a/journal/name", Offset: 30, Block: true, EndOffset: 31})
	if got, err := io.ReadAll(rr); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	rr.Cancel()
}
