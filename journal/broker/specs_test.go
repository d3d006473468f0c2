package broker_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// list returns the names of a snapshot.
func (c *cluster) list(selector string) []string {
	c.t.Helper()
	sel, err := protocol.ParseLabelSelector(selector)
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := c.client.List(c.t.Context(), &protocol.ListRequest{Selector: sel})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for i := 0; ; i++ {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if i == 0 {
			valid(c.t, resp)
		} else if len(resp.GetJournals()) == 0 {
			c.t.Error("an empty message follows")
		}
		for _, j := range resp.GetJournals() {
			valid(c.t, j)
			out = append(out, j.GetSpec().GetName())
		}
	}
}

func TestList(t *testing.T) {
	c := one(t)
	var changes []*protocol.ApplyRequest_Change
	for i := range 60 {
		s := spec(fmt.Sprintf("many/journal-%02d", i))
		s.Labels = protocol.MustLabelSet("parity", fmt.Sprint(i%2))
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: s})
	}
	c.apply(changes...)
	for selector, want := range map[string]int{
		"":                                61,
		"parity=1":                        30,
		"!parity":                         1,
		"name=test/journal":               1,
		"name:prefix=many/":               60,
		"prefix=many/":                    60,
		"prefix=many/, parity=0":          30,
		"prefix=many/, name=test/journal": 61,
		"parity=3":                        0,
	} {
		if got := c.list(selector); len(got) != want {
			t.Errorf("%s: %d journals, want %d", selector, len(got), want)
		}
	}
}

func TestApply(t *testing.T) {
	c := one(t)
	expect := func(want protocol.Status, changes ...*protocol.ApplyRequest_Change) int64 {
		t.Helper()
		resp := c.apply(changes...)
		if resp.GetStatus() != want {
			t.Fatalf("%v, want %v", resp, want)
		}
		return resp.GetHeader().GetEtcd().GetRevision()
	}
	const ok, failed = protocol.Status_OK, protocol.Status_ETCD_TRANSACTION_FAILED
	r := expect(ok, &protocol.ApplyRequest_Change{Upsert: spec("test/a")}, &protocol.ApplyRequest_Change{Upsert: spec("test/b")})
	expect(failed, &protocol.ApplyRequest_Change{Upsert: spec("test/a")})
	expect(failed, &protocol.ApplyRequest_Change{Upsert: spec("test/a"), ExpectModRevision: r}, &protocol.ApplyRequest_Change{Delete: "test/b", ExpectModRevision: r + 1})
	if r2 := expect(ok, &protocol.ApplyRequest_Change{Upsert: spec("test/a"), ExpectModRevision: r}, &protocol.ApplyRequest_Change{Delete: "test/b", ExpectModRevision: r}); r2 != r+1 {
		t.Errorf("revision %d after %d", r2, r)
	}
	expect(ok, &protocol.ApplyRequest_Change{Delete: "test/b", ExpectModRevision: -1})
	expect(ok)
	for what, req := range map[string]*protocol.ApplyRequest{
		"twice":    {Changes: []*protocol.ApplyRequest_Change{{Upsert: spec("test/x")}, {Delete: "test/x", ExpectModRevision: -1}}},
		"metadata": {Changes: []*protocol.ApplyRequest_Change{{Delete: "test/a;b", ExpectModRevision: -1}}},
		"no spec":  {Changes: []*protocol.ApplyRequest_Change{{}}},
	} {
		if _, err := c.client.Apply(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestListWatch(t *testing.T) {
	c := one(t)
	sel, err := protocol.ParseLabelSelector("name:prefix=watched/")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.client.List(t.Context(), &protocol.ListRequest{Selector: sel, Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	var last *protocol.Header
	snapshot := func(want int) {
		t.Helper()
		var n int
		for i := 0; ; i++ {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				valid(t, resp)
				if r := resp.GetHeader().GetEtcd().GetRevision(); r <= last.GetEtcd().GetRevision() {
					t.Errorf("revision %d after %d", r, last.GetEtcd().GetRevision())
				}
				last = resp.GetHeader()
			} else if len(resp.GetJournals()) == 0 {
				break
			}
			n += len(resp.GetJournals())
		}
		if n != want {
			t.Fatalf("%d journals, want %d", n, want)
		}
	}
	snapshot(0)
	c.create("other/journal") // tells the watch nothing
	c.create("watched/a")
	snapshot(1)
	c.apply(&protocol.ApplyRequest_Change{Delete: "other/journal", ExpectModRevision: -1})
	c.apply(&protocol.ApplyRequest_Change{Upsert: spec("watched/a"), ExpectModRevision: -1})
	snapshot(1)
	c.apply(&protocol.ApplyRequest_Change{Delete: "watched/a", ExpectModRevision: -1})
	snapshot(0)

	// A watch that resumes waits for something newer.
	stream, err = c.client.List(t.Context(), &protocol.ListRequest{Selector: sel, Watch: true, WatchResume: last})
	if err != nil {
		t.Fatal(err)
	}
	c.create("watched/b")
	snapshot(1)
}

func TestDeleteEndsReads(t *testing.T) {
	c := one(t)
	stream, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/journal", Block: true})
	if err != nil {
		t.Fatal(err)
	}
	c.mustAppend("test/journal", "x")
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	c.apply(&protocol.ApplyRequest_Change{Delete: "test/journal", ExpectModRevision: -1})
	c.create("test/journal")
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the read ended with %v", err)
	}
	if resp := c.mustAppend("test/journal", "y"); resp.GetCommit().GetBegin() != 0 {
		t.Errorf("the new journal begins at %d", resp.GetCommit().GetBegin())
	}
}
