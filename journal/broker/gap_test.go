package broker

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
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

// TestListings checks what becomes of listings: of equal fragments the last store's counts, several that cover one together do
// not hide it, one that fails changes nothing, and one without a fragment takes it away.
func TestListings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStill(t, b)
		put(b, "x/test/a", 0, "equal")
		put(b, "y/test/a", 0, "equal")
		put(b, "y/test/a", 5, "other")
		s.create("test/a", func(f *protocol.JournalSpec_Fragment) {
			f.Stores, f.RefreshInterval = []string{"s3://bucket/x/", "s3://bucket/y/"}, durationpb.New(10*time.Minute)
		})
		expect := func(what string, want ...indexed) {
			t.Helper()
			time.Sleep(11 * time.Minute)
			v, err := s.view(t.Context(), "test/a")
			if err != nil {
				t.Fatal(err)
			}
			all := v.all()
			if len(all) != len(want) {
				t.Fatalf("%s: %v", what, all)
			}
			for i, f := range all {
				if f.Begin != want[i].Begin || f.End != want[i].End || f.Store != want[i].Store {
					t.Errorf("%s: %v, want %v", what, f, want[i])
				}
			}
		}
		in := func(begin, end protocol.Offset, store protocol.FragmentStore) indexed {
			return indexed{StoredFragment: engine.StoredFragment{Fragment: engine.Fragment{Begin: begin, End: end}, Store: store}}
		}
		expect("two stores", in(0, 5, "s3://bucket/y/"), in(5, 10, "s3://bucket/y/"))
		b.SetFault(func(op bucket.Op, _ string) error { return fault.New(fault.Transient, "the store is down") })
		put(b, "x/test/a", 0, "equalother")
		expect("a failure", in(0, 5, "s3://bucket/y/"), in(5, 10, "s3://bucket/y/"))
		b.SetFault(nil)
		expect("a larger fragment", in(0, 10, "s3://bucket/x/"))
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "x/test/a/") {
				if err := b.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
		}
		expect("a store without anything", in(0, 5, "s3://bucket/y/"), in(5, 10, "s3://bucket/y/"))
	})
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
