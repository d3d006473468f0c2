package statetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// pages returns all that a query selects, page by page. later is called between the pages.
func (f *fixture) pages(q state.StreamQuery, later func()) (paths []types.StreamPath) {
	f.t.Helper()
	for {
		found, next, err := f.FindStreams(f.t.Context(), q)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(found) > q.Limit {
			f.t.Fatalf("%d streams on a page of %d", len(found), q.Limit)
		}
		for _, s := range found {
			paths = append(paths, s.Path())
		}
		if next.IsZero() {
			return paths
		}
		if !q.After.IsZero() && !next.Created.Before(q.After.Created) && next.Seq >= q.After.Seq {
			f.t.Fatalf("the page after %v ends at %v", q.After, next)
		}
		q.After = next
		later()
	}
}

func (f *fixture) pattern(s string) state.Pattern {
	f.t.Helper()
	p, err := state.ParsePattern(s)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// findStreams compares what is found with what of all streams matches, and has streams come while it pages.
func findStreams(t *testing.T, f *fixture) {
	var all []*state.Stream
	long := types.StreamName(fmt.Sprintf("long/%01000d", 0)) // longer than an index takes
	add := func(p *state.Prefix, name types.StreamName, created time.Time, d *logpb.LogStreamDescriptor) *state.Stream {
		t.Helper()
		raw, err := proto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		s := newStream(p, name)
		s.Created, s.Descriptor = created, raw
		f.update(func(tx state.Tx) error { return tx.AddStream(s) })
		return s
	}
	for i, prefix := range []types.StreamName{"a", "a/b", "a/b/c", "x/b", "a_b", long + long + long + long} {
		p := f.addPrefix("local", prefix)
		for k, name := range []types.StreamName{"stdout", "steps/1/stdout", "steps/2/stderr", "s_eps", long} {
			d := &logpb.LogStreamDescriptor{
				StreamType: logpb.StreamType(k % 3), ContentType: fmt.Sprint("text/", k%2), Tags: map[string]string{"step": fmt.Sprint(k), "all": ""},
			}
			if k == 1 {
				d.Tags["rare"] = string(long)
			}
			// Several at one time, and not in the order in which they came.
			all = append(all, add(p, name, now.Add(time.Duration((k+2)%3*(i/2))*time.Hour), d))
		}
	}
	change := func(s *state.Stream) { t.Helper(); f.update(func(tx state.Tx) error { return tx.PutStream(s) }) }
	for i, s := range all {
		switch {
		case i%4 == 1:
			if _, err := s.Terminate(now, state.End{Known: true, Index: 3}, state.Note{Tags: map[string]string{"ended": "yes"}}); err != nil {
				t.Fatal(err)
			}
			change(s)
		case i%9 == 2:
			if _, err := s.SetArchive(now, state.Archive{LastIndex: -1}, nil, ""); err != nil {
				t.Fatal(err)
			}
			change(s)
		case i == 6:
			s.Purged = now
			change(s)
		}
	}
	other := f.addPrefix("other", "a")
	add(other, "stdout", now, &logpb.LogStreamDescriptor{Tags: map[string]string{"step": "0"}})

	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	text, datagram := logpb.StreamType_TEXT, logpb.StreamType_DATAGRAM
	queries := []state.StreamQuery{
		{},
		{Purged: true},
		{OnlyPurged: true},
		{OnlyPurged: true, Phases: []state.Phase{state.Complete, state.Open}},
		{Tags: map[string]string{"step": ""}},
		{Tags: map[string]string{"step": "2"}},
		{Tags: map[string]string{"step": "1", "rare": string(long)}},
		{Tags: map[string]string{"step": "1", "rare": "no"}},
		{Tags: map[string]string{"all": "", "ended": "yes"}},
		{Tags: map[string]string{"all": "something"}},
		{Tags: map[string]string{"nothing": ""}},
		{Type: &text},
		{Type: &datagram, ContentType: "text/0"},
		{ContentType: "text/1"},
		{ContentType: "text"},
		{Phases: []state.Phase{state.Open}},
		{Phases: []state.Phase{state.Terminated, state.Incomplete}},
		{Phases: []state.Phase{state.Complete}},
		{Since: hour(1)},
		{Until: hour(1)},
		{Since: hour(1), Until: hour(2), Type: &text},
		{Since: hour(2), Until: hour(1)},
	}
	for _, p := range []struct{ prefix, name string }{
		{"a", ""},
		{"a/b", "stdout"},
		{"a/*", ""},
		{"a/**", ""},
		{"a**", ""},
		{"a/b*", "s*"},
		{"**/b", ""},
		{"*/b", "steps/**"},
		{"", "**/stdout"},
		{"", "stdout"},
		{"", "steps/*/std*"},
		{"nothing", ""},
		{"nothing/**", ""},
		{"a/**/c", ""},
		{"a_*", ""},
		{"", "s_*"},
		{"", string(long)},
		{string(long + long + long + long), ""},
		{"long/**", "*"},
	} {
		queries = append(queries,
			state.StreamQuery{Prefix: f.pattern(p.prefix), Name: f.pattern(p.name)},
			state.StreamQuery{
				Prefix: f.pattern(p.prefix), Name: f.pattern(p.name), Tags: map[string]string{"all": ""}, ContentType: "text/0",
				Type: &text, Phases: []state.Phase{state.Open}, Until: hour(3),
			})
	}
	inOrder := slices.Clone(all)
	slices.SortFunc(inOrder, func(a, b *state.Stream) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return int(b.Seq - a.Seq)
	})
	late := f.addPrefix("local", "a/late")
	n := 0
	for i, q := range queries {
		q.Project, q.Limit = "local", 2
		var want []types.StreamPath
		for _, s := range inOrder {
			if q.Match(s) && !s.Created.Before(q.Since) && (q.Until.IsZero() || s.Created.Before(q.Until)) {
				want = append(want, s.Path())
			}
		}
		// What comes meanwhile is newer than the pages that are to come, and so changes none of them.
		got := f.pages(q, func() {
			if n++; n < 40 {
				add(late, types.StreamName(fmt.Sprint("s", n)), hour(100+n), &logpb.LogStreamDescriptor{})
			}
		})
		got = slices.DeleteFunc(got, func(p types.StreamPath) bool { prefix, _ := p.Split(); return prefix == "a/late" })
		if !slices.Equal(want, got) {
			t.Errorf("query %d, %+v (-want +got):\n%s", i, q, cmp.Diff(want, got))
		}
	}
}

