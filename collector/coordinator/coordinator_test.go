package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a Coordinator that counts, and answers what it is told to.
type fake struct {
	mu         sync.Mutex
	registered int
	terminated int
	register   func(context.Context, *LogStreamState, []byte) (*LogStreamState, error)
	terminate  func(context.Context, *TerminateRequest) error
}

func (f *fake) RegisterStream(ctx context.Context, s *LogStreamState, desc []byte) (*LogStreamState, error) {
	f.mu.Lock()
	f.registered++
	f.mu.Unlock()
	if f.register != nil {
		return f.register(ctx, s, desc)
	}
	out := *s
	out.ID = "id of " + string(s.Path)
	return &out, nil
}

func (f *fake) TerminateStream(ctx context.Context, r *TerminateRequest) error {
	f.mu.Lock()
	f.terminated++
	f.mu.Unlock()
	if f.terminate != nil {
		return f.terminate(ctx, r)
	}
	return nil
}

func (f *fake) calls(t *testing.T, registered, terminated int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registered != registered || f.terminated != terminated {
		t.Errorf("%d registrations and %d terminations, want %d and %d", f.registered, f.terminated, registered, terminated)
	}
}

var secret = types.PrefixSecret("a secret of exactly thirty-six bytes")

func open(project types.Project, path types.StreamPath) *LogStreamState {
	return &LogStreamState{Project: project, Path: path, ProtoVersion: "1", Secret: secret, TerminalIndex: -1}
}

func ended(path types.StreamPath, index types.MessageIndex) *TerminateRequest {
	return &TerminateRequest{Project: "p", Path: path, ID: "id", TerminalIndex: index, Secret: secret}
}

func TestCacheRemembersUntilExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		c := NewCache(f, 0, 0)
		for range 3 {
			s, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil)
			if err != nil || s.ID != "id of a/+/b" {
				t.Fatal(s, err)
			}
		}
		f.calls(t, 1, 0)
		time.Sleep(DefaultExpiration)
		if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err != nil {
			t.Fatal(err)
		}
		f.calls(t, 2, 0)
		// The same path in another project is another stream.
		if _, err := c.RegisterStream(t.Context(), open("q", "a/+/b"), nil); err != nil {
			t.Fatal(err)
		}
		f.calls(t, 3, 0)
		reg := prometheus.NewRegistry()
		reg.MustRegister(c.(prometheus.Collector))
		got, err := reg.Gather()
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		misses, hits := got[0].GetMetric()[0].GetCounter().GetValue(), got[0].GetMetric()[1].GetCounter().GetValue()
		if hits != 2 || misses != 3 {
			t.Errorf("%v hits and %v misses, want 2 and 3", hits, misses)
		}
	})
}

func TestCacheEvicts(t *testing.T) {
	f := new(fake)
	c := NewCache(f, 2, time.Hour)
	for _, path := range []types.StreamPath{"a/+/1", "a/+/2", "a/+/1", "a/+/3", "a/+/1", "a/+/2"} {
		if _, err := c.RegisterStream(t.Context(), open("p", path), nil); err != nil {
			t.Fatal(err)
		}
	}
	f.calls(t, 4, 0)
}

