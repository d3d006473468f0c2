package coordinator_test

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/logs/types"
)

// The logdog tool asks on until it has the entry at the terminal index, and for nothing but the next entry. It comes to an end with
// every archived stream, and shows what there is of it.
func TestPatientToolEnds(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[types.StreamName]struct {
		terminal int64 // -1: was never reported
		held     []int
	}{
		"whole":     {2, []int{0, 1, 2}},
		"gaps":      {6, []int{0, 1, 4, 6}},
		"beheaded":  {3, []int{2, 3}},
		"cut":       {9, []int{0, 1, 2}},
		"lost":      {9, nil},
		"empty":     {-1, nil},
		"forgotten": {-1, []int{0, 1, 3}},
	} {
		id := h.register(string(name))
		if c.terminal >= 0 {
			h.terminate(id, c.terminal)
		}
		h.archive(name, c.held...)
		logs, _ := serveTo(t, h.Coordinator, nil, grpc.WithUserAgent("logdog CLI"))
		for _, first := range []int64{0, 1, 20} {
			var got []int
			next, terminal := first, int64(-1)
			for requests := 0; terminal < 0 || next <= terminal; requests++ {
				if requests == 10 {
					t.Errorf("%s from %d: there is no end behind %v", name, first, got)
					break
				}
				resp, err := logs.Get(t.Context(), &logdog.GetRequest{
					Project: project, Path: string(types.StreamName(prefix).Join(name)), Index: next, LogCount: 1, State: terminal < 0,
				})
				if err != nil {
					t.Fatalf("%s from %d: %v", name, first, err)
				}
				if resp.GetState() != nil {
					terminal = resp.GetState().GetTerminalIndex()
				}
				for _, l := range resp.GetLogs() {
					if next = int64(l.GetStreamIndex()) + 1; l.GetContent() != nil {
						got = append(got, int(l.GetStreamIndex()))
					}
				}
			}
			var want []int
			for _, i := range c.held {
				if int64(i) >= first {
					want = append(want, i)
				}
			}
			equal(t, string(name), got, want)
		}
	}
}
