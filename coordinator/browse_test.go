package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Prefixes are browsed segment by segment.
func TestListFolders(t *testing.T) {
	h := newHouse(t) // with the prefix user/build
	for _, p := range []string{"user/build/deep/er", "user/test", "ci", "user/build2"} {
		h.registerPrefix(p)
	}
	h.register("stdout")
	h.register("stderr")
	_, v1 := h.serve()
	list := func(parent string, size int32) (got []string) {
		t.Helper()
		r := &daybookv1.ListFoldersRequest{Project: project, Parent: parent, PageSize: size}
		for {
			resp, err := v1.ListFolders(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(resp.GetFolders()) > int(size) {
				t.Errorf("a page of %d", len(resp.GetFolders()))
			}
			for _, f := range resp.GetFolders() {
				text := f.GetPath()
				if !strings.HasSuffix(text, f.GetName()) {
					t.Errorf("%s is named %s", text, f.GetName())
				}
				if f.GetPrefix() {
					text += " prefix"
				}
				if f.GetFolders() {
					text += " folders"
				}
				if f.GetStreams() > 0 {
					text += " streams"
				}
				if (f.GetStreams() > 0) != (f.GetNewest() != nil) {
					t.Errorf("%v", f)
				}
				got = append(got, text)
			}
			if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
				return got
			}
		}
	}
	for _, size := range []int32{0, 1, 2} {
		equal(t, "top", list("", size), []string{"ci prefix", "user folders streams"})
		equal(t, "user", list("user", size), []string{"user/build prefix folders streams", "user/build2 prefix", "user/test prefix"})
		equal(t, "user/build", list("/user/build/", size), []string{"user/build/deep folders"})
		equal(t, "nothing", list("user/none", size), []string(nil))
	}
	for _, r := range []*daybookv1.ListFoldersRequest{
		{}, {Project: "A"}, {Project: project, Parent: "a//b"}, {Project: project, Parent: "*"}, {Project: project, PageToken: "?"}, {Project: project, PageToken: "Lw"},
	} {
		if _, err := v1.ListFolders(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
	u, err := v1.GetUsage(t.Context(), &daybookv1.GetUsageRequest{Project: project})
	if err != nil || u.GetPrefixes() != 5 || u.GetStreams() != 2 || u.GetArchivedEntries() != 0 {
		t.Errorf("%v, %v", u, err)
	}
	h.terminate(h.register("archived"), 2)
	h.archive("archived", 0, 1, 2)
	u, err = v1.GetUsage(t.Context(), &daybookv1.GetUsageRequest{Project: project})
	if err != nil || u.GetStreams() != 3 || u.GetArchivedEntries() != 3 || u.GetArchivedContentBytes() != 18 {
		t.Errorf("%v, %v", u, err)
	}
	if u, err := v1.GetUsage(t.Context(), &daybookv1.GetUsageRequest{Project: "empty"}); err != nil || u.GetPrefixes() != 0 || u.GetProject() != "empty" {
		t.Errorf("%v, %v", u, err)
	}
	if _, err := v1.GetUsage(t.Context(), &daybookv1.GetUsageRequest{}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// Prefixes are browsed by time, in pages that do not change while more are registered.
func TestListPrefixesByTime(t *testing.T) {
	h := newHouse(t)
	for _, p := range []string{"a", "b", "c", "d"} {
		h.registerPrefix(p)
	}
	_, v1 := h.serve()
	all, err := v1.ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: project})
	if err != nil || len(all.GetPrefixes()) != 5 {
		t.Fatal(all, err)
	}
	created := func(name string) *timestamppb.Timestamp {
		for _, p := range all.GetPrefixes() {
			if p.GetPrefix() == name {
				return p.GetCreated()
			}
		}
		t.Fatalf("no prefix %s", name)
		return nil
	}
	for what, test := range map[string]struct {
		r    *daybookv1.ListPrefixesRequest
		want []string
	}{
		"since":   {&daybookv1.ListPrefixesRequest{Since: created("c")}, []string{"d", "c"}},
		"until":   {&daybookv1.ListPrefixesRequest{Until: created("b")}, []string{"a", prefix}},
		"between": {&daybookv1.ListPrefixesRequest{Since: created("a"), Until: created("d")}, []string{"c", "b", "a"}},
		"pattern": {&daybookv1.ListPrefixesRequest{Since: created("a"), Pattern: "*/*"}, nil},
		"before":  {&daybookv1.ListPrefixesRequest{Until: timestamppb.New(time.Time{})}, nil},
	} {
		var got []string
		test.r.Project, test.r.PageSize = project, 1
		for {
			resp, err := v1.ListPrefixes(t.Context(), test.r)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, p := range resp.GetPrefixes() {
				got = append(got, p.GetPrefix())
			}
			h.registerPrefix("later/" + what[:2] + "/" + time.Now().Format("150405.000000000"))
			if test.r.PageToken = resp.GetNextPageToken(); test.r.PageToken == "" || len(got) > 10 {
				break
			}
		}
		if what == "since" { // without an end, what was registered before the first page belongs to it
			got = got[len(got)-len(test.want):]
		}
		equal(t, what, got, test.want)
	}
	for _, r := range []*daybookv1.ListPrefixesRequest{
		{},
		{Project: project, Since: &timestamppb.Timestamp{Nanos: -1}},
		{Project: project, Until: &timestamppb.Timestamp{Seconds: 1 << 60}},
		{Project: project, PageToken: "x"},
		{Project: project, Pattern: "a//b"},
	} {
		if _, err := v1.ListPrefixes(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
}

// Clients of before 2020 ask for times.
func TestQueryHistoric(t *testing.T) {
	h := newHouse(t)
	created := map[string]time.Time{}
	for _, name := range []types.StreamName{"a", "b", "c"} {
		s, err := h.store.Stream(t.Context(), project, types.StreamID(h.register(string(name))))
		if err != nil {
			t.Fatal(err)
		}
		created[string(name)] = s.Created
	}
	logs, _ := h.serve()
	at := func(name string, off time.Duration) *timestamppb.Timestamp {
		return timestamppb.New(created[name].Add(off))
	}
	for what, test := range map[string]struct {
		r    *logdog.QueryRequest
		want []string
	}{
		"newer":              {&logdog.QueryRequest{Newer: at("a", 0)}, []string{"c", "b"}},
		"newer, part":        {&logdog.QueryRequest{Newer: at("b", -1)}, []string{"c", "b"}},
		"newer, part behind": {&logdog.QueryRequest{Newer: at("b", 1)}, []string{"c"}},
		"older":              {&logdog.QueryRequest{Older: at("c", 0)}, []string{"b", "a"}},
		"older, part":        {&logdog.QueryRequest{Older: at("c", 1)}, []string{"c", "b", "a"}},
		"older, part before": {&logdog.QueryRequest{Older: at("c", -1)}, []string{"b", "a"}},
		"between":            {&logdog.QueryRequest{Newer: at("a", 0), Older: at("c", 0)}, []string{"b"}},
		"version":            {&logdog.QueryRequest{ProtoVersion: "1"}, []string{"c", "b", "a"}},
		"other version":      {&logdog.QueryRequest{ProtoVersion: "2"}, nil},
	} {
		test.r.Project, test.r.Path, test.r.MaxResults = project, prefix, 2
		var got []string
		for {
			resp, err := logs.Query(t.Context(), test.r)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, s := range resp.GetStreams() {
				got = append(got, s.GetPath()[len(prefix+"/+/"):])
			}
			if test.r.Next = resp.GetNext(); test.r.Next == "" {
				break
			}
		}
		equal(t, what, got, test.want)
	}
	for _, r := range []*logdog.QueryRequest{{Newer: &timestamppb.Timestamp{Nanos: -1}}, {Older: &timestamppb.Timestamp{Seconds: 1 << 60}}} {
		r.Project, r.Path = project, prefix
		if _, err := logs.Query(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
}
