package coordinator_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// Each case for a stream in storage and one in the archive, holding 0, 1, 2, 4, 5, 7.
func TestGet(t *testing.T) {
	h := newHouse(t)
	held := []int{0, 1, 2, 4, 5, 7}
	h.register("recent")
	h.put("recent", held...)
	h.terminate(h.register("archived"), 7)
	h.archive("archived", held...)
	logs, _ := h.serve()
	size := int32(proto.Size(entry(0))) // entry 0 has shorter numbers than the others
	second := int32(proto.Size(entry(1)))
	for _, name := range []types.StreamName{"recent", "archived"} {
		path := types.StreamName(prefix).Join(name)
		for what, test := range map[string]struct {
			r    *logdog.GetRequest
			want []int
		}{
			"from 0":                 {&logdog.GetRequest{}, []int{0, 1, 2}},
			"from 4":                 {&logdog.GetRequest{Index: 4}, []int{4, 5}},
			"from 6":                 {&logdog.GetRequest{Index: 6}, nil},
			"from -1":                {&logdog.GetRequest{Index: -1}, nil},
			"from 6, gaps":           {&logdog.GetRequest{Index: 6, NonContiguous: true}, []int{7}},
			"from 0, gaps":           {&logdog.GetRequest{NonContiguous: true}, held},
			"from -1, gaps":          {&logdog.GetRequest{Index: -1, NonContiguous: true}, held},
			"one, into a gap":        {&logdog.GetRequest{Index: 3, NonContiguous: true, LogCount: 1}, []int{4}},
			"two":                    {&logdog.GetRequest{LogCount: 2}, []int{0, 1}},
			"two, over gaps":         {&logdog.GetRequest{Index: 2, NonContiguous: true, LogCount: 2}, []int{2, 4}},
			"bytes, over gaps":       {&logdog.GetRequest{Index: 2, NonContiguous: true, ByteCount: 2 * second}, []int{2, 4}},
			"three entries":          {&logdog.GetRequest{ByteCount: size + 2*second}, []int{0, 1, 2}},
			"none":                   {&logdog.GetRequest{LogCount: -1, State: true}, nil},
			"a byte":                 {&logdog.GetRequest{ByteCount: 1}, []int{0}},
			"one entry":              {&logdog.GetRequest{ByteCount: size}, []int{0}},
			"one entry and a byte":   {&logdog.GetRequest{ByteCount: size + 1}, []int{0}},
			"two entries":            {&logdog.GetRequest{ByteCount: size + second}, []int{0, 1}},
			"two entries less one":   {&logdog.GetRequest{ByteCount: size + second - 1}, []int{0}},
			"with state":             {&logdog.GetRequest{State: true, LogCount: 1}, []int{0}},
			"by id":                  {&logdog.GetRequest{Path: string(path.ID()), LogCount: 1}, []int{0}},
			"negative and too large": {&logdog.GetRequest{ByteCount: -5, LogCount: 1}, []int{0}},
		} {
			what = string(name) + " " + what
			test.r.Project = project
			if test.r.Path == "" {
				test.r.Path = string(path)
			}
			resp, err := logs.Get(t.Context(), test.r)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			equal(t, what, indices(resp.GetLogs()), test.want)
			if !test.r.State {
				continue
			}
			if !proto.Equal(resp.GetDesc(), descriptor(string(name))) {
				t.Errorf("%s: descriptor %v", what, resp.GetDesc())
			}
			a := resp.GetState().GetArchive()
			if archived := name == "archived"; archived != (a != nil) || archived && (a.GetComplete() || a.GetLogEntryCount() != 6 || resp.GetState().GetTerminalIndex() != 7) {
				t.Errorf("%s: state %v", what, resp.GetState())
			}
			var missing [][2]int64
			for _, m := range resp.GetState().GetMissing() {
				missing = append(missing, [2]int64{m.GetFirst(), m.GetLast()})
			}
			equal(t, what+": missing", missing, map[types.StreamName][][2]int64{"archived": {{3, 3}, {6, 6}}}[name])
		}
		resp, err := logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: string(path), State: true})
		want := map[types.StreamName][]int{"recent": {2}, "archived": {7}}
		if err != nil {
			t.Error(err)
		}
		equal(t, "tail of "+string(name), indices(resp.GetLogs()), want[name])
		resp, err = logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: strings.ToUpper(string(path.ID()))})
		if err != nil || resp.GetState() != nil || resp.GetDesc() != nil {
			t.Errorf("tail by id: %v, %v", resp, err)
		}
		equal(t, "tail by id", indices(resp.GetLogs()), want[name])
	}
}

