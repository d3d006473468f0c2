package broker

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// vectors reads a group of the golden vectors.
func vectors(t *testing.T, group string, into any) {
	t.Helper()
	data, err := os.ReadFile("testdata/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var groups map[string]json.RawMessage
	if err := json.Unmarshal(data, &groups); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(groups[group], into); err != nil {
		t.Fatalf("%s: %v", group, err)
	}
}

// piece makes a fragment; one without a time is local.
func piece(begin, end, modified int64) indexed {
	f := indexed{StoredFragment: engine.StoredFragment{
		Fragment: engine.Fragment{Begin: protocol.Offset(begin), End: protocol.Offset(end)}, Modified: modified,
	}}
	if modified != 0 {
		f.Store = "s3://bucket/"
	}
	return f
}

func spans(s coverSet) [][2]int64 {
	out := make([][2]int64, 0)
	for _, f := range s {
		out = append(out, [2]int64{int64(f.Begin), int64(f.End)})
	}
	return out
}

func TestCoverSetAddVectors(t *testing.T) {
	var cases []struct {
		Add      [][2]int64
		Accepted []bool
		Result   [][2]int64
	}
	vectors(t, "cover_set_add", &cases)
	for _, c := range cases {
		var s coverSet
		for i, a := range c.Add {
			var added bool
			if s, added = s.add(piece(a[0], a[1], 1)); added != c.Accepted[i] {
				t.Errorf("%v: adding %v: %v, want %v", c.Add, a, added, c.Accepted[i])
			}
		}
		if diff := cmp.Diff(c.Result, spans(s)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.Add, diff)
		}
	}
}

func TestCoverSetLookupVectors(t *testing.T) {
	var group struct {
		Set   [][2]int64
		Cases []struct {
			Offset  int64
			Index   int
			Covered bool
		}
	}
	vectors(t, "cover_set_lookup", &group)
	var s coverSet
	for _, f := range group.Set {
		s, _ = s.add(piece(f[0], f[1], 1))
	}
	for _, c := range group.Cases {
		if i, covered := s.lookup(protocol.Offset(c.Offset)); i != c.Index || covered != c.Covered {
			t.Errorf("lookup of %d: %d, %v; want %d, %v", c.Offset, i, covered, c.Index, c.Covered)
		}
	}
}

func TestIndexQueryVectors(t *testing.T) {
	var group struct {
		Now   int64
		Cases []struct {
			Note         string
			Fragments    [][3]int64
			Offset       int64
			BeginModTime int64 `json:"begin_mod_time"`
			Response     struct {
				Status    string
				Offset    int64
				WriteHead int64 `json:"write_head"`
				Fragment  []int64
			}
		}
	}
	vectors(t, "index_query", &group)
	for _, c := range group.Cases {
		var v view
		for _, f := range c.Fragments {
			v.listed, _ = v.listed.add(piece(f[0], f[1], f[2]))
		}
		offset := protocol.Offset(c.Offset)
		if offset == protocol.OffsetHead {
			offset = v.end()
		}
		at, f, ok := v.query(offset, c.BeginModTime, time.Unix(group.Now, 0))
		want := c.Response
		if ok != (want.Status == "OK") || int64(at) != want.Offset || int64(v.end()) != want.WriteHead {
			t.Errorf("%s: at %d of %d, %v; want %+v", c.Note, at, v.end(), ok, want)
		}
		if got := []int64{int64(f.Begin), int64(f.End), f.Modified}; ok && !slices.Equal(got, want.Fragment) {
			t.Errorf("%s: fragment %v, want %v", c.Note, got, want.Fragment)
		}
	}
}

func TestFragmentListingVectors(t *testing.T) {
	var group struct {
		Index [][3]int64
		Cases []struct {
			BeginModTime   int64   `json:"begin_mod_time"`
			EndModTime     int64   `json:"end_mod_time"`
			PageToken      int64   `json:"page_token"`
			PageLimit      int32   `json:"page_limit"`
			NextPageToken  int64   `json:"next_page_token"`
			ReturnedBegins []int64 `json:"returned_begins"`
		}
	}
	vectors(t, "fragment_listing", &group)
	var s coverSet
	for _, f := range group.Index {
		s, _ = s.add(piece(f[0], f[1], f[2]))
	}
	for _, c := range group.Cases {
		page, next := s.page(&protocol.FragmentsRequest{
			BeginModTime: c.BeginModTime, EndModTime: c.EndModTime, NextPageToken: c.PageToken, PageLimit: c.PageLimit,
		})
		got := []int64{}
		for _, f := range page {
			got = append(got, int64(f.Begin))
		}
		if int64(next) != c.NextPageToken || !slices.Equal(got, c.ReturnedBegins) {
			t.Errorf("%+v: %v, next %d", c, got, next)
		}
	}
}

