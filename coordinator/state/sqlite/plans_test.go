package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/logs/types"
)

// What is looked up often is looked up by an index.
func TestPlans(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer func() { _ = s.Close() }()
	large := statetest.Large()
	if err := statetest.Fill(t.Context(), s, large); err != nil {
		t.Fatal(err)
	}
	queries := []string{
		fromPrefixes + `p.project = 'a' AND p.prefix = 'b'`,
		oldestOfPrefix, oldestOfProject, emptyPrefixes, deletedPrefixes, allTasks, deadTasks, listFolders,
		openStreams, recentPrefixes, archivedSince,
		fromStreams + `s.project = 'a' AND s.id = 'b'`,
		fromTasks + `t.stream = 1 AND t.kind = 2`,
		fromTasks + `t.dead IS NULL AND t.available <= 5 ORDER BY t.available LIMIT 5`,
		`SELECT min(available) FROM tasks WHERE dead IS NULL`,
	}
	for _, query := range queries {
		checkPlan(t, s, query, make([]any, strings.Count(query, "?"))...)
	}
	pattern, err := state.ParsePattern("a/*")
	if err != nil {
		t.Fatal(err)
	}
	text, args := findPrefixes(state.PrefixQuery{Project: "ci", Prefix: pattern, Limit: 10})
	checkPlan(t, s, text, args...)
	for _, search := range statetest.Searches() {
		statetest.Explain(search.Query, func(project types.Project, p state.Path, span state.Span, r state.Rest) {
			text, args := edge(project, p, span, state.Window)
			checkPlan(t, s, text, args...)
			text, args = read(project, p, span, r, search.Query.Limit)
			checkPlan(t, s, text, args...)
		})
	}
	statetest.MeasureSearches(t, s, large)
}

func checkPlan(t *testing.T, s *Store, query string, args ...any) {
	t.Helper()
	rows, err := s.read.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		// A subquery that is scanned has been found by an index.
		if strings.HasPrefix(detail, "SCAN") && !strings.HasPrefix(detail, "SCAN (subquery") || strings.Contains(detail, "TEMP B-TREE") {
			t.Errorf("%s: %s", query, detail)
		}
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
}