func TestReadFailures(t *testing.T) {
	h := newHouse(t)
	h.terminate(h.register("gone"), 0)
	h.archive("gone", 0)
	h.archives.entries = nil
	h.register("broken")
	h.put("broken", 0)
	h.register("empty")
	logs, v1 := h.serve()
	get := func(path string) error {
		_, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: path})
		return err
	}
	tail := func(path string) error {
		_, err := logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: path})
		return err
	}
	for what, call := range map[string]func(string) error{"get": get, "tail": tail} {
		if err := call(prefix + "/+/empty"); err != nil {
			t.Errorf("%s of an empty stream: %v", what, err)
		}
		for path, want := range map[string]fault.Kind{
			prefix + "/+/unknown":   fault.NotFound,
			"unknown/+/stdout":      fault.Unauthenticated, // as what the caller may not see
			strings.Repeat("0", 64): fault.Unauthenticated,
			prefix + "/+/gone":      fault.Internal,
			prefix:                  fault.Invalid,
			prefix + "/+/":          fault.Invalid,
			"":                      fault.Invalid,
		} {
			if err := call(path); !fault.Is(err, want) {
				t.Errorf("%s %q: %v, want kind %v", what, path, err, want)
			}
		}
		h.storage.SetErr(fault.New(fault.Internal, "disk on fire"))
		if err := call(prefix + "/+/broken"); !fault.Is(err, fault.Internal) {
			t.Errorf("%s of a broken storage: %v", what, err)
		}
		// What may pass is waited for.
		h.storage.SetErr(fault.New(fault.Transient, "disk is busy"))
		passes := time.AfterFunc(20*time.Millisecond, func() { h.storage.SetErr(nil) })
		if err := call(prefix + "/+/broken"); err != nil {
			t.Errorf("%s of a storage that fails for a moment: %v", what, err)
		}
		passes.Stop()
	}
	if _, err := logs.Get(t.Context(), &logdog.GetRequest{Path: prefix + "/+/empty"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no project: %v", err)
	}
	if _, err := v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: prefix + "/+/unknown"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("GetStream: %v", err)
	}

	// A purged stream is hidden everywhere.
	h.register("purged")
	err := h.store.Update(t.Context(), func(tx state.Tx) error {
		s, err := tx.Stream(project, types.StreamName(prefix).Join("purged").ID())
		if err != nil {
			return err
		}
		s.Purged = s.Created
		return tx.PutStream(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := get(prefix + "/+/purged"); !fault.Is(err, fault.NotFound) {
		t.Errorf("get of a purged stream: %v", err)
	}
	q, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: project, Path: prefix + "/+/purged"})
	if err != nil || len(q.GetStreams()) != 0 {
		t.Errorf("query of a purged stream: %v, %v", q, err)
	}
	f, err := v1.FindStreams(t.Context(), &daybookv1.FindStreamsRequest{Project: project, Pattern: "**/+/purged"})
	if err != nil || len(f.GetStreams()) != 0 {
		t.Errorf("find of a purged stream: %v, %v", f, err)
	}
}

