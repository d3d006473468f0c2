package coordinator_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
)

// Many follow a stream, from anywhere in it and each at a pace of its own, while it grows out of order. Each gets all of it once, in
// order, whether what it gets was read for all or for itself.
func TestFollowTogether(t *testing.T) {
	const n, followers = 6000, 40
	h := newHouse(t)
	_, v1 := h.serve()
	id := h.register("stdout")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	written := make(chan struct{}) // closed when all entries are there
	joined := make([]chan struct{}, followers)
	var wg sync.WaitGroup
	start := func(i int, from int64, slow bool) {
		joined[i] = make(chan struct{})
		wg.Go(func() {
			r := follow("stdout")
			r.Index = from
			s, err := v1.Follow(t.Context(), r)
			if err != nil {
				t.Errorf("follower %d: %v", i, err)
				close(joined[i])
				return
			}
			next, first := from, true
			for {
				resp, err := s.Recv()
				if first {
					close(joined[i])
					first = false
					if slow {
						<-written
					}
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Errorf("follower %d: %v", i, err)
					return
				}
				for _, e := range resp.GetLogs() {
					if int64(e.GetStreamIndex()) != next {
						t.Errorf("follower %d from %d: entry %d, want %d", i, from, e.GetStreamIndex(), next)
						return
					}
					next++
				}
				if resp.GetEnd() != nil && resp.GetEnd().GetState() != daybookv1.StreamState_COMPLETE {
					t.Errorf("follower %d: end %v", i, resp.GetEnd())
				}
			}
			if next != n {
				t.Errorf("follower %d from %d: ended at %d, want %d", i, from, next, n)
			}
		})
	}

	// Runs that overlap and come out of order, with followers that join in between.
	at, follower := 0, 0
	for at < n {
		size := 1 + random.IntN(60)
		end := min(at+size, n)
		order := random.Perm(end - at)
		for _, k := range order {
			h.put("stdout", at+k)
			if random.IntN(4) == 0 {
				h.put("stdout", max(0, at+k-random.IntN(30)))
			}
		}
		at = end
		for follower < followers && follower*n/followers <= at {
			start(follower, random.Int64N(int64(at)+100), follower%5 == 0)
			<-joined[follower]
			follower++
		}
	}
	close(written)
	h.terminate(id, n-1)
	wg.Wait()
}

// unreadable is a storage that takes entries and, from some moment on, does not give them.
type unreadable struct {
	storage.Storage
	now atomic.Bool
}

func (s *unreadable) Get(ctx context.Context, r storage.GetRequest, cb storage.GetCallback) error {
	if s.now.Load() {
		return fault.New(fault.Internal, "disk on fire")
	}
	return s.Storage.Get(ctx, r, cb)
}

// When the storage fails, those who follow together hear of it as one who follows alone does.
func TestFollowTogetherFails(t *testing.T) {
	broken := new(unreadable)
	h := newHouse(t, func(c *coordinator.Config) {
		broken.Storage = c.Storage
		c.Storage = broken
	})
	_, v1 := h.serve()
	h.register("stdout")
	h.put("stdout", 0)
	streams := make([]grpc.ServerStreamingClient[daybookv1.FollowResponse], 10)
	for i := range streams {
		s, err := v1.Follow(t.Context(), follow("stdout"))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := s.Recv(); err != nil || len(resp.GetLogs()) != 1 {
			t.Fatalf("%v, %v", resp, err)
		}
		streams[i] = s
	}
	h.put("stdout", 1)
	for i, s := range streams {
		if resp, err := s.Recv(); err != nil || len(resp.GetLogs()) != 1 || resp.GetLogs()[0].GetStreamIndex() != 1 {
			t.Fatalf("follower %d: %v, %v", i, resp, err)
		}
	}
	broken.now.Store(true)
	h.put("stdout", 2)
	for i, s := range streams {
		if resp, err := s.Recv(); !fault.Is(err, fault.Internal) {
			t.Errorf("follower %d: %v, %v; want the failure", i, resp, err)
		}
	}
}
