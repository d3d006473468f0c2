package client

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func listed(name string) *pb.ListResponse_Journal {
	return &pb.ListResponse_Journal{
		Spec: &pb.JournalSpec{
			Name: name, Replication: 1,
			Fragment: &pb.JournalSpec_Fragment{Length: 1024, CompressionCodec: pb.CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Minute)},
		},
		ModRevision: 1, Route: testHeader().Route,
	}
}

func listHeader() *pb.Header {
	h := testHeader()
	h.Route = pb.NewRoute()
	return h
}

// routes remembers what it is told.
type routes struct {
	pb.NoopDispatchRouter
	known map[string]*pb.Route
}

func (r routes) UpdateRoute(item string, route *pb.Route) { r.known[item] = route }

func TestListAllJournals(t *testing.T) {
	b := &broker{list: func(*pb.ListRequest) []*pb.ListResponse {
		return []*pb.ListResponse{
			{Header: listHeader(), Journals: []*pb.ListResponse_Journal{listed("test/a"), listed("test/b")}},
			{Journals: []*pb.ListResponse_Journal{listed("test/c")}},
		}
	}}
	r := routes{known: make(map[string]*pb.Route)}
	resp, err := ListAllJournals(t.Context(), pb.NewRoutedJournalClient(b.start(t), r), &pb.ListRequest{})
	wantNil(t, err)
	if len(resp.Journals) != 3 || len(r.known) != 3 {
		t.Errorf("%d journals, %d routes", len(resp.Journals), len(r.known))
	}
	if _, err := ListAllJournals(t.Context(), b.start(t), &pb.ListRequest{Watch: true}); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestListFailures(t *testing.T) {
	for name, messages := range map[string][]*pb.ListResponse{
		"nothing":            nil,
		"status":             {{Status: pb.Status_NOT_ALLOWED, Header: listHeader()}},
		"invalid":            {{Header: listHeader(), Journals: []*pb.ListResponse_Journal{{}}}},
		"empty continuation": {{Header: listHeader()}, {}},
	} {
		b := &broker{list: func(*pb.ListRequest) []*pb.ListResponse { return messages }}
		if _, err := ListAllJournals(t.Context(), b.start(t), &pb.ListRequest{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadListResponseOfAWatch(t *testing.T) {
	b := &broker{list: func(*pb.ListRequest) []*pb.ListResponse {
		return []*pb.ListResponse{{Header: listHeader(), Journals: []*pb.ListResponse_Journal{listed("test/a")}}, {}, {Header: listHeader()}}
	}}
	rjc := b.start(t)
	req := &pb.ListRequest{Watch: true}
	stream, err := rjc.List(t.Context(), req)
	wantNil(t, err)
	resp, err := ReadListResponse(stream, req)
	if err != nil || len(resp.Journals) != 1 {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := ReadListResponse(stream, req); err == nil {
		t.Error("half a snapshot was accepted")
	}

	req.WatchResume = listHeader()
	stream, err = rjc.List(t.Context(), req)
	wantNil(t, err)
	if _, err := ReadListResponse(stream, req); err == nil {
		t.Error("an old revision was accepted")
	}
	for err == nil { // To the end of the stream.
		_, err = stream.Recv()
	}
}

func TestGetJournal(t *testing.T) {
	var asked string
	b := &broker{list: func(req *pb.ListRequest) []*pb.ListResponse {
		asked = req.Selector.Canonical()
		resp := &pb.ListResponse{Header: listHeader()}
		if asked == "name=test/a" {
			resp.Journals = append(resp.Journals, listed("test/a"))
		}
		return []*pb.ListResponse{resp}
	}}
	rjc := b.start(t)
	spec, err := GetJournal(t.Context(), rjc, "test/a;meta")
	if err != nil || spec.Name != "test/a" {
		t.Errorf("got %v, %v, having asked %q", spec, err, asked)
	}
	if _, err := GetJournal(t.Context(), rjc, "test/b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := GetJournal(t.Context(), rjc, "bad name"); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestApplyJournalsInBatches(t *testing.T) {
	changes := make([]*pb.ApplyRequest_Change, 5)
	for i := range changes {
		changes[i] = &pb.ApplyRequest_Change{Delete: "test/journal", ExpectModRevision: -1}
	}
	for _, c := range []struct{ changes, size, calls int }{{5, 0, 1}, {5, 5, 1}, {5, 2, 3}, {5, 1, 5}, {0, 0, 1}, {0, 2, 1}} {
		calls, got := 0, 0
		b := &broker{apply: func(req *pb.ApplyRequest) *pb.ApplyResponse {
			calls++
			got += len(req.Changes)
			return &pb.ApplyResponse{Header: listHeader()}
		}}
		_, err := ApplyJournalsInBatches(t.Context(), b.start(t), &pb.ApplyRequest{Changes: changes[:c.changes]}, c.size)
		if err != nil || calls != c.calls || got != c.changes {
			t.Errorf("%v: %d calls with %d changes, %v", c, calls, got, err)
		}
	}
	b := &broker{apply: func(*pb.ApplyRequest) *pb.ApplyResponse {
		return &pb.ApplyResponse{Status: pb.Status_ETCD_TRANSACTION_FAILED, Header: listHeader()}
	}}
	resp, err := ApplyJournals(t.Context(), b.start(t), &pb.ApplyRequest{Changes: changes})
	if err == nil || err.Error() != "ETCD_TRANSACTION_FAILED" || resp == nil {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := ApplyJournals(t.Context(), b.start(t), &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{}}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestFutures(t *testing.T) {
	bad := errors.New("bad")
	a, b := NewAsyncOperation(), FinishedOperation(bad)
	wantErrorIs(t, b.Err(), bad)
	for _, c := range []struct {
		x, y OpFutures
		want bool
	}{
		{nil, nil, true},
		{nil, OpFutures{a: {}}, true},
		{OpFutures{a: {}}, nil, false},
		{OpFutures{a: {}}, OpFutures{a: {}, b: {}}, true},
		{OpFutures{FinishedOperation(bad): {}}, OpFutures{a: {}, b: {}}, false},
	} {
		if got := c.x.IsSubsetOf(c.y); got != c.want {
			t.Errorf("%v in %v: %v", c.x, c.y, got)
		}
	}
	a.Resolve(nil)
	wantNil(t, a.Err())
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	a.Resolve(nil)
}