func TestFragmentRollingVectors(t *testing.T) {
	var group struct {
		Now   int64
		Cases []struct {
			Note        string
			Spool       [2]int64
			SpecLength  int64 `json:"spec_length"`
			SpecFlush   int64 `json:"spec_flush_seconds"`
			FirstAppend int64 `json:"first_append_seconds_ago"`
			RollTo      int64 `json:"roll_to"`
			Rolled      bool
		}
	}
	vectors(t, "fragment_rolling", &group)
	for _, c := range group.Cases {
		open := engine.Fragment{
			Begin: protocol.Offset(c.Spool[0]), End: protocol.Offset(c.Spool[1]), FirstAppend: group.Now - c.FirstAppend,
		}
		policy := engine.RollPolicy{Length: c.SpecLength, FlushInterval: time.Duration(c.SpecFlush) * time.Second}
		// An append that is to land elsewhere rolls; one that is to land at the beginning of what is open cannot be.
		policy.Force = c.RollTo != 0 && c.RollTo != c.Spool[0]
		if got := policy.Due(open, -1, open.End, time.Unix(group.Now, 0)); got != c.Rolled {
			t.Errorf("%s: %v, want %v", c.Note, got, c.Rolled)
		}
	}
}

func TestFragmentPathVectors(t *testing.T) {
	var cases []struct {
		ContentPath string `json:"content_path"`
		Fragment    struct {
			Journal     string
			PathPostfix string `json:"path_postfix"`
		}
	}
	vectors(t, "fragment_paths", &cases)
	for _, c := range cases {
		m, err := protocol.ParseFragmentFromRelativePath(protocol.Journal(c.Fragment.Journal), c.ContentPath[len(c.Fragment.Journal)+1:])
		if err != nil {
			t.Errorf("%s: %v", c.ContentPath, err)
			continue
		}
		m.BackingStore, m.ModTime = "s3://bucket/", 5
		f := indexedOf(m)
		again := f.message(protocol.Journal(c.Fragment.Journal))
		if got := again.ContentPath(); got != c.ContentPath || again.GetPathPostfix() != c.Fragment.PathPostfix {
			t.Errorf("%s becomes %s", c.ContentPath, got)
		}
	}
}

// TestViewModel compares lookups in a view, which joins several lists, with those in one plain list of all fragments.
func TestViewModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := view{missing: make(map[protocol.Offset]bool)}
		var all []indexed
		at := protocol.Offset(0)
		for range rapid.IntRange(0, 8).Draw(t, "known") {
			at += protocol.Offset(rapid.IntRange(0, 2).Draw(t, "gap"))
			f := engine.Fragment{Begin: at, End: at + protocol.Offset(rapid.IntRange(1, 5).Draw(t, "length"))}
			at = f.End
			if rapid.Bool().Draw(t, "stored") {
				s := engine.StoredFragment{Fragment: f, Store: "s3://bucket/", Modified: int64(rapid.IntRange(1, 20).Draw(t, "time"))}
				v.state.Stored = append(v.state.Stored, s)
				if rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
					v.missing[f.Begin] = true
					continue
				}
				all = append(all, indexed{StoredFragment: s, known: true})
			} else {
				v.state.Finished = append(v.state.Finished, f)
				all = append(all, localOf(f))
			}
		}
		v.state.Open = engine.Fragment{Begin: at, End: at + protocol.Offset(rapid.IntRange(0, 3).Draw(t, "open"))}
		v.state.Head = v.state.Open.End
		if v.state.Open.Len() > 0 {
			all = append(all, localOf(v.state.Open))
		}
		for range rapid.IntRange(0, 6).Draw(t, "listed") {
			begin := int64(rapid.IntRange(0, 40).Draw(t, "begin"))
			f := piece(begin, begin+int64(rapid.IntRange(1, 9).Draw(t, "length")), int64(rapid.IntRange(1, 20).Draw(t, "time")))
			v.listed, _ = v.listed.add(f)
		}
		all = append(all, v.listed...)

		for o := protocol.Offset(0); o < 55; o++ {
			want, ok := plainFind(all, o)
			got, gotOK := v.find(o)
			if ok != gotOK || ok && (got.Begin > o) != (want.Begin > o) || ok && want.Begin <= o && got.End != want.End || ok && want.Begin > o && got.Begin != want.Begin {
				t.Fatalf("find %d: %v, %v; want %v, %v", o, got, gotOK, want, ok)
			}
		}
		// The list of all is what a cover set makes of them in any order.
		var plain coverSet
		for _, f := range rapid.Permutation(all).Draw(t, "order") {
			plain, _ = plain.add(f)
		}
		if diff := cmp.Diff(spans(plain), spans(v.all())); diff != "" {
			t.Fatalf("all (-want +got):\n%s", diff)
		}
		checkQuery(t, &v)
	})
}

func plainFind(all []indexed, o protocol.Offset) (best indexed, ok bool) {
	for _, f := range all {
		covers, bestCovers := f.Begin <= o && f.End > o, ok && best.Begin <= o
		switch {
		case f.End <= o:
		case !ok, covers && !bestCovers, covers && f.End > best.End, !covers && !bestCovers && f.Begin < best.Begin:
			best, ok = f, true
		}
	}
	return best, ok
}

// checkQuery checks what holds for every answer.
func checkQuery(t *rapid.T, v *view) {
	for o := protocol.Offset(0); o < 55; o++ {
		beginMod := int64(rapid.IntRange(0, 20).Draw(t, "begin mod time"))
		at, f, ok := v.query(o, beginMod, time.Unix(int64(rapid.IntRange(0, 30_000).Draw(t, "now")), 0))
		switch {
		case at < o:
			t.Fatalf("query %d goes back to %d", o, at)
		case ok && (f.Begin > at || f.End <= at):
			t.Fatalf("query %d: %v does not cover %d", o, f, at)
		case ok && !f.local() && f.Modified < beginMod:
			t.Fatalf("query %d: %v is too old", o, f)
		}
	}
}