// findAmongMany has more streams than a search looks at in a call.
func findAmongMany(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	var needles []types.StreamPath
	const total = 2*state.Window + 100
	for i := 0; i < total; {
		f.update(func(tx state.Tx) error {
			for end := min(i+1000, total); i < end; i++ {
				s := newStream(p, types.StreamName(fmt.Sprintf("stack/%d/hay", i)))
				tags := map[string]string{"color": "yellow"}
				if i%(state.Window*6/5) == 5 {
					s = newStream(p, types.StreamName(fmt.Sprintf("stack/%d/needle", i)))
					needles = append(needles, s.Path())
					tags["sharp"] = "yes"
				}
				var err error
				if s.Descriptor, err = proto.Marshal(&logpb.LogStreamDescriptor{Tags: tags}); err != nil {
					return err
				}
				s.Created = now.Add(time.Duration(i) * time.Second)
				if err := tx.AddStream(s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	slices.Reverse(needles)
	calls := 0
	count := func() { calls++ }
	f.equal(f.pages(state.StreamQuery{Project: "local", Name: f.pattern("**/needle"), Limit: 10}, count), needles)
	if calls != 2 {
		t.Errorf("a search without an index took %d more calls", calls)
	}
	// The rarer of two properties leads at once, whichever it is.
	calls = 0
	q := state.StreamQuery{Project: "local", Name: f.pattern("stack/**"), Tags: map[string]string{"color": "yellow", "sharp": ""}, Limit: 10}
	f.equal(f.pages(q, count), needles)
	if calls != 0 {
		t.Errorf("a search with an index took %d more calls", calls)
	}
}

// findLarge has descriptors that together are more than a search may hold.
func findLarge(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	value := strings.Repeat("v", state.ReadBytes/4)
	var all []types.StreamPath
	for i := range 11 {
		d := &logpb.LogStreamDescriptor{Tags: map[string]string{"all": value}}
		if i%5 == 0 {
			d.Tags["some"] = ""
		}
		s := newStream(p, types.StreamName(fmt.Sprint("s", i)))
		s.Created = now.Add(time.Duration(i) * time.Second)
		var err error
		if s.Descriptor, err = proto.Marshal(d); err != nil {
			t.Fatal(err)
		}
		f.update(func(tx state.Tx) error { return tx.AddStream(s) })
		all = append(all, s.Path())
	}
	slices.Reverse(all)
	only := f.pattern("a")
	for _, q := range []state.StreamQuery{{Limit: 100}, {Limit: 3}, {Limit: 100, Prefix: only}} {
		q.Project = "local"
		found, _, err := f.FindStreams(t.Context(), q)
		if want := min(q.Limit, 4); err != nil || len(found) != want {
			t.Errorf("%d streams on the first page of %d, want %d; %v", len(found), q.Limit, want, err)
		}
		f.equal(f.pages(q, func() {}), all)
	}
	// What is passed over is not held.
	some := []types.StreamPath{all[0], all[5], all[10]}
	f.equal(f.pages(state.StreamQuery{Project: "local", Prefix: only, Tags: map[string]string{"some": ""}, Limit: 100}, func() {}), some)
}