func TestQuery(t *testing.T) {
	h := newHouse(t)
	var names []string
	for i := range 6 {
		name := fmt.Sprint("steps/", i, "/stdout")
		names = append(names, prefix+"/+/"+name)
		h.terminate(h.register(name), 0)
		if i%2 == 0 {
			h.archive(types.StreamName(name), 0)
		}
	}
	h.register("other")
	logs, _ := h.serve()

	// Pages visit everything once, with the right state on each.
	var got []string
	r := &logdog.QueryRequest{Project: project, Path: prefix + "/+/steps/**", State: true, MaxResults: 3}
	for {
		resp, err := logs.Query(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.GetStreams() {
			got = append([]string{s.GetPath()}, got...)
			var i int
			if _, err := fmt.Sscanf(s.GetPath(), prefix+"/+/steps/%d/stdout", &i); err != nil {
				t.Error(err)
			}
			if s.GetState().GetTerminalIndex() != 0 || (s.GetState().GetArchive() != nil) != (i%2 == 0) || s.GetDesc() == nil {
				t.Errorf("%s: %v", s.GetPath(), s.GetState())
			}
		}
		if r.Next = resp.GetNext(); r.Next == "" {
			break
		}
	}
	equal(t, "pages", got, names)

	for what, test := range map[string]struct {
		change func(*logdog.QueryRequest)
		want   int
	}{
		"everything":         {func(*logdog.QueryRequest) {}, 7},
		"one name":           {func(r *logdog.QueryRequest) { r.Path += "/+/other" }, 1},
		"content type":       {func(r *logdog.QueryRequest) { r.ContentType = "text/plain" }, 7},
		"other content type": {func(r *logdog.QueryRequest) { r.ContentType = "text" }, 0},
		"text":               {func(r *logdog.QueryRequest) { r.StreamType = &logdog.QueryRequest_StreamTypeFilter{} }, 7},
		"binary": {func(r *logdog.QueryRequest) {
			r.StreamType = &logdog.QueryRequest_StreamTypeFilter{Value: logpb.StreamType_BINARY}
		}, 0},
		"tag there":     {func(r *logdog.QueryRequest) { r.Tags = map[string]string{"k": ""} }, 7},
		"tag equal":     {func(r *logdog.QueryRequest) { r.Tags = map[string]string{"k": "v"} }, 7},
		"tag different": {func(r *logdog.QueryRequest) { r.Tags = map[string]string{"k": "w"} }, 0},
		"tag not there": {func(r *logdog.QueryRequest) { r.Tags = map[string]string{"l": ""} }, 0},
	} {
		r := &logdog.QueryRequest{Project: project, Path: prefix}
		test.change(r)
		if resp, err := logs.Query(t.Context(), r); err != nil || len(resp.GetStreams()) != test.want || resp.GetRealm() != "@legacy" {
			t.Errorf("%s: %d streams, %v", what, len(resp.GetStreams()), err)
		}
	}
	for what, change := range map[string]func(*logdog.QueryRequest){
		"project":         func(r *logdog.QueryRequest) { r.Project = "" },
		"purged":          func(r *logdog.QueryRequest) { r.Purged = logdog.QueryRequest_YES },
		"star in prefix":  func(r *logdog.QueryRequest) { r.Path = "user/*" },
		"pattern":         func(r *logdog.QueryRequest) { r.Path += "/+/a//b" },
		"next":            func(r *logdog.QueryRequest) { r.Next = "?" },
		"next of another": func(r *logdog.QueryRequest) { r.Next = "LTE" },
		"type":            func(r *logdog.QueryRequest) { r.StreamType = &logdog.QueryRequest_StreamTypeFilter{Value: 9} },
		"tag":             func(r *logdog.QueryRequest) { r.Tags = map[string]string{"/": ""} },
	} {
		r := &logdog.QueryRequest{Project: project, Path: prefix}
		change(r)
		if _, err := logs.Query(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: project, Path: "unknown"}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("unknown prefix: %v", err)
	}
}

// The patterns of names, at the door: what a star stands for, and that two of them never begin within a segment.
func TestQueryPatterns(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{
		"foo", "foobar", "foo/bar", "foo/bar/baz", "cat/dog", "catfish/dog", "cat/bird/dog", "xfoo", "a/foo", "a/b/foo", "a/xfoo", "f-o",
	} {
		h.register(name)
	}
	logs, _ := h.serve()
	for pattern, want := range map[string]string{
		"":           "a/b/foo a/foo a/xfoo cat/bird/dog cat/dog catfish/dog f-o foo foo/bar foo/bar/baz foobar xfoo",
		"**":         "a/b/foo a/foo a/xfoo cat/bird/dog cat/dog catfish/dog f-o foo foo/bar foo/bar/baz foobar xfoo",
		"***":        "a/b/foo a/foo a/xfoo cat/bird/dog cat/dog catfish/dog f-o foo foo/bar foo/bar/baz foobar xfoo",
		"*":          "f-o foo foobar xfoo",
		"foo":        "foo",
		"foo/*":      "foo/bar",
		"foo/**":     "foo foo/bar foo/bar/baz",
		"**/foo":     "a/b/foo a/foo foo",
		"cat/**/dog": "cat/bird/dog cat/dog",
		"cat/*/dog":  "cat/bird/dog",
		"*/foo":      "a/foo",
		"foo*":       "foobar",
		"f*o":        "f-o foo",
		"*o*":        "foo foobar xfoo",
		"foo/*/baz":  "foo/bar/baz",
		"**foo":      "a/b/foo a/foo a/xfoo foo xfoo",
		"none/**":    "",
	} {
		resp, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: project, Path: prefix + "/+/" + pattern})
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		var got []string
		for _, s := range resp.GetStreams() {
			got = append(got, s.GetPath()[len(prefix+"/+/"):])
		}
		slices.Sort(got)
		equal(t, pattern, strings.Join(got, " "), want)
	}
	for _, path := range []string{
		"", "/", "+", "+/foo", "user/*", "user/**", "*", prefix + "/+/a//b", prefix + "/+//a", prefix + "/+/a/", prefix + "/+/a/+/b", prefix + "/+/a b", prefix + "/+/-*",
		prefix + "/+/" + strings.Repeat("x", 4097),
	} {
		if _, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: project, Path: path}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestDescriptions(t *testing.T) {
	h := newHouse(t)
	h.register("open")
	h.put("open", 0, 1, 3)
	h.terminate(h.register("waiting"), 3)
	h.put("waiting", 0, 1)
	h.terminate(h.register("whole"), 1)
	h.put("whole", 0, 1)
	h.terminate(h.register("complete"), 2)
	h.archive("complete", 0, 1, 2)
	h.terminate(h.register("incomplete"), 5)
	h.archive("incomplete", 0, 1, 3)
	h.register("never")
	h.archive("never", 0)
	killed := &logdog.TerminateStreamRequest{
		Project: project, Id: h.register("killed"), Secret: h.secret, TerminalEmpty: true,
		Ended: &logpb.StreamEnd{Reason: "its worker died", Tags: map[string]string{"late": "1"}},
	}
	if _, err := h.Services().TerminateStream(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	logs, v1 := h.serve()
	for name, want := range map[string]*daybookv1.Stream{
		"open":     {State: daybookv1.StreamState_OPEN, TerminalIndex: -1, Size: 12, Lines: 4, NextIndex: 2},
		"waiting":  {State: daybookv1.StreamState_TERMINATED, TerminalIndex: 3, Size: 12, Lines: 4, NextIndex: 2},
		"whole":    {State: daybookv1.StreamState_COMPLETE, TerminalIndex: 1, Size: 12, Lines: 4, NextIndex: 2},
		"complete": {State: daybookv1.StreamState_COMPLETE, TerminalIndex: 2, Size: 18, Lines: 6, NextIndex: 3},
		"incomplete": {
			State: daybookv1.StreamState_INCOMPLETE, TerminalIndex: 5, Size: 18, Lines: 6, NextIndex: 4,
			Missing: []*daybookv1.IndexRange{{First: 2, Last: 2}, {First: 4, Last: 5}},
		},
		"never":  {State: daybookv1.StreamState_INCOMPLETE, TerminalIndex: 0, Size: 6, Lines: 2, NextIndex: 1, EndReason: "no end was reported, and nothing came any more"},
		"killed": {State: daybookv1.StreamState_COMPLETE, TerminalIndex: -1, EndReason: "its worker died"},
	} {
		got, err := v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: prefix + "/+/" + name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.GetCreated() == nil || (got.GetEnded() == nil) != (name == "open") {
			t.Errorf("%s: times %v, %v", name, got.GetCreated(), got.GetEnded())
		}
		want.Project, want.Path, want.Desc, want.Created, want.Ended = project, prefix+"/+/"+name, descriptor(name), got.GetCreated(), got.GetEnded()
		if name == "killed" {
			want.Desc.Tags["late"] = "1"
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, want)
		}
		resp, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: prefix + "/+/" + name, State: true, LogCount: -1})
		if err != nil || resp.GetState().GetEndReason() != want.GetEndReason() || len(resp.GetState().GetMissing()) != len(want.GetMissing()) {
			t.Errorf("%s, as existing tools are told: %v, %v", name, resp, err)
		}
	}
}

