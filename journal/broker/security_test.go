package broker_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// Names that mean something else to a file system or to the parser of journal references are refused by every method.
func TestHostileNames(t *testing.T) {
	c := one(t)
	for _, name := range []string{
		"", "abc", "../journal", "../../etc/passwd", "test/../../etc", "test/./journal", "/test/journal", "test//journal", "test/journal/",
		"test/journal;a;b", "test/journal;", "test/journal;../x", "test/\x00journal", "test/journal\n", "test journal", "test/#journal",
		"test\\..\\journal", strings.Repeat("x", 513), "test/%2e%2e/..",
	} {
		refused := func(method string, err error) {
			t.Helper()
			if code := status.Code(err); code != codes.InvalidArgument && !(name == "" && code == codes.OK) {
				t.Errorf("%s of %q: %v", method, name, err)
			}
		}
		if name != "" {
			_, err := c.append(&protocol.AppendRequest{Journal: name}, "x")
			refused("Append", err)
			_, err = c.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Delete: name, ExpectModRevision: -1}}})
			refused("Apply", err)
		}
		read, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: name})
		if err == nil {
			_, err = read.Recv()
		}
		refused("Read", err)
		_, err = c.client.ListFragments(t.Context(), &protocol.FragmentsRequest{Journal: name})
		refused("ListFragments", err)
		_, err = c.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Upsert: spec(name)}}})
		refused("Apply", err)
	}
	// A spec and a deletion name a journal, not a use of it (which once stopped whole brokers).
	for _, change := range []*protocol.ApplyRequest_Change{{Upsert: spec("test/journal;meta")}, {Delete: "test/journal;meta", ExpectModRevision: -1}} {
		if _, err := c.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{change}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", change, err)
		}
	}
	if n := len(c.log.Specs().All); n != 1 {
		t.Errorf("%d journals", n)
	}
}

func TestHostileOffsets(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "content")
	for _, offset := range []int64{-1, math.MinInt64} {
		if _, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Offset: offset}, "x"); status.Code(err) != codes.InvalidArgument {
			t.Errorf("append at %d: %v", offset, err)
		}
	}
	if resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Offset: math.MaxInt64}, "x"); err != nil || resp.GetStatus() != protocol.Status_WRONG_APPEND_OFFSET {
		t.Errorf("append at the last offset: %v, %v", resp, err)
	}
	for _, req := range []*protocol.ReadRequest{
		{Offset: -2}, {Offset: math.MinInt64}, {Offset: 5, EndOffset: 4}, {EndOffset: -1}, {Offset: -1, EndOffset: math.MinInt64},
	} {
		req.Journal = "test/journal"
		stream, err := c.client.Read(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("read %v: %v", req, err)
		}
	}
	if _, metas := c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: math.MaxInt64}, 0); metas[0].GetStatus() != protocol.Status_OFFSET_NOT_YET_AVAILABLE {
		t.Errorf("read at the last offset: %v", metas)
	}
	if content, _ := c.read(&protocol.ReadRequest{Journal: "test/journal", EndOffset: math.MaxInt64, MaxContent: math.MinInt32}, 0); string(content) != "content" {
		t.Errorf("read of everything: %q", content)
	}
	for _, req := range []*protocol.FragmentsRequest{{NextPageToken: -1}, {PageLimit: -1}, {PageLimit: math.MaxInt32}, {BeginModTime: 5, EndModTime: 4}} {
		req.Journal = "test/journal"
		if _, err := c.client.ListFragments(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("fragments %v: %v", req, err)
		}
	}
	if resp, err := c.client.ListFragments(t.Context(), &protocol.FragmentsRequest{Journal: "test/journal", NextPageToken: math.MaxInt64}); err != nil || len(resp.GetFragments()) != 0 {
		t.Errorf("fragments from the last offset on: %v, %v", resp, err)
	}
	// A journal whose next offset would be beyond all is not to begin again at a negative one.
	s := spec("test/full")
	s.Suspend = &protocol.JournalSpec_Suspend{Offset: math.MaxInt64 - 3}
	c.apply(&protocol.ApplyRequest_Change{Upsert: s})
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/full"}, "four"); status.Code(err) != codes.OutOfRange {
		t.Errorf("append beyond the last offset: %v", err)
	}
	if resp, err := c.append(&protocol.AppendRequest{Journal: "test/full"}, "end"); err != nil || resp.GetCommit().GetEnd() != math.MaxInt64 {
		t.Errorf("append up to the last offset: %v, %v", resp, err)
	}
}

func TestHostileLabels(t *testing.T) {
	c := one(t)
	many := new(protocol.LabelSet)
	for i := range 30_000 {
		many.Labels = append(many.Labels, &protocol.Label{Name: fmt.Sprintf("label-%06d", i), Value: strings.Repeat("x", 100)})
	}
	s := spec("test/labels")
	s.Labels = many
	if _, err := c.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Upsert: s}}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a spec of many labels: %v", err)
	}
	for what, req := range map[string]*protocol.AppendRequest{
		"union":    {UnionRegisters: many},
		"subtract": {SubtractRegisters: many},
		"check":    {CheckRegisters: &protocol.LabelSelector{Include: many}},
	} {
		req.Journal = "test/journal"
		if _, err := c.append(req, "x"); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s of many labels: %v", what, err)
		}
	}
	stream, err := c.client.List(t.Context(), &protocol.ListRequest{Selector: &protocol.LabelSelector{Include: many}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a list of many labels: %v", err)
	}
	if resp := c.mustAppend("test/journal", "x"); len(resp.GetRegisters().GetLabels()) != 0 {
		t.Errorf("registers %v", resp.GetRegisters())
	}
}

// A broker writes nothing to stores that no journal has.
func TestHostileStores(t *testing.T) {
	c := one(t)
	for store, want := range map[string]codes.Code{
		"file:///etc/":            codes.PermissionDenied,
		"s3://somebody/elses/":    codes.PermissionDenied,
		"gopher://hole/":          codes.InvalidArgument,
		"file:///no/slash/at/end": codes.InvalidArgument,
	} {
		if _, err := c.client.FragmentStoreHealth(t.Context(), &protocol.FragmentStoreHealthRequest{FragmentStore: store}); status.Code(err) != want {
			t.Errorf("%s: %v", store, err)
		}
	}
}

// A watch that resumes from a revision that never was is told so, and does not wait for it.
func TestHostileRevisions(t *testing.T) {
	c := one(t)
	header := &protocol.Header{Etcd: &protocol.Header_Etcd{ClusterId: c.log.Identity().Cluster, MemberId: 1, Revision: math.MaxInt64, RaftTerm: 1}}
	stream, err := c.client.List(t.Context(), &protocol.ListRequest{Watch: true, WatchResume: header})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.OutOfRange {
		t.Errorf("watch: %v", err)
	}
	read, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/journal", MinEtcdRevision: math.MaxInt64})
	if err == nil {
		_, err = read.Recv()
	}
	if errors.Is(err, io.EOF) || status.Code(err) != codes.OutOfRange {
		t.Errorf("read: %v", err)
	}
}
