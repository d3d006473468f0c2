package coordinator_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

func follow(name string) *daybookv1.FollowRequest {
	return &daybookv1.FollowRequest{Project: project, Path: prefix + "/+/" + name}
}

func (h *house) expunge(name types.StreamName) {
	h.t.Helper()
	err := h.storage.Expunge(h.t.Context(), storage.Stream{Project: project, Path: types.StreamName(prefix).Join(name)})
	if err != nil {
		h.t.Fatal(err)
	}
}

// A follower waits for its stream, sees it grow, and goes on when it moves to the archive in the middle.
func TestFollow(t *testing.T) {
	h := newHouse(t)
	_, v1 := h.serve()
	r := follow("stdout")
	r.Wait = true
	s, err := v1.Follow(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	recv := func() *daybookv1.FollowResponse {
		t.Helper()
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	id := h.register("stdout")
	if r := recv(); r.GetStream().GetState() != daybookv1.StreamState_OPEN || len(r.GetLogs()) != 0 {
		t.Errorf("first response: %v", r)
	}
	h.put("stdout", 0)
	equal(t, "live", indices(recv().GetLogs()), []int{0})
	h.put("stdout", 2) // out of order
	h.put("stdout", 1)
	equal(t, "after a gap was filled", indices(recv().GetLogs()), []int{1, 2})
	h.put("stdout", 4)
	h.terminate(id, 6)
	if r := recv(); r.GetStream().GetState() != daybookv1.StreamState_TERMINATED || r.GetStream().GetTerminalIndex() != 6 || len(r.GetLogs()) != 0 {
		t.Errorf("terminated: %v", r)
	}
	h.archive("stdout", 0, 1, 2, 4, 5)
	h.expunge("stdout")
	r1 := recv()
	equal(t, "from the archive", indices(r1.GetLogs()), []int{4, 5})
	if m := r1.GetMissing(); len(m) != 1 || m[0].GetFirst() != 3 || m[0].GetLast() != 3 || r1.GetStream().GetState() != daybookv1.StreamState_INCOMPLETE {
		t.Errorf("from the archive: %v", r1)
	}
	got, _, end := drainFollow(t, s)
	if len(got) != 0 || end.GetState() != daybookv1.StreamState_INCOMPLETE || end.GetTerminalIndex() != 6 || len(end.GetMissing()) != 2 {
		t.Errorf("end: %v, %v", got, end)
	}
}

func TestFollowEnds(t *testing.T) {
	h := newHouse(t)
	_, v1 := h.serve()
	h.terminate(h.register("whole"), 2)
	h.put("whole", 0, 1, 2, 3) // what lies beyond the end is no part of it
	h.terminate(h.register("archived"), 4)
	h.archive("archived", 0, 2, 4)
	h.register("open")
	h.put("open", 0, 1)
	h.terminate(h.register("waiting"), 5)
	h.put("waiting", 0, 1)
	empty := h.registration("empty")
	empty.TerminalEmpty = true
	if _, err := h.Services().RegisterStream(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		name        string
		index       int64
		backlogOnly bool
		want        []int
		missing     [][2]int64
		state       daybookv1.StreamState
	}{
		"whole":            {"whole", 0, false, []int{0, 1, 2}, nil, daybookv1.StreamState_COMPLETE},
		"whole, later":     {"whole", 2, false, []int{2}, nil, daybookv1.StreamState_COMPLETE},
		"whole, beyond":    {"whole", 9, false, nil, nil, daybookv1.StreamState_COMPLETE},
		"archived":         {"archived", 0, false, []int{0, 2, 4}, [][2]int64{{1, 1}, {3, 3}}, daybookv1.StreamState_INCOMPLETE},
		"archived, later":  {"archived", 3, false, []int{4}, [][2]int64{{3, 3}}, daybookv1.StreamState_INCOMPLETE},
		"archived, beyond": {"archived", 9, false, nil, nil, daybookv1.StreamState_INCOMPLETE},
		"empty":            {"empty", 0, false, nil, nil, daybookv1.StreamState_COMPLETE},
		"open, backlog":    {"open", 0, true, []int{0, 1}, nil, daybookv1.StreamState_OPEN},
		"waiting, backlog": {"waiting", 1, true, []int{1}, nil, daybookv1.StreamState_TERMINATED},
	} {
		r := follow(test.name)
		r.Index, r.BacklogOnly = test.index, test.backlogOnly
		s, err := v1.Follow(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		got, missing, end := drainFollow(t, s)
		equal(t, what, got, test.want)
		equal(t, what+": missing", missing, test.missing)
		if end.GetState() != test.state {
			t.Errorf("%s: end %v", what, end)
		}
	}
}

func TestFollowRefusals(t *testing.T) {
	h := newHouse(t)
	_, v1 := h.serve()
	h.register("stdout")
	fail := func(ctx context.Context, what string, r *daybookv1.FollowRequest, want fault.Kind) {
		t.Helper()
		s, err := v1.Follow(ctx, r)
		for err == nil {
			_, err = s.Recv()
		}
		if !fault.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	negative := follow("stdout")
	negative.Index = -1
	fail(t.Context(), "negative index", negative, fault.Invalid)
	fail(t.Context(), "no path", &daybookv1.FollowRequest{Project: project}, fault.Invalid)
	fail(t.Context(), "unknown", follow("unknown"), fault.NotFound)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	waiting := follow("unknown")
	waiting.Wait = true
	fail(ctx, "waiting", waiting, fault.Deadline)
	h.storage.SetErr(fault.New(fault.Internal, "disk on fire"))
	fail(t.Context(), "broken storage", follow("stdout"), fault.Internal)
	h.storage.SetErr(nil)
	h.Close()
	fail(t.Context(), "closing", follow("stdout"), fault.Transient)
}

// A long backlog comes in many responses, the first of them small, and whole even when storage gives little at a time.
func TestFollowBacklog(t *testing.T) {
	h := newHouse(t)
	_, v1 := h.serve()
	const n = 30_000
	h.storage.MaxGetCount = 700
	path := types.StreamName(prefix).Join("stdout")
	h.terminate(h.register("stdout"), n-1)
	for i := range n {
		put(t, h.storage, path, i)
	}
	s, err := v1.Follow(t.Context(), follow("stdout"))
	if err != nil {
		t.Fatal(err)
	}
	next, responses := 0, 0
	for {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if responses == 0 && (len(r.GetLogs()) == 0 || len(r.GetLogs()) > n/10) {
			t.Errorf("the first response has %d entries", len(r.GetLogs()))
		}
		responses++
		for _, e := range r.GetLogs() {
			if int(e.GetStreamIndex()) != next {
				t.Fatalf("entry %d instead of %d", e.GetStreamIndex(), next)
			}
			next++
		}
		if r.GetEnd() != nil {
			break
		}
	}
	if next != n || responses > n/1000 {
		t.Errorf("%d entries in %d responses", next, responses)
	}
}

// Many followers of one stream, which is archived and expunged while they read.
func TestManyFollowers(t *testing.T) {
	h := newHouse(t)
	_, v1 := h.serve()
	const followers, n = 200, 50
	id := h.register("stdout")
	var ready, wg sync.WaitGroup
	for range followers {
		ready.Add(1)
		wg.Go(func() {
			s, err := v1.Follow(t.Context(), follow("stdout"))
			if err != nil {
				t.Error(err)
				ready.Done()
				return
			}
			r, err := s.Recv()
			ready.Done()
			if err != nil {
				t.Error(err)
				return
			}
			next := len(r.GetLogs())
			for {
				r, err := s.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range r.GetLogs() {
					if int(e.GetStreamIndex()) != next {
						t.Errorf("entry %d instead of %d", e.GetStreamIndex(), next)
					}
					next++
				}
				if r.GetEnd() != nil {
					if next != n || r.GetEnd().GetState() != daybookv1.StreamState_COMPLETE {
						t.Errorf("ended at %d: %v", next, r.GetEnd())
					}
					return
				}
			}
		})
	}
	ready.Wait()
	var all []int
	for i := range n {
		all = append(all, i)
		h.put("stdout", i)
	}
	h.terminate(id, n-1)
	h.archive("stdout", all...)
	h.expunge("stdout")
	wg.Wait()
}