func TestFindAndList(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"stdout", "stderr", "a/b"} {
		h.register(name)
	}
	h.registerPrefix("other/job")
	_, v1 := h.serve()
	for pattern, want := range map[string][]string{
		"":                      {"a/b", "stderr", "stdout"},
		"**/+/std*":             {"stderr", "stdout"},
		prefix:                  {"a/b", "stderr", "stdout"},
		"user/*/+/*":            {"stderr", "stdout"},
		"other/**":              nil,
		prefix + "/+/stdout":    {"stdout"},
		"user/**/build/+/**/b":  {"a/b"},
		"user/*/build/+/stdout": nil,
	} {
		var got []string
		r := &daybookv1.FindStreamsRequest{Project: project, Pattern: pattern, PageSize: 2}
		for {
			resp, err := v1.FindStreams(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range resp.GetStreams() {
				got = append(got, s.GetPath()[len(prefix+"/+/"):])
			}
			if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
		equal(t, pattern, got, want)
	}
	for _, r := range []*daybookv1.FindStreamsRequest{{}, {Project: project, Pattern: "a//b"}, {Project: project, PageToken: "x"}} {
		if _, err := v1.FindStreams(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", r, err)
		}
	}

	projects, err := v1.ListProjects(t.Context(), &daybookv1.ListProjectsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "projects", projects.GetProjects(), []string{project})
	prefixes, err := v1.ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: project})
	if err != nil || len(prefixes.GetPrefixes()) != 2 || prefixes.GetPrefixes()[0].GetPrefix() != "other/job" {
		t.Fatalf("%v, %v", prefixes, err)
	}
	var got []string
	for _, s := range prefixes.GetPrefixes()[1].GetStreams() {
		got = append(got, s.GetPath()[len(prefix+"/+/"):])
	}
	equal(t, "streams of a prefix", got, []string{"a/b", "stderr", "stdout"})
	r := &daybookv1.ListPrefixesRequest{Project: project, Pattern: "**/job", PageSize: 1}
	if prefixes, err = v1.ListPrefixes(t.Context(), r); err != nil || len(prefixes.GetPrefixes()) != 1 {
		t.Errorf("%v, %v", prefixes, err)
	}
}

