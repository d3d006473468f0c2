package client_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Journals are made, listed, changed and deleted.
func TestApplyAndList(t *testing.T) {
	f := newFleet(t, nil, "east", "west")
	c := f.dial(1, cached("west"))
	upsert := func(n, from int) *pb.ApplyRequest {
		req := new(pb.ApplyRequest)
		for i := range n {
			req.Changes = append(req.Changes, &pb.ApplyRequest_Change{Upsert: gazetteSpec(fmt.Sprintf("acme/%03d", from+i))})
		}
		return req
	}
	// More than one transaction takes.
	if _, err := client.ApplyJournals(t.Context(), c, upsert(200, 0)); err == nil {
		t.Error("200 changes at once were accepted")
	}
	resp, err := client.ApplyJournalsInBatches(t.Context(), c, upsert(200, 0), 128)
	if err != nil || resp.Header.Etcd.Revision == 0 {
		t.Fatal(resp, err)
	}
	all, err := client.ListAllJournals(t.Context(), c, new(pb.ListRequest))
	check(t, err)
	for i, j := range all.Journals {
		if want := fmt.Sprintf("acme/%03d", i); j.Spec.Name != want || j.ModRevision == 0 || j.CreateRevision != j.ModRevision {
			t.Fatalf("journal %d is %v", i, j)
		}
	}
	if len(all.Journals) != 200 {
		t.Errorf("%d journals", len(all.Journals))
	}
	some, err := client.ListAllJournals(t.Context(), c, &pb.ListRequest{Selector: pb.Must(pb.ParseLabelSelector("name:prefix=acme/19"))})
	if err != nil || len(some.Journals) != 10 {
		t.Errorf("%d journals, %v", len(some.GetJournals()), err)
	}

	// A change names the revision it is made of.
	spec, err := client.GetJournal(t.Context(), c, "acme/007;meta")
	check(t, err)
	spec.MaxAppendRate = 1 << 20
	change := &pb.ApplyRequest_Change{Upsert: spec, ExpectModRevision: all.Journals[7].ModRevision}
	_, err = client.ApplyJournals(t.Context(), c, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{change}})
	check(t, err)
	if _, err = client.ApplyJournals(t.Context(), c, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{change}}); err == nil || err.Error() != "ETCD_TRANSACTION_FAILED" {
		t.Errorf("an old revision: %v", err)
	}
	if spec, err = client.GetJournal(t.Context(), c, "acme/007"); err != nil || spec.MaxAppendRate != 1<<20 {
		t.Errorf("%v, %v", spec, err)
	}
	_, err = client.ApplyJournals(t.Context(), c, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Delete: "acme/007", ExpectModRevision: -1}}})
	check(t, err)
	if _, err = client.GetJournal(t.Context(), c, "acme/007"); err == nil {
		t.Error("it was not deleted")
	}
	if _, err = client.ApplyJournals(t.Context(), c, new(pb.ApplyRequest)); err != nil {
		t.Errorf("no change: %v", err)
	}

	// The routes that a listing tells are used.
	f.add("acme/west", 1)
	c = f.dial(0, cached("west"))
	_, err = client.ListAllJournals(t.Context(), c, &pb.ListRequest{Selector: pb.Must(pb.ParseLabelSelector("name=acme/west"))})
	check(t, err)
	_, err = client.Append(t.Context(), c, appendOf("acme/west;meta"))
	check(t, err)
	if f.brokers[1].called("Append") != 1 {
		t.Error("the append went to another broker")
	}

	prefix := "probe/"
	if resp, err := client.FragmentStoreHealth(t.Context(), c, "s3://bucket/", &prefix); err != nil || resp.StoreHealthError != "put: access denied" {
		t.Errorf("%v, %v", resp, err)
	}
	if resp, err := client.FragmentStoreHealth(t.Context(), c, "file:///", nil); err != nil || resp.Status != pb.Status_OK {
		t.Errorf("%v, %v", resp, err)
	}
}

// A watch sees each change, also over the loss of its broker's connection.
func TestWatchOfAFleet(t *testing.T) {
	f := newFleet(t, nil, "east")
	c := f.dial(0, client.DialConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := client.NewWatchedList(ctx, c, &pb.ListRequest{Selector: pb.Must(pb.ParseLabelSelector("name:prefix=acme/"))}, nil)
	defer func() { cancel(); <-w.Done() }()
	until := func(n int) {
		t.Helper()
		for {
			select {
			case err := <-w.UpdateCh():
				if err != nil {
					continue // It tries again by itself.
				}
				if l := w.List(); len(l.Journals) == n {
					return
				}
			case <-t.Context().Done():
				t.Fatal("no update")
			}
		}
	}
	until(0)
	for i := range 60 { // More than a message holds.
		f.add(fmt.Sprintf("acme/%02d", i), 0)
	}
	until(60)
	f.add("other/one", 0)
	_, err := client.ApplyJournals(t.Context(), c, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Delete: "acme/00", ExpectModRevision: -1}}})
	check(t, err)
	until(59)
	// A client whose connection is lost resumes behind what it has.
	f.brokers[0].restart()
	f.add("acme/new", 0)
	until(60)
}
