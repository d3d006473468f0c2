package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

var errUnavailable = status.Error(codes.Unavailable, "broker is away")

func withoutWaiting(s *AppendService) {
	s.wait = func(ctx context.Context, _ int) error { return ctx.Err() }
}

func withMaxBatch(n int64) AppendServiceOption {
	return func(s *AppendService) { s.maxBatch = n }
}

// closed closes the service at the end of the test, with everything sent.
func closed(t *testing.T, s *AppendService) *AppendService {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

func newService(t *testing.T, b *broker, opts ...AppendServiceOption) *AppendService {
	t.Helper()
	return closed(t, NewAppendService(context.Background(), b.start(t), append(opts, withoutWaiting)...))
}

func openService(t *testing.T, rjc pb.RoutedJournalClient, dir string, opts ...AppendServiceOption) *AppendService {
	t.Helper()
	s, err := OpenAppendService(context.Background(), rjc, dir, append(opts, withoutWaiting)...)
	if err != nil {
		t.Fatal(err)
	}
	return closed(t, s)
}

func request(journal string) *pb.AppendRequest { return &pb.AppendRequest{Journal: journal} }

// put makes one release.
func put(t *testing.T, s *AppendService, req *pb.AppendRequest, content string) *AsyncAppend {
	t.Helper()
	p := s.StartAppend(req, nil)
	_, _ = p.Writer().WriteString(content)
	if err := p.Release(); err != nil {
		t.Fatalf("release %.20q: %v", content, err)
	}
	return p
}

func wantContent(t *testing.T, b *broker, journal, want string) {
	t.Helper()
	if got := b.content(journal); got != want {
		t.Errorf("journal %s has %.200q, want %.200q", journal, got, want)
	}
}

func wantNil(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrorIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func TestBatching(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	s := newService(t, b)
	first := put(t, s, request("test/journal"), "a")
	waitFor(t, func() bool { return inFlight(s, "test/journal", first) })

	// While the first is in flight, the others gather.
	second := put(t, s, request("test/journal"), "b")
	third := put(t, s, request("test/journal"), "c")
	if second == first || second != third {
		t.Error("the wrong appends share a batch")
	}
	if n, batches := s.Pending(); n != 3 || batches != 2 {
		t.Errorf("pending: %d bytes in %d batches", n, batches)
	}
	b.hold <- struct{}{}
	wantNil(t, first.Err())
	b.hold <- struct{}{}
	wantNil(t, third.Err())
	if got := third.Response().Commit; got.Begin != 1 || got.End != 3 {
		t.Errorf("got commit %v", got)
	}
	wantContent(t, b, "test/journal", "abc")
	if n := len(b.commits()); n != 2 {
		t.Errorf("%d RPCs, want 2", n)
	}
	wantNil(t, s.Drain(t.Context()))
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.queues) == 0 })
	if n, batches := s.Pending(); n != 0 || batches != 0 {
		t.Errorf("pending: %d bytes in %d batches", n, batches)
	}
}

// A goroutine that is slow to end does not drop the queue that its journal has got since: appends would overtake each other.
func TestQueueIsForgottenOnce(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	s := newService(t, b)
	first := put(t, s, request("test/journal"), "a")
	s.mu.Lock()
	old := s.queues["test/journal"]
	s.mu.Unlock()
	b.hold <- struct{}{}
	wantNil(t, first.Err())
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.queues) == 0 })

	second := put(t, s, request("test/journal"), "b")
	waitFor(t, func() bool { return inFlight(s, "test/journal", second) })
	s.forget(old)
	if _, ok := s.PendingExcept("")[second]; !ok {
		t.Error("an append under way is not pending")
	}
	third := put(t, s, request("test/journal"), "c")
	b.hold <- struct{}{}
	wantNil(t, second.Err())
	b.hold <- struct{}{}
	wantNil(t, third.Err())
	wantContent(t, b, "test/journal", "abc")
}