// Signed URLs are given of archived streams, for an hour at most, and left out where there are none.
func TestSignedURLs(t *testing.T) {
	h := newHouse(t)
	h.register("recent")
	h.put("recent", 0)
	h.terminate(h.register("archived"), 0)
	h.archive("archived", 0)
	logs, _ := h.serve()
	get := func(name string, sign *logdog.GetRequest_SignURLRequest) *logdog.GetResponse {
		t.Helper()
		resp, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: prefix + "/+/" + name, LogCount: -1, GetSignedUrls: sign})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	minute := durationpb.New(time.Minute)
	both := &logdog.GetRequest_SignURLRequest{Lifetime: minute, Stream: true, Index: true}
	if r := get("archived", both); r.GetSignedUrls() != nil {
		t.Errorf("no place for signed URLs, and %v", r.GetSignedUrls())
	}
	h.archives.signs = true
	url := "memory:" + prefix + "/+/archived"
	for what, test := range map[string]struct {
		name          string
		r             *logdog.GetRequest_SignURLRequest
		stream, index string
		lifetime      time.Duration
	}{
		"both":        {"archived", both, "https://signed/1m0s/" + url, "https://signed/1m0s/" + url, time.Minute},
		"index":       {"archived", &logdog.GetRequest_SignURLRequest{Lifetime: minute, Index: true}, "", "https://signed/1m0s/" + url, time.Minute},
		"long":        {"archived", &logdog.GetRequest_SignURLRequest{Lifetime: durationpb.New(9 * time.Hour), Stream: true}, "https://signed/1h0m0s/" + url, "", time.Hour},
		"recent":      {"recent", both, "", "", 0},
		"no lifetime": {"archived", &logdog.GetRequest_SignURLRequest{Stream: true}, "", "", 0},
		"no object":   {"archived", &logdog.GetRequest_SignURLRequest{Lifetime: minute}, "", "", 0},
		"nothing":     {"archived", nil, "", "", 0},
	} {
		before := time.Now()
		r := get(test.name, test.r)
		if s := r.GetSignedUrls(); (s != nil) != (test.lifetime > 0) || s.GetStream() != test.stream || s.GetIndex() != test.index {
			t.Errorf("%s: %v", what, s)
		} else if s != nil && (s.GetExpiration().AsTime().Before(before.Add(test.lifetime)) || s.GetExpiration().AsTime().After(time.Now().Add(test.lifetime))) {
			t.Errorf("%s: expires %v", what, s.GetExpiration().AsTime())
		}
		if len(r.GetLogs()) > 0 || r.GetState() != nil {
			t.Errorf("%s: %v", what, r)
		}
	}
}

