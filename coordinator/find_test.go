package coordinator_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// What is asked of streams is what is shown of them.
func TestFindStreamsByProperties(t *testing.T) {
	h := newHouse(t)
	add := func(name string, change func(*logpb.LogStreamDescriptor)) string {
		t.Helper()
		r := h.registration(name)
		d := new(logpb.LogStreamDescriptor)
		if err := proto.Unmarshal(r.GetDesc(), d); err != nil {
			t.Fatal(err)
		}
		change(d)
		var err error
		if r.Desc, err = proto.Marshal(d); err != nil {
			t.Fatal(err)
		}
		resp, err := h.Services().RegisterStream(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetId()
	}
	tagged := func(tags map[string]string) func(*logpb.LogStreamDescriptor) {
		return func(d *logpb.LogStreamDescriptor) { d.Tags = tags }
	}
	add("open", tagged(map[string]string{"os": "linux", "arch": ""}))
	// The end of the one is there and not all before it; of the other all is there, though it is not archived yet.
	h.terminate(add("terminated", tagged(map[string]string{"os": "darwin"})), 4)
	h.terminate(add("finished", func(d *logpb.LogStreamDescriptor) {
		d.StreamType, d.ContentType = logpb.StreamType_BINARY, "application/x-core"
	}), 1)
	h.put("finished", 0, 1)
	h.terminate(add("complete", tagged(nil)), 1)
	h.archive("complete", 0, 1)
	h.terminate(add("incomplete", tagged(map[string]string{"os": "linux"})), 2)
	h.archive("incomplete", 0, 2)
	_, v1 := h.serve()

	page, err := v1.FindStreams(t.Context(), &daybookv1.FindStreamsRequest{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	created := func(path string) *timestamppb.Timestamp {
		t.Helper()
		for _, s := range page.GetStreams() {
			if s.GetPath() == prefix+"/+/"+path {
				return s.GetCreated()
			}
		}
		t.Fatalf("%s is not listed", path)
		return nil
	}
	text := logpb.StreamType_TEXT
	state := func(s ...daybookv1.StreamState) *daybookv1.FindStreamsRequest {
		return &daybookv1.FindStreamsRequest{States: s}
	}
	for what, test := range map[string]struct {
		r    *daybookv1.FindStreamsRequest
		want []string
	}{
		"tag":            {&daybookv1.FindStreamsRequest{Tags: map[string]string{"os": "linux"}}, []string{"incomplete", "open"}},
		"key":            {&daybookv1.FindStreamsRequest{Tags: map[string]string{"os": ""}}, []string{"incomplete", "terminated", "open"}},
		"key, no value":  {&daybookv1.FindStreamsRequest{Tags: map[string]string{"arch": ""}}, []string{"open"}},
		"tags":           {&daybookv1.FindStreamsRequest{Tags: map[string]string{"os": "darwin", "arch": ""}}, nil},
		"text":           {&daybookv1.FindStreamsRequest{StreamType: &text}, []string{"incomplete", "complete", "terminated", "open"}},
		"content type":   {&daybookv1.FindStreamsRequest{ContentType: "application/x-core"}, []string{"finished"}},
		"open":           {state(daybookv1.StreamState_OPEN), []string{"open"}},
		"terminated":     {state(daybookv1.StreamState_TERMINATED), []string{"terminated"}},
		"complete":       {state(daybookv1.StreamState_COMPLETE), []string{"complete", "finished"}},
		"incomplete":     {state(daybookv1.StreamState_INCOMPLETE), []string{"incomplete"}},
		"two states":     {state(daybookv1.StreamState_INCOMPLETE, daybookv1.StreamState_OPEN), []string{"incomplete", "open"}},
		"since":          {&daybookv1.FindStreamsRequest{Since: created("complete")}, []string{"incomplete", "complete"}},
		"until":          {&daybookv1.FindStreamsRequest{Until: created("finished")}, []string{"terminated", "open"}},
		"between":        {&daybookv1.FindStreamsRequest{Since: created("terminated"), Until: created("complete")}, []string{"finished", "terminated"}},
		"pattern, state": {&daybookv1.FindStreamsRequest{Pattern: "**/+/*complete", States: []daybookv1.StreamState{daybookv1.StreamState_COMPLETE}}, nil},
	} {
		var got []string
		test.r.Project, test.r.PageSize = project, 1
		for {
			resp, err := v1.FindStreams(t.Context(), test.r)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, s := range resp.GetStreams() {
				got = append(got, s.GetPath()[len(prefix+"/+/"):])
			}
			if test.r.PageToken = resp.GetNextPageToken(); test.r.PageToken == "" {
				break
			}
		}
		equal(t, what, got, test.want)
	}
	strange := logpb.StreamType(9)
	many := make(map[string]string)
	for i := range 65 {
		many[fmt.Sprint("k", i)] = ""
	}
	for _, r := range []*daybookv1.FindStreamsRequest{
		{Tags: map[string]string{"not a tag": ""}},
		{Tags: many},
		{StreamType: &strange},
		state(daybookv1.StreamState_STREAM_STATE_UNSPECIFIED),
		state(77),
		{Since: &timestamppb.Timestamp{Nanos: -1}},
		{Until: &timestamppb.Timestamp{Seconds: 1 << 60}},
		{PageToken: "MTIz"},
	} {
		r.Project = project
		if _, err := v1.FindStreams(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
}