// inFlight reports whether the batch is being sent.
func inFlight(s *AppendService, journal pb.Journal, p *AsyncAppend) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[journal]
	q.mu.Lock()
	defer q.mu.Unlock()
	return p.sealed
}

// waitFor waits for a state that has no signal. It gives the processor away rather than sleep.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.After(testkit.Patience)
	for !cond() {
		select {
		case <-deadline:
			t.Fatal("waited too long")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestRetriesKeepOrder(t *testing.T) {
	for _, at := range []stage{atOpen, atChunk, atCommit} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			var failures atomic.Int32
			b := &broker{fail: func(_ string, s stage) error {
				if s == at && failures.Add(1) <= 3 {
					return errUnavailable
				}
				return nil
			}}
			s := newService(t, b)
			put(t, s, request("test/journal"), "a")
			put(t, s, request("test/journal"), "b")
			last := put(t, s, &pb.AppendRequest{Journal: "test/journal;meta"}, "c")
			wantNil(t, last.Err())
			wantContent(t, b, "test/journal", "abc")
		})
	}
}

func TestRollbacks(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	s := newService(t, b)
	first := put(t, s, request("test/journal"), "first ")
	waitFor(t, func() bool { return inFlight(s, "test/journal", first) })

	large := strings.Repeat("x", 3*writerSize+17)
	bad := errors.New("no good")
	var last *AsyncAppend
	for i := range 4 {
		p := s.StartAppend(request("test/journal"), nil)
		_, _ = p.Writer().WriteString(large[:i*writerSize+i])
		wantErrorIs(t, p.Require(nil).Require(bad).Require(errors.New("later")).Release(), bad)
		put(t, s, request("test/journal"), fmt.Sprint("good ", i, " "))
		last = put(t, s, request("test/journal"), large)
	}
	close(b.hold)
	wantNil(t, last.Err())
	var want strings.Builder
	want.WriteString("first ")
	for i := range 4 {
		fmt.Fprint(&want, "good ", i, " ", large)
	}
	wantContent(t, b, "test/journal", want.String())
	if n := len(b.commits()); n != 2 {
		t.Errorf("%d RPCs, want 2", n)
	}
}

func TestRollbackAloneSendsNothing(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	p := s.StartAppend(request("test/journal"), nil)
	_, _ = p.Writer().WriteString("x")
	wantErrorIs(t, p.Require(context.Canceled).Release(), context.Canceled)
	wantNil(t, p.Err())
	if len(s.PendingExcept("")) != 0 || len(b.commits()) != 0 {
		t.Error("something is left of it")
	}
}

func TestEmptyReleaseIsABarrier(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	wantNil(t, put(t, s, request("test/journal"), "").Err())
	if n := len(b.commits()); n != 1 {
		t.Errorf("%d RPCs, want 1", n)
	}
}

func TestBatchesSplit(t *testing.T) {
	b := &broker{hold: make(chan struct{}, 100)}
	s := newService(t, b, withMaxBatch(4))
	var last *AsyncAppend
	for range 3 {
		put(t, s, request("test/journal"), "12345")
	}
	for i := range 3 {
		put(t, s, request("test/journal"), "a")
		last = put(t, s, &pb.AppendRequest{Journal: "test/journal", UnionRegisters: pb.MustLabelSet("nn", fmt.Sprint(i))}, "b")
	}
	for range 100 {
		b.hold <- struct{}{}
	}
	wantNil(t, last.Err())
	wantContent(t, b, "test/journal", "123451234512345ababab")
	if n := len(b.commits()); n < 6 {
		t.Errorf("%d RPCs, want at least 6", n)
	}
}