func TestCacheEnds(t *testing.T) {
	f := &fake{register: func(_ context.Context, s *LogStreamState, _ []byte) (*LogStreamState, error) {
		out := *s
		out.ID = "id"
		return &out, nil
	}}
	c := NewCache(f, 0, 0)
	registers := func(s *LogStreamState, wantIndex types.MessageIndex, wantEmpty bool) {
		t.Helper()
		got, err := c.RegisterStream(t.Context(), s, nil)
		if err != nil || got.TerminalIndex != wantIndex || got.TerminalEmpty != wantEmpty {
			t.Fatalf("registration of %s: %+v, %v", s.Path, got, err)
		}
	}
	terminates := func(r *TerminateRequest) {
		t.Helper()
		if err := c.TerminateStream(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}

	// An end that came first shows in the registration.
	terminates(ended("a/+/1", 7))
	registers(open("p", "a/+/1"), 7, false)
	f.calls(t, 1, 1)

	// A registration with an end makes any later end free, and the first end stays.
	s := open("p", "a/+/2")
	s.TerminalIndex = 3
	registers(s, 3, false)
	terminates(ended("a/+/2", 9))
	registers(open("p", "a/+/2"), 3, false)
	f.calls(t, 2, 1)

	// Open, end, open: one call each.
	registers(open("p", "a/+/3"), -1, false)
	terminates(ended("a/+/3", 4))
	terminates(ended("a/+/3", 4))
	registers(open("p", "a/+/3"), 4, false)
	f.calls(t, 3, 2)

	// The same without an entry.
	registers(open("p", "a/+/4"), -1, false)
	r := ended("a/+/4", 0)
	r.TerminalEmpty = true
	terminates(r)
	registers(open("p", "a/+/4"), -1, true)
	f.calls(t, 4, 3)
}

func TestCacheDoesNotChangeStates(t *testing.T) {
	c := NewCache(new(fake), 0, 0)
	before, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.TerminateStream(t.Context(), ended("a/+/b", 5)); err != nil {
		t.Fatal(err)
	}
	if before.TerminalIndex != -1 {
		t.Error("a state that was handed out has changed")
	}
}

func TestCacheCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{register: func(_ context.Context, s *LogStreamState, _ []byte) (*LogStreamState, error) {
			time.Sleep(time.Second)
			return s, nil
		}, terminate: func(context.Context, *TerminateRequest) error {
			time.Sleep(time.Second)
			return nil
		}}
		c := NewCache(f, 0, 0)
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() {
				if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err != nil {
					t.Error(err)
				}
				if err := c.TerminateStream(t.Context(), ended("a/+/b", 1)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		f.calls(t, 1, 1)

		begin := time.Now()
		for i := range 2048 {
			wg.Go(func() {
				path := types.StreamPath(fmt.Sprintf("a/+/%d", i))
				if _, err := c.RegisterStream(t.Context(), open("p", path), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		f.calls(t, 2049, 1)
		if d := time.Since(begin); d != time.Second {
			t.Errorf("2048 streams took %v", d)
		}
	})
}

func TestCacheExpiresDuringCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{register: func(_ context.Context, s *LogStreamState, _ []byte) (*LogStreamState, error) {
			time.Sleep(time.Minute)
			return s, nil
		}}
		c := NewCache(f, 0, time.Second)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(2 * time.Second)
		}
		wg.Wait()
		f.calls(t, 2, 0)
	})
}

func TestCacheKeepsNoFailure(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Transient, fault.Invalid} {
		failure := fault.New(kind, "no")
		f := new(fake)
		f.register = func(_ context.Context, s *LogStreamState, _ []byte) (*LogStreamState, error) {
			if f.registered == 1 {
				return nil, failure
			}
			return s, nil
		}
		f.terminate = func(context.Context, *TerminateRequest) error {
			if f.terminated == 1 {
				return failure
			}
			return nil
		}
		c := NewCache(f, 0, 0)
		for i := range 3 {
			_, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil)
			if want := i == 0; errors.Is(err, failure) != want {
				t.Errorf("registration %d: %v", i, err)
			}
		}
		for i := range 3 {
			err := c.TerminateStream(t.Context(), ended("a/+/b", 1))
			if want := i == 0; errors.Is(err, failure) != want {
				t.Errorf("termination %d: %v", i, err)
			}
		}
		f.calls(t, 2, 2)
	}
}

func TestCacheWrongSecretHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{register: func(_ context.Context, s *LogStreamState, desc []byte) (*LogStreamState, error) {
			time.Sleep(time.Second)
			if !s.Secret.Equal(secret) || string(desc) != "good" {
				return nil, fault.New(fault.Invalid, "refused")
			}
			return s, nil
		}}
		c := NewCache(f, 0, 0)
		wrong := open("p", "a/+/b")
		wrong.Secret = types.NewPrefixSecret()
		var wg sync.WaitGroup
		refused := func(s *LogStreamState, desc string) {
			wg.Go(func() {
				if _, err := c.RegisterStream(t.Context(), s, []byte(desc)); !fault.Is(err, fault.Invalid) {
					t.Errorf("a wrong request: %v", err)
				}
			})
		}
		// The wrong ones come first, and are still under way when the right ones come.
		for range 5 {
			refused(wrong, "good")
			refused(open("p", "a/+/b"), "bad")
		}
		time.Sleep(time.Millisecond)
		for range 5 {
			wg.Go(func() {
				if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), []byte("good")); err != nil {
					t.Errorf("the right request: %v", err)
				}
			})
		}
		wg.Wait()
	})
}

func TestCacheCallerWhoGivesUpHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{register: func(ctx context.Context, s *LogStreamState, _ []byte) (*LogStreamState, error) {
			select {
			case <-time.After(time.Minute):
				return s, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		c := NewCache(f, 0, time.Hour)
		short := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.RegisterStream(ctx, open("p", "a/+/b"), nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient caller: %v", err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(short)
		synctest.Wait()
		wg.Go(func() {
			if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err != nil {
				t.Errorf("the patient caller: %v", err)
			}
		})
		wg.Wait()
		f.calls(t, 1, 0)

		// When all have given up, the call ends, and the next caller begins another.
		c = NewCache(f, 0, time.Hour)
		short()
		if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err != nil {
			t.Error(err)
		}
		f.calls(t, 3, 0)
	})
}

// services answers one call.
type services struct {
	logdog.ServicesClient
	register  *logdog.RegisterStreamRequest
	answer    *logdog.RegisterStreamResponse
	terminate *logdog.TerminateStreamRequest
	err       error
}

func (s *services) RegisterStream(_ context.Context, r *logdog.RegisterStreamRequest, _ ...grpc.CallOption) (*logdog.RegisterStreamResponse, error) {
	s.register = r
	return s.answer, s.err
}

func (s *services) TerminateStream(_ context.Context, r *logdog.TerminateStreamRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	s.terminate = r
	return &emptypb.Empty{}, s.err
}

func TestRemote(t *testing.T) {
	s := &services{answer: &logdog.RegisterStreamResponse{Id: "abc", State: &logdog.InternalLogStreamState{
		ProtoVersion: "1", Secret: secret, TerminalIndex: 12, Archived: true, Purged: true,
	}}}
	c := NewCoordinator(s)
	got, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), []byte("desc"))
	if err != nil {
		t.Fatal(err)
	}
	want := &LogStreamState{
		Project: "p", Path: "a/+/b", ID: "abc", ProtoVersion: "1", Secret: secret, TerminalIndex: 12, Archived: true, Purged: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	sent := &logdog.RegisterStreamRequest{Project: "p", Secret: secret, ProtoVersion: "1", Desc: []byte("desc"), TerminalIndex: -1}
	if diff := cmp.Diff(sent, s.register, protocmp.Transform()); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	if err := c.TerminateStream(t.Context(), ended("a/+/b", 0)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&logdog.TerminateStreamRequest{Project: "p", Id: "id", Secret: secret}, s.terminate, protocmp.Transform()); diff != "" {
		t.Errorf("termination (-want +got):\n%s", diff)
	}

	s.answer = &logdog.RegisterStreamResponse{Id: "abc"}
	if _, err := c.RegisterStream(t.Context(), open("p", "a/+/b"), nil); err == nil || fault.IsTransient(err) {
		t.Errorf("an answer without state: %v", err)
	}
}

func TestRemoteRefusesBeforeSending(t *testing.T) {
	s := &services{err: errors.New("was sent")}
	c := NewCoordinator(s)
	badSecret := open("p", "a/+/b")
	badSecret.Secret = secret[1:]
	for _, bad := range []*LogStreamState{open("P", "a/+/b"), open("p", "a/b"), badSecret} {
		if _, err := c.RegisterStream(t.Context(), bad, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s %s: %v", bad.Project, bad.Path, err)
		}
	}
	noID := ended("a/+/b", 1)
	noID.ID = ""
	for _, bad := range []*TerminateRequest{ended("a/b", 1), ended("a/+/b", -1), noID} {
		if err := c.TerminateStream(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestRemoteTransience(t *testing.T) {
	transient := map[codes.Code]bool{
		codes.Internal: true, codes.Unknown: true, codes.Unavailable: true, codes.DeadlineExceeded: true,
		codes.PermissionDenied: true, codes.Unauthenticated: true, codes.ResourceExhausted: true, codes.Aborted: true, codes.Canceled: true,
		codes.Unimplemented: true, codes.DataLoss: true,
		codes.InvalidArgument: false, codes.FailedPrecondition: false, codes.NotFound: false, codes.AlreadyExists: false, codes.OutOfRange: false,
	}
	for code, want := range transient {
		s := &services{err: status.Error(code, "no")}
		_, err := NewCoordinator(s).RegisterStream(t.Context(), open("p", "a/+/b"), nil)
		if fault.IsTransient(err) != want {
			t.Errorf("registration, %v: transient is %v", code, !want)
		}
		err = NewCoordinator(s).TerminateStream(t.Context(), ended("a/+/b", 1))
		if fault.IsTransient(err) != want {
			t.Errorf("termination, %v: transient is %v", code, !want)
		}
	}
}
