package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
)

// Every query goes by the index that is made for it, in its order, however many rows there are.
func TestPlans(t *testing.T) {
	s := openStore(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	check := func(index, text string, args ...any) {
		t.Helper()
		plan := explain(t, s, text, args...)
		for _, bad := range []string{"Seq Scan", "Sort", "Bitmap", "Hash", "Merge", "Materialize", "Filter: (project =", "Filter: (label =", "Filter: (created"} {
			if strings.Contains(plan, bad) {
				t.Errorf("%s\n%s", text, plan)
				break
			}
		}
		if !strings.Contains(plan, " "+index+" ") {
			t.Errorf("not by %s: %s\n%s", index, text, plan)
		}
	}
	large := statetest.Large()
	exec := func(text string) {
		if _, err := s.pool.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	// While the tables are empty, filled without statistics, and with them.
	for _, before := range []func(){
		func() {},
		func() {
			if err := statetest.Fill(t.Context(), s, large); err != nil {
				t.Fatal(err)
			}
		},
		func() { exec("ANALYZE") },
	} {
		before()
		check("prefixes_name", fromPrefixes+thatPrefix, "ci", "a")
		check("streams_id_project_key", fromStreams+thatStream+locked+"s", "ci", "a")
		check("streams_id_project_key", versions, []string{"a", "b"})
		check("tasks_available", nextTask)
		check("tasks_available", availableTasks, 1, 2)
		check("tasks_stream_kind_key", fromTasks+`t.stream = $1 AND t.kind = $2`+locked+`t`, 1, 2)
		check("tasks_leased", pendingTasks, 1)
		check("prefixes_newest", allProjects)
		pattern, err := state.ParsePattern("a/*")
		if err != nil {
			t.Fatal(err)
		}
		text, args := findPrefixes(state.PrefixQuery{Project: "ci", Prefix: pattern, Limit: 10})
		check("prefixes_newest", text, args...)
		check("streams_prefix", oldestOfPrefix, 1, 2, 3, false, 4)
		check("streams_newest", oldestOfProject, "ci", 2, 3, 4, 5)
		check("prefixes_newest", emptyPrefixes, "ci", 2, 3, 4, 5)
		check("prefixes_deleted", deletedPrefixes, 5)
		check("tasks_pkey", allTasks, 1, 2)
		check("tasks_dead", deadTasks, 1, 2)
		check("folders_pkey", listFolders, 1, "ci", "a/", 4, "b", 5)
		check("streams_phase", openStreams, "ci", 0, 100)
		check("prefixes_newest", recentPrefixes, "ci", 1, 100)
		check("streams_archived", archivedSince, "ci", 1)
		check("usage_pkey", readUsage, "ci")
		check("leases_pkey", liveLeases, "a")
		check("tokens_hash_key", tokenByHash, "")
		check("tokens_created", listTokens)
		for _, search := range statetest.Searches() {
			statetest.Explain(search.Query, func(project types.Project, p state.Path, span state.Span, r state.Rest) {
				index := "streams_newest"
				switch {
				case p.Label != nil:
					index = "labels_pkey"
				case p.Prefix != nil:
					index = "streams_prefix"
				case p.Phase != nil:
					index = "streams_phase"
				}
				text, args := edge(project, p, span, state.Window)
				check(index, text, args...)
				text, args = read(project, p, span, r, search.Query.Limit)
				check(index, text, args...)
			})
		}
	}
	statetest.MeasureSearches(t, s, large)
}

// explain returns the plan that the store's sessions use for a prepared statement.
func explain(t *testing.T, s *Store, text string, args ...any) string {
	t.Helper()
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	literals := make([]string, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			literals[i] = "'" + strings.ReplaceAll(arg, "'", "''") + "'"
		case []string:
			literals[i] = "'{" + strings.Join(arg, ",") + "}'"
		case []state.Phase:
			literals[i] = strings.NewReplacer("[", "'{", "]", "}'", " ", ",").Replace(fmt.Sprintf("%d", arg))
		default:
			literals[i] = fmt.Sprint(arg)
		}
	}
	values := ""
	if len(literals) > 0 {
		values = "(" + strings.Join(literals, ", ") + ")"
	}
	if _, err := conn.Exec(t.Context(), "PREPARE that AS "+text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(t.Context()), "DEALLOCATE that") }()
	rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE that"+values, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s %s: %v", text, values, err)
	}
	return strings.Join(lines, "\n")
}
