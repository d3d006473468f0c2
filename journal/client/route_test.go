package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func route(suffix string) *pb.Route {
	return &pb.Route{
		Members:   []*pb.ProcessSpec_ID{{Zone: "local", Suffix: suffix}},
		Endpoints: []string{"http://" + suffix},
	}
}

func TestRouteCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := NewRouteCache(2, time.Minute)
		known := func(item string) bool { return len(c.Route(ctx, item).Members) != 0 }

		r := route("one1")
		c.UpdateRoute("a/one", r)
		r.Members[0].Suffix = "changed"
		if got := c.Route(ctx, "a/one;meta"); got.Members[0].Suffix != "one1" {
			t.Errorf("got %v", got)
		}
		if got := c.Route(ctx, "a/none"); got.Primary != -1 || len(got.Members) != 0 {
			t.Errorf("got %v", got)
		}
		// The least recently used one gives way.
		c.UpdateRoute("a/two", route("two2"))
		known("a/one")
		c.UpdateRoute("a/three", route("three"))
		if !known("a/one") || known("a/two") || !known("a/three") {
			t.Error("another one gave way")
		}
		c.UpdateRoute("a/three", nil)
		c.UpdateRoute("a/one", &pb.Route{Primary: -1})
		if known("a/one") || known("a/three") {
			t.Error("not forgotten")
		}
		// A use does not make a route younger, an update does.
		c.UpdateRoute("a/one", route("one1"))
		c.UpdateRoute("a/two", route("two2"))
		time.Sleep(40 * time.Second)
		known("a/one")
		c.UpdateRoute("a/two", route("two2"))
		time.Sleep(40 * time.Second)
		if known("a/one") || !known("a/two") || c.IsNoopRouter() {
			t.Error("routes have another age")
		}
	})
}

func TestRouteCacheNeedsRoom(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewRouteCache(0, time.Minute)
}

func TestBackoffVectors(t *testing.T) {
	data, err := os.ReadFile("../protocol/testdata/journal.json")
	wantNil(t, err)
	var v struct {
		Backoff map[string]int64 `json:"client_backoff_ms"`
	}
	wantNil(t, json.Unmarshal(data, &v))
	if len(v.Backoff) != 8 {
		t.Fatalf("%d vectors", len(v.Backoff))
	}
	for name, ms := range v.Backoff {
		number, above := strings.CutSuffix(name, "_and_up")
		attempt, err := strconv.Atoi(number)
		wantNil(t, err)
		for _, a := range []int{attempt, attempt + 1, attempt + 1000} {
			if got := backoff(a); (a == attempt || above) && got != time.Duration(ms)*time.Millisecond {
				t.Errorf("attempt %d: %v", a, got)
			}
		}
	}
}

func snapshot(revision int64, names ...string) []*pb.ListResponse {
	h := listHeader()
	h.Etcd.Revision = revision
	out := []*pb.ListResponse{{Header: h}}
	for _, n := range names {
		m := &pb.ListResponse{Journals: []*pb.ListResponse_Journal{listed(n)}}
		if len(out[0].Journals) == 0 {
			out[0].Journals = m.Journals
			continue
		}
		out = append(out, m)
	}
	return append(out, new(pb.ListResponse)) // The end of a snapshot of a watch.
}

func TestWatchedList(t *testing.T) {
	var calls atomic.Int32
	var resumed atomic.Int64
	b := &broker{watch: func(req *pb.ListRequest, stream pb.Journal_ListServer) error {
		send := func(ms []*pb.ListResponse) {
			for _, m := range ms {
				if err := stream.Send(m); err != nil {
					t.Log(err)
				}
			}
		}
		switch calls.Add(1) {
		case 1:
			send(snapshot(5, "a/one1", "a/two2", "a/three"))
			return errors.New("connection lost")
		case 2:
			resumed.Store(req.GetWatchResume().GetEtcd().GetRevision())
			send(snapshot(5)) // It has been there already.
		case 3:
			send(snapshot(6, "a/four"))
			<-stream.Context().Done()
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// A selector, and nothing else of the request, is used.
	w := NewWatchedList(ctx, b.start(t), &pb.ListRequest{WatchResume: testHeader()}, make(chan error, 10))
	if w.List() != nil {
		t.Error("a listing before the first one")
	}
	wantNil(t, <-w.UpdateCh())
	if n := len(w.List().Journals); n != 3 {
		t.Errorf("%d journals", n)
	}
	for range 2 {
		if <-w.UpdateCh() == nil {
			t.Error("a failure was not told")
		}
	}
	wantNil(t, <-w.UpdateCh())
	if l := w.List(); len(l.Journals) != 1 || l.Journals[0].Spec.Name != "a/four" || resumed.Load() != 5 {
		t.Errorf("%v, resumed behind %d", l, resumed.Load())
	}
	cancel()
	<-w.Done()
}

// A broker that has lost what it had, or has been set back to an older copy of it, has other revisions. Whoever watches it is told all
// the same.
func TestWatchedListOfABrokerThatBeganAnew(t *testing.T) {
	other := snapshot(2, "a/other")
	other[0].Header.Etcd.ClusterId++
	for name, again := range map[string]func(req *pb.ListRequest) ([]*pb.ListResponse, error){
		"lost": func(*pb.ListRequest) ([]*pb.ListResponse, error) { return other, nil },
		"set back": func(req *pb.ListRequest) ([]*pb.ListResponse, error) {
			if req.WatchResume.GetEtcd().GetRevision() > 2 {
				return nil, status.Error(codes.OutOfRange, "revision 5 is not known here; the latest is 2")
			}
			return snapshot(2, "a/other"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			b := &broker{watch: func(req *pb.ListRequest, stream pb.Journal_ListServer) error {
				messages, err := snapshot(5, "a/one"), error(nil)
				first := calls.Add(1) == 1
				if !first {
					messages, err = again(req)
				}
				for _, m := range messages {
					if err := stream.Send(m); err != nil {
						t.Log(err)
					}
				}
				if !first && err == nil {
					<-stream.Context().Done()
				}
				return err
			}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := NewWatchedList(ctx, b.start(t), &pb.ListRequest{}, make(chan error, 10))
			for updates := 0; w.List() == nil || w.List().Journals[0].Spec.Name != "a/other"; updates++ {
				if updates == 5 {
					t.Fatal("still not told")
				}
				t.Log(<-w.UpdateCh())
			}
			cancel()
			<-w.Done()
		})
	}
}

func TestWatchedListSignals(t *testing.T) {
	own := &WatchedList{updates: make(chan error, 1)}
	shared := &WatchedList{updates: make(chan error, 1), shared: true}
	fail := fmt.Errorf("failed")
	for _, c := range []struct {
		w    *WatchedList
		in   []error
		want []error
	}{
		{own, []error{fail, nil}, []error{nil}},
		{own, []error{nil, fail}, []error{nil}},
		{own, []error{fail, fail}, []error{fail}},
		{shared, []error{fail, nil}, []error{fail}},
	} {
		for _, err := range c.in {
			c.w.signal(err)
		}
		if got := []error{<-c.w.updates}; !slices.Equal(got, c.want) {
			t.Errorf("%v became %v", c.in, got)
		}
	}
}