// Damaged entries, and addresses that are none, are the server's failure.
func TestDamage(t *testing.T) {
	h := newHouse(t)
	h.register("damaged")
	path := types.StreamName(prefix).Join("damaged")
	err := h.storage.Put(t.Context(), storage.PutRequest{Stream: storage.Stream{Project: project, Path: path}, Values: [][]byte{[]byte("no entry")}})
	if err != nil {
		t.Fatal(err)
	}
	logs, book := h.serve()
	_, err = logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: string(path)})
	wantCode(t, "get", err, codes.Internal)
	_, err = logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: string(path)})
	wantCode(t, "tail", err, codes.Internal)
	if _, err = logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: string(path), LogCount: -1, State: true}); err != nil {
		t.Errorf("state alone: %v", err)
	}

	// Listings show what else there is.
	h.register("whole")
	h.put("whole", 0)
	if found, err := book.FindStreams(t.Context(), &daybookv1.FindStreamsRequest{Project: project}); err != nil || len(found.GetStreams()) != 2 {
		t.Errorf("find: %v, %v", found, err)
	}
	if listed, err := book.ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: project}); err != nil || len(listed.GetPrefixes()[0].GetStreams()) != 2 {
		t.Errorf("list: %v, %v", listed, err)
	}
	follow, err := book.Follow(t.Context(), &daybookv1.FollowRequest{Project: project, Path: string(path)})
	for err == nil {
		_, err = follow.Recv()
	}
	wantCode(t, "follow", err, codes.DataLoss)
}

// Times that no JSON has come from anybody. What is read and listed has a JSON form all the same.
func TestTimesOutOfRange(t *testing.T) {
	h := newHouse(t)
	r := h.registration("far")
	d := descriptor("far")
	d.Timestamp = &timestamppb.Timestamp{Seconds: math.MaxInt64, Nanos: -1}
	var err error
	if r.Desc, err = proto.Marshal(d); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Services().RegisterStream(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	far := entry(0)
	far.TimeOffset = &durationpb.Duration{Seconds: math.MinInt64, Nanos: 1}
	b, err := proto.Marshal(far)
	if err != nil {
		t.Fatal(err)
	}
	path := types.StreamName(prefix).Join("far")
	if err := h.storage.Put(t.Context(), storage.PutRequest{Stream: storage.Stream{Project: project, Path: path}, Values: [][]byte{b}}); err != nil {
		t.Fatal(err)
	}
	logs, book := h.serve()
	shown := func(m proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := protojson.Marshal(m); err != nil {
			t.Error(err)
		}
	}
	get, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: string(path), State: true})
	shown(get, err)
	tail, err := logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: string(path), State: true})
	shown(tail, err)
	if len(get.GetLogs()) != 1 || len(tail.GetLogs()) != 1 {
		t.Errorf("%d and %d entries", len(get.GetLogs()), len(tail.GetLogs()))
	}
	query, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: project, Path: prefix + "/+/**", State: true})
	shown(query, err)
	found, err := book.FindStreams(t.Context(), &daybookv1.FindStreamsRequest{Project: project})
	shown(found, err)
	listed, err := book.ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: project})
	shown(listed, err)
	if len(query.GetStreams()) != 1 || len(found.GetStreams()) != 1 || len(listed.GetPrefixes()) != 1 {
		t.Errorf("%v, %v, %v", query, found, listed)
	}
}

// A stream that is removed while streams are listed is not among them.
func TestRemovedMeanwhile(t *testing.T) {
	var h *house
	remove := func() {
		s, err := h.store.Stream(context.Background(), project, types.StreamName(prefix).Join("going").ID())
		if err != nil {
			return // it is gone
		}
		if err := h.store.Update(context.Background(), func(tx state.Tx) error { return tx.DeleteStream(s) }); err != nil {
			t.Error(err)
		}
	}
	h = newHouse(t, func(c *coordinator.Config) { c.Storage = tailHook{c.Storage, remove} })
	_, book := h.serve()
	h.register("staying")
	h.register("going")
	if found, err := book.FindStreams(t.Context(), &daybookv1.FindStreamsRequest{Project: project}); err != nil || len(found.GetStreams()) != 1 {
		t.Errorf("find: %v, %v", found, err)
	}
	h.register("going")
	if listed, err := book.ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: project}); err != nil || len(listed.GetPrefixes()[0].GetStreams()) != 1 {
		t.Errorf("list: %v, %v", listed, err)
	}
}

// tailHook calls a function before each Tail.
type tailHook struct {
	storage.Storage
	before func()
}

func (h tailHook) Tail(ctx context.Context, s storage.Stream) (storage.Entry, error) {
	h.before()
	return h.Storage.Tail(ctx, s)
}