func TestDependencies(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	op := NewAsyncOperation()
	p := s.StartAppend(request("test/journal"), OpFutures{op: {}})
	_, _ = p.Writer().WriteString("a")
	wantNil(t, p.Release())
	// Another one with the same dependency, or none, joins; one with a new dependency does not.
	join := put(t, s, request("test/journal"), "b")
	other := s.StartAppend(request("test/journal"), OpFutures{FinishedOperation(nil): {}})
	wantNil(t, other.Release())
	if other == p {
		t.Error("an append with another dependency has joined")
	}
	select {
	case <-p.Done():
		t.Fatal("the append did not wait")
	default:
	}
	op.Resolve(nil)
	wantNil(t, join.Err())
	wantNil(t, other.Err())
	wantContent(t, b, "test/journal", "ab")
}

func TestFailedDependency(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	bad := errors.New("bad")
	p := s.StartAppend(request("test/journal"), OpFutures{FinishedOperation(bad): {}})
	_, _ = p.Writer().WriteString("never")
	wantNil(t, p.Release())
	wantErrorIs(t, p.Err(), bad)
	if !strings.HasPrefix(p.Err().Error(), "dependency failed: ") {
		t.Errorf("got %v", p.Err())
	}
	// It cascades to who depends on it, and the journal works on.
	chained := s.StartAppend(request("test/other"), s.PendingExcept(""))
	wantNil(t, chained.Release())
	wantErrorIs(t, chained.Err(), bad)
	wantNil(t, put(t, s, request("test/journal"), "next").Err())
	wantContent(t, b, "test/journal", "next")
	waitFor(t, func() bool { return len(s.PendingExcept("test/other")) == 0 })
}

func TestBarriersAroundACycle(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	journals := []string{"cycle/a", "cycle/b", "cycle/c"}
	var last *AsyncAppend
	for i := range 9 {
		j := journals[i%3]
		last = s.StartAppend(request(j), s.PendingExcept(pb.Journal(j)))
		fmt.Fprint(last.Writer(), i)
		wantNil(t, last.Release())
	}
	wantNil(t, last.Err())
	var order []string
	for _, c := range b.commits() {
		order = append(order, string(c.content))
	}
	if got := strings.Join(order, ""); got != "012345678" {
		t.Errorf("order %s", got)
	}
}

func TestPermanentFailures(t *testing.T) {
	for _, c := range []struct {
		fail error
		want error
	}{
		{brokerStatus(pb.Status_JOURNAL_NOT_FOUND), ErrJournalNotFound},
		{brokerStatus(pb.Status_NOT_ALLOWED), ErrNotAllowed},
		{brokerStatus(pb.Status_REGISTER_MISMATCH), ErrRegisterMismatch},
		{brokerStatus(pb.Status_WRONG_APPEND_OFFSET), ErrWrongAppendOffset},
		{brokerStatus(pb.Status_INDEX_HAS_GREATER_OFFSET), ErrIndexHasGreaterOffset},
		{brokerStatus(pb.Status_FRAGMENT_STORE_UNHEALTHY), ErrFragmentStoreUnhealthy},
		{status.Error(codes.InvalidArgument, "no"), nil},
	} {
		t.Run(c.fail.Error(), func(t *testing.T) {
			var fail atomic.Bool
			var count atomic.Int32
			fail.Store(true)
			b := &broker{fail: func(_ string, at stage) error {
				if at == atOpen && fail.Load() {
					count.Add(1)
					return c.fail
				}
				return nil
			}}
			s := newService(t, b)
			p := put(t, s, request("test/journal"), "lost")
			err := p.Err()
			if c.want != nil {
				wantErrorIs(t, err, c.want)
			} else if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
			if n := count.Load(); n != 1 {
				t.Errorf("%d attempts", n)
			}
			if err := s.Drain(t.Context()); err == nil {
				t.Error("Drain hides the failure")
			}
			fail.Store(false)
			wantNil(t, put(t, s, request("test/journal"), "next").Err())
			if err := s.Drain(t.Context()); err == nil {
				t.Error("Drain forgets the failure")
			}
			if n := len(s.PendingExcept("")); n != 0 {
				t.Errorf("%d futures are pending", n)
			}
			wantContent(t, b, "test/journal", "next")
		})
	}
}

