package coordinator_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// What would be held for half a minute is answered as soon as there is something to say, or nothing to wait for.
func TestGetIsHeld(t *testing.T) {
	const soon = 15 * time.Second // for a slow machine; the tool is held for longer
	for what, test := range map[string]struct {
		held  []int
		r     *logdog.GetRequest
		then  func(h *house, id string, v1 daybookv1.LogsClient)
		want  []int
		end   int64
		fails fault.Kind
	}{
		"an entry comes": {
			held: []int{0, 1}, r: &logdog.GetRequest{Index: 2},
			then: func(h *house, _ string, _ daybookv1.LogsClient) { h.put("stdout", 2) },
			want: []int{2}, end: -1,
		},
		"the first entry comes": {
			r:    &logdog.GetRequest{},
			then: func(h *house, _ string, _ daybookv1.LogsClient) { h.put("stdout", 0) },
			want: []int{0}, end: -1,
		},
		"a later entry comes": {
			held: []int{0}, r: &logdog.GetRequest{Index: 1, NonContiguous: true},
			then: func(h *house, _ string, _ daybookv1.LogsClient) { h.put("stdout", 5) },
			want: []int{5}, end: -1,
		},
		"the stream ends before": {
			held: []int{0, 1}, r: &logdog.GetRequest{Index: 2},
			then: func(h *house, id string, _ daybookv1.LogsClient) { h.terminate(id, 1) },
			end:  1,
		},
		"the stream is archived": {
			held: []int{0, 1}, r: &logdog.GetRequest{Index: 2},
			then: func(h *house, id string, _ daybookv1.LogsClient) {
				h.terminate(id, 2)
				h.archive("stdout", 0, 1, 2)
			},
			want: []int{2}, end: 2,
		},
		"the stream is purged": {
			held: []int{0}, r: &logdog.GetRequest{Index: 1},
			then: func(h *house, _ string, v1 daybookv1.LogsClient) {
				if _, err := v1.Purge(h.t.Context(), &daybookv1.PurgeRequest{Project: project, Prefix: prefix}); err != nil {
					h.t.Error(err)
				}
			},
			fails: fault.NotFound,
		},
		"there is a gap":       {held: []int{0, 2}, r: &logdog.GetRequest{Index: 1}, end: -1},
		"no entries wanted":    {r: &logdog.GetRequest{LogCount: -1}, end: -1},
		"a negative index":     {r: &logdog.GetRequest{Index: -1}, end: -1},
		"the service closes":   {r: &logdog.GetRequest{}, then: func(h *house, _ string, _ daybookv1.LogsClient) { h.Close() }, end: -1},
		"there is an entry":    {held: []int{0}, r: &logdog.GetRequest{}, want: []int{0}, end: -1},
		"behind the known end": {held: []int{0}, r: &logdog.GetRequest{Index: 7}, then: func(h *house, id string, _ daybookv1.LogsClient) { h.terminate(id, 0) }, end: 0},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			logs, v1 := serveTo(t, h.Coordinator, nil, grpc.WithUserAgent("logdog CLI"))
			id := h.register("stdout")
			h.put("stdout", test.held...)
			test.r.Project, test.r.Path, test.r.State = project, prefix+"/+/stdout", true
			began := time.Now()
			var resp *logdog.GetResponse
			answered := make(chan error, 1)
			go func() {
				var err error
				resp, err = logs.Get(t.Context(), test.r)
				answered <- err
			}()
			if test.then != nil {
				test.then(h, id, v1)
			}
			err := <-answered
			if took := time.Since(began); took > soon {
				t.Errorf("answered after %v", took)
			}
			if test.fails != 0 {
				if !fault.Is(err, test.fails) {
					t.Errorf("%v, want kind %v", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// It may have been asked when the stream had not ended yet, and must not be answered so.
			equal(t, "entries", indices(resp.GetLogs()), test.want)
			if got := resp.GetState().GetTerminalIndex(); got != test.end {
				t.Errorf("terminal index %d, want %d", got, test.end)
			}
		})
	}
}

// A caller who gave little time is answered in time, and others after a moment.
func TestGetIsHeldBriefly(t *testing.T) {
	h := newHouse(t)
	h.register("stdout")
	path := string(types.StreamName(prefix).Join("stdout"))
	logs, _ := serveTo(t, h.Coordinator, nil, grpc.WithUserAgent("logdog CLI"))
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	began := time.Now()
	if resp, err := logs.Get(ctx, &logdog.GetRequest{Project: project, Path: path}); err != nil || len(resp.GetLogs()) != 0 {
		t.Error(resp, err)
	} else if took := time.Since(began); took < 3*time.Second {
		t.Errorf("held for %v only", took)
	}
	others, _ := h.serve()
	began = time.Now()
	if resp, err := others.Get(t.Context(), &logdog.GetRequest{Project: project, Path: path}); err != nil || len(resp.GetLogs()) != 0 {
		t.Error(resp, err)
	} else if took := time.Since(began); took > 20*time.Second {
		t.Errorf("held for %v", took)
	}
}
