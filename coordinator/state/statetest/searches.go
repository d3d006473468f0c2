package statetest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Large returns how many streams tests of the indexes have: a million if DAYBOOK_TEST_LARGE is set, else as many as fill a few pages of
// the indexes.
func Large() int {
	if os.Getenv("DAYBOOK_TEST_LARGE") != "" {
		return 1_000_000
	}
	return 3000
}

// streamsPerPrefix is how many streams of Fill share a prefix.
const streamsPerPrefix = 10

// Fill adds n streams as a CI system has them: builds of some builders, each with steps, of which a few are rare.
func Fill(ctx context.Context, store state.Store, n int) error {
	const group = 1000
	for from := 0; from < n; from += group {
		err := store.Update(ctx, func(tx state.Tx) error {
			var p *state.Prefix
			for i := from; i < min(from+group, n); i++ {
				created := now.Add(time.Duration(i) * time.Second)
				build := i / streamsPerPrefix
				if i%streamsPerPrefix == 0 {
					p = &state.Prefix{
						Project: "ci", Prefix: types.StreamName(fmt.Sprintf("builds/builder-%d/%d", build%50, build)), Realm: "@legacy",
						Secret: types.NewPrefixSecret(), Created: created, Expires: created.Add(time.Hour),
					}
					if err := tx.AddPrefix(p); err != nil {
						return err
					}
				}
				if err := addStep(tx, p, i, created); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func addStep(tx state.Tx, p *state.Prefix, i int, created time.Time) error {
	name := types.StreamName(fmt.Sprintf("steps/%d/stdout", i%streamsPerPrefix))
	d := &logpb.LogStreamDescriptor{
		Prefix: string(p.Prefix), ContentType: "text/plain; charset=utf-8",
		Tags: map[string]string{"build": fmt.Sprint(i / streamsPerPrefix), "branch": fmt.Sprint("b", i%7), "ci": "yes"},
	}
	switch i % 1000 {
	case 3:
		name = "core"
		d.StreamType, d.ContentType = logpb.StreamType_BINARY, "application/x-core"
	case 5:
		d.Tags["flaky"] = "yes"
	}
	d.Name = string(name)
	raw, err := proto.Marshal(d)
	if err != nil {
		return err
	}
	s := newStream(p, name)
	s.Descriptor, s.Created, s.Updated = raw, created, created
	if i%100 != 7 { // the others are open
		if _, err := s.Terminate(created, state.End{Known: true, Index: -1}, state.Note{}); err != nil {
			return err
		}
		if _, err := s.SetArchive(created, state.Archive{LastIndex: -1}, nil, ""); err != nil {
			return err
		}
	}
	return tx.AddStream(s)
}

// Search is a query that somebody makes.
type Search struct {
	Name  string
	Query state.StreamQuery
}

// Searches returns queries for what Fill added, of all kinds and selectivities.
func Searches() []Search {
	pattern := func(s string) state.Pattern {
		p, err := state.ParsePattern(s)
		if err != nil {
			panic(err)
		}
		return p
	}
	binary := logpb.StreamType_BINARY
	searches := []Search{
		{"newest", state.StreamQuery{}},
		{"prefix", state.StreamQuery{Prefix: pattern("builds/builder-7/57")}},
		{"folder", state.StreamQuery{Prefix: pattern("builds/builder-7/**")}},
		{"folder and step", state.StreamQuery{Prefix: pattern("builds/builder-7/*"), Name: pattern("steps/4/*")}},
		{"step anywhere", state.StreamQuery{Name: pattern("**/stdout")}},
		{"rare name", state.StreamQuery{Name: pattern("core")}},
		{"rare name by a star", state.StreamQuery{Name: pattern("cor*")}},
		{"no such name by a star", state.StreamQuery{Name: pattern("nothing*")}},
		{"tag of all", state.StreamQuery{Tags: map[string]string{"ci": ""}}},
		{"tag of one build", state.StreamQuery{Tags: map[string]string{"build": "42"}}},
		{"rare tag in a folder", state.StreamQuery{Prefix: pattern("builds/**"), Tags: map[string]string{"ci": "yes", "flaky": "yes"}}},
		{"tags that exclude each other", state.StreamQuery{Tags: map[string]string{"branch": "b0", "build": "42", "ci": "no"}}},
		{"common tags", state.StreamQuery{Tags: map[string]string{"branch": "b0", "ci": "yes"}, ContentType: "text/plain; charset=utf-8"}},
		{"type", state.StreamQuery{Type: &binary}},
		{"content type", state.StreamQuery{ContentType: "application/x-core"}},
		{"open", state.StreamQuery{Phases: []state.Phase{state.Open}}},
		{"open or terminated", state.StreamQuery{Phases: []state.Phase{state.Open, state.Terminated}}},
		{"an hour of a folder", state.StreamQuery{Prefix: pattern("builds/builder-7/**"), Since: now.Add(time.Hour), Until: now.Add(2 * time.Hour)}},
	}
	for i := range searches {
		searches[i].Query.Project, searches[i].Query.Limit = "ci", 50
	}
	return searches
}

// Explain calls fn for each path that a search may take.
func Explain(q state.StreamQuery, fn func(project types.Project, p state.Path, span state.Span, r state.Rest)) {
	for _, p := range q.Paths() {
		fn(q.Project, p, q.Span(), q.Rest(p))
	}
}

// MeasureSearches checks, with a million streams, how long a page takes, and logs it. With fewer streams there is nothing to see.
func MeasureSearches(t *testing.T, store state.Store, n int) {
	t.Helper()
	if n < 1_000_000 {
		return
	}
	const rounds = 50
	for _, search := range Searches() {
		q := search.Query
		var took []time.Duration
		for range rounds {
			start := time.Now()
			_, next, err := store.FindStreams(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(start))
			q.After = next // the beginning again, after the end
		}
		slices.Sort(took)
		t.Logf("%-30s p50 %8v  p99 %8v", search.Name, took[rounds/2].Round(time.Microsecond), took[rounds*99/100].Round(time.Microsecond))
	}
}