// Who may not append is told soon, but not before keys can have been changed.
func TestUnauthorizedIsPermanent(t *testing.T) {
	for _, code := range []codes.Code{codes.Unauthenticated, codes.PermissionDenied} {
		for _, passes := range []bool{true, false} {
			var count atomic.Int32
			b := &broker{fail: func(_ string, at stage) error {
				if at == atOpen && (count.Add(1) < 4 || !passes) {
					return status.Error(code, "who are you?")
				}
				return nil
			}}
			p := put(t, newService(t, b), request("test/journal"), "a")
			if err := p.Err(); passes != (err == nil) || !passes && count.Load() != 6 {
				t.Errorf("%s: %v after %d attempts", code, err, count.Load())
			}
		}
	}
}

// That a journal is suspended is an answer to who asked for it, or said not to resume it.
func TestSuspendedIsPermanent(t *testing.T) {
	b := &broker{fail: func(_ string, at stage) error {
		if at == atCommit {
			return brokerStatus(pb.Status_SUSPENDED)
		}
		return nil
	}}
	s := newService(t, b)
	for _, mode := range []pb.AppendRequest_Suspend{pb.AppendRequest_SUSPEND_NOW, pb.AppendRequest_SUSPEND_NO_RESUME, pb.AppendRequest_SUSPEND_KEEP} {
		wantErrorIs(t, put(t, s, &pb.AppendRequest{Journal: "test/journal", Suspend: mode}, "").Err(), ErrSuspended)
	}
}

// Appends share a batch only if every field of their requests is the same.
func TestEqualRequests(t *testing.T) {
	fields := new(pb.AppendRequest).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		a, b := request("test/journal"), request("test/journal")
		r := b.ProtoReflect()
		switch {
		case d.Message() != nil:
			r.Set(d, r.NewField(d)) // Being there is different from not being there.
		case d.Kind() == protoreflect.StringKind:
			r.Set(d, protoreflect.ValueOfString("test/other"))
		case d.Kind() == protoreflect.BoolKind:
			r.Set(d, protoreflect.ValueOfBool(true))
		case d.Kind() == protoreflect.Int64Kind:
			r.Set(d, protoreflect.ValueOfInt64(1))
		case d.Kind() == protoreflect.EnumKind:
			r.Set(d, protoreflect.ValueOfEnum(1))
		case d.Name() == "content":
			continue // An opening has none.
		default:
			t.Fatalf("a field of a kind that the test does not know: %s", d.FullName())
		}
		if equalRequests(a, b) || equalRequests(b, a) || !equalRequests(b, proto.CloneOf(b)) {
			t.Errorf("%s is not compared", d.Name())
		}
	}
}

func TestFencedRetry(t *testing.T) {
	var count atomic.Int32
	b := &broker{fail: func(_ string, at stage) error {
		if at == atOpen && count.Add(1) < 4 {
			return brokerStatus(pb.Status_REGISTER_MISMATCH)
		}
		return nil
	}}
	s := newService(t, b, WithFencedRetry())
	req := &pb.AppendRequest{Journal: "test/journal", CheckRegisters: pb.Must(pb.ParseLabelSelector("me=1"))}
	wantNil(t, put(t, s, req, "a").Err())
}

func TestInvalidRequests(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	for _, req := range []*pb.AppendRequest{
		{}, {Journal: "bad name"}, {Journal: "test/journal", Content: []byte("x")}, {Journal: "test/journal", Offset: -1},
	} {
		p := s.StartAppend(req, nil)
		_, _ = p.Writer().WriteString("x")
		if err := p.Release(); !fault.Is(err, fault.Invalid) || !errors.Is(p.Err(), err) {
			t.Errorf("%v: released with %v", req, err)
		}
	}
	p := s.StartAppend(&pb.AppendRequest{Journal: "test/journal", UnionRegisters: pb.MustLabelSet("aa", "b")}, nil)
	wantNil(t, p.Release())
	if !fault.Is(p.Err(), fault.Invalid) {
		t.Errorf("registers without content: %v", p.Err())
	}
	if len(b.commits()) != 0 {
		t.Error("something was sent")
	}
}

