package broker_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// A watch that runs while many clients change specs sees snapshots that are complete and newer each time, and the last state.
func TestWatchLosesNothing(t *testing.T) {
	c := one(t)
	stream, err := c.client.List(t.Context(), &protocol.ListRequest{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	const clients, each = 4, 30
	var wg sync.WaitGroup
	defer wg.Wait()
	for w := range clients {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("watched/%d-%02d", w, i)
				c.create(name)
				if i%3 == 0 {
					c.apply(&protocol.ApplyRequest_Change{Delete: name, ExpectModRevision: -1})
				}
			}
		})
	}
	const want = 1 + clients*each*2/3
	seen := make(map[string]int64) // of the last snapshot
	for revision := int64(0); len(seen) != want; {
		clear(seen)
		for i := 0; ; i++ {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if r := resp.GetHeader().GetEtcd().GetRevision(); r <= revision {
					t.Fatalf("revision %d after %d", r, revision)
				}
				revision = resp.GetHeader().GetEtcd().GetRevision()
			} else if len(resp.GetJournals()) == 0 {
				break
			}
			for _, j := range resp.GetJournals() {
				if j.GetModRevision() > revision {
					t.Errorf("%s has revision %d in a snapshot of %d", j.GetSpec().GetName(), j.GetModRevision(), revision)
				}
				seen[j.GetSpec().GetName()] = j.GetModRevision()
			}
		}
	}
	wg.Wait()
	if n := len(c.log.Specs().All); n != want {
		t.Errorf("%d journals, want %d", n, want)
	}
}
