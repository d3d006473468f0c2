package broker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// follower is a client that reads without an end.
type follower struct {
	grpc.ServerStream
	ctx context.Context

	mu   sync.Mutex
	got  string
	from []int64 // where each fragment was read
}

func (f *follower) Context() context.Context { return f.ctx }

func (f *follower) Send(resp *protocol.ReadResponse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got += string(resp.GetContent()); len(resp.GetContent()) == 0 {
		f.from = append(f.from, resp.GetOffset())
	}
	return nil
}

func (s *still) follow(name string) *follower {
	f := &follower{ctx: s.t.Context()}
	go func() {
		if err := s.Read(&protocol.ReadRequest{Journal: name, Block: true}, f); err != nil {
			s.t.Errorf("read %s: %v", name, err)
		}
	}()
	return f
}

// put stores what another broker would.
func put(b *bucket.Mem, name string, begin int64, content string) {
	f := &protocol.Fragment{
		Journal: name, Begin: begin, End: begin + int64(len(content)), Sum: protocol.SHA1SumOf([]byte(content)),
		CompressionCodec: protocol.CompressionCodec_NONE,
	}
	b.SetBytes(f.ContentPath(), []byte(content))
}

// TestGaps reads over what is missing. Where it is known why, and before the first fragment, readers jump at once. What may be on
// its way into the store is waited for; after six hours nobody expects it any more.
func TestGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStill(t, b)
		stored := func(f *protocol.JournalSpec_Fragment) {
			f.Stores, f.RefreshInterval = []string{"s3://bucket/"}, durationpb.New(10*time.Minute)
		}
		put(b, "test/first", 100, "begin")
		put(b, "test/late", 0, "begin")
		put(b, "test/late", 10, "again")
		put(b, "test/lost", 0, "begin")
		put(b, "test/lost", 10, "again")
		readers := make(map[string]*follower)
		for _, name := range []string{"test/first", "test/late", "test/lost", "test/reset"} {
			s.create(name, stored)
			readers[name] = s.follow(name)
		}
		expect := func(name, want string, from int64) {
			t.Helper()
			f := readers[name]
			f.mu.Lock()
			defer f.mu.Unlock()
			if n := len(f.from); f.got != want || n == 0 || f.from[n-1] != from {
				t.Errorf("%s: read %q, at last from %v; want %q from %d", name, f.got, f.from, want, from)
			}
		}
		s.append("test/reset", "begin")
		time.Sleep(time.Minute)
		// The head is set on purpose, and the fragment behind the gap is not in the store.
		a := &engine.Append{Content: []byte("again"), Floor: 1000, Roll: engine.RollPolicyOf(s.engine.Specs().Get("test/reset").JournalSpec), Now: time.Now()}
		if _, err := s.engine.Commit(t.Context(), "test/reset", a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect("test/first", "begin", 100)
		expect("test/reset", "beginagain", 1000)
		expect("test/late", "begin", 0)
		expect("test/lost", "begin", 0)

		put(b, "test/late", 5, "found")
		time.Sleep(time.Hour)
		expect("test/late", "beginfoundagain", 10)
		time.Sleep(4 * time.Hour)
		expect("test/lost", "begin", 0)
		time.Sleep(time.Hour + 10*time.Minute)
		expect("test/lost", "beginagain", 10)
	})
}