func TestContextEnds(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	s := closed(t, NewAppendService(ctx, b.start(t), withoutWaiting))
	first := put(t, s, request("test/journal"), "a")
	waitFor(t, func() bool { return inFlight(s, "test/journal", first) })
	second := put(t, s, request("test/journal"), "b")
	dependent := s.StartAppend(request("test/other"), OpFutures{second: {}})
	wantNil(t, dependent.Release())
	held := s.StartAppend(request("test/held"), nil)

	cancel()
	wantErrorIs(t, first.Err(), context.Canceled)
	wantErrorIs(t, second.Err(), context.Canceled)
	wantErrorIs(t, dependent.Err(), context.Canceled)
	wantErrorIs(t, held.Release(), context.Canceled)
	late := s.StartAppend(request("test/late"), nil)
	wantErrorIs(t, late.Release(), context.Canceled)
	wantErrorIs(t, s.WaitForRoom(ctx, 1), nil)
}

// A journal has one goroutine while it has something to send, and else none.
func TestGoroutines(t *testing.T) {
	senders := func() int {
		buf := make([]byte, 1<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), "client.(*queue).run(")
	}
	b := &broker{hold: make(chan struct{})}
	s := newService(t, b)
	const journals = 50
	var ops []*AsyncAppend
	for i := range journals {
		p := s.StartAppend(request(fmt.Sprint("test/", i)), nil)
		if n := senders(); n > i {
			t.Fatalf("%d goroutines with %d journals, and one that is only being written to", n, i)
		}
		_, _ = p.Writer().WriteString("x")
		wantNil(t, p.Release())
		ops = append(ops, p, put(t, s, request(fmt.Sprint("test/", i)), "y"))
	}
	waitFor(t, func() bool { return senders() == journals })
	close(b.hold)
	for _, p := range ops {
		wantNil(t, p.Err())
	}
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queues) == 0
	})
	waitFor(t, func() bool { return senders() == 0 })
	wantNil(t, put(t, s, request("test/1"), "z").Err()) // It begins again.
	wantContent(t, b, "test/1", "xyz")
}

func TestReleaseWithoutHoldPanics(t *testing.T) {
	s := newService(t, &broker{})
	p := put(t, s, request("test/journal"), "a")
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	_ = p.Release()
}

func TestManyWriters(t *testing.T) {
	b := &broker{}
	s := newService(t, b, withMaxBatch(1000))
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				p := s.StartAppend(request(fmt.Sprintf("test/journal-%d", i%2)), nil)
				fmt.Fprintf(p.Writer(), "%d.%d\n", w, i)
				if err := p.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantNil(t, s.Drain(t.Context()))
	last := make(map[string]int)
	lines := 0
	for j := range 2 {
		for line := range strings.Lines(b.content(fmt.Sprintf("test/journal-%d", j))) {
			var w, i int
			if _, err := fmt.Sscanf(line, "%d.%d", &w, &i); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			key := fmt.Sprint(w, " ", j)
			if prev, ok := last[key]; ok && i != prev+2 {
				t.Errorf("writer %d: %d after %d", w, i, prev)
			}
			last[key] = i
			lines++
		}
	}
	if lines != writers*each {
		t.Errorf("%d lines", lines)
	}
}

func TestLargeRelease(t *testing.T) {
	b := &broker{}
	s := newService(t, b)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	p := s.StartAppend(request("test/journal"), nil)
	_, _ = p.Writer().Write(content)
	_, _ = p.Writer().Write(content[:777])
	wantNil(t, p.Release())
	wantNil(t, p.Err())
	wantContent(t, b, "test/journal", string(content)+string(content[:777]))
}
