package ingest

import (
	"fmt"
	"testing"

	"github.com/daybook-dev/daybook/logs/types"
)

func TestChoose(t *testing.T) {
	if got := Choose(nil, "p", "a"); got != DefaultJournal {
		t.Errorf("without journals: %s", got)
	}
	if got := Choose([]string{"x"}, "p", "a"); got != "x" {
		t.Errorf("of one journal: %s", got)
	}
	const prefixes = 8000
	seven := []string{"daybook/ingest/000", "daybook/ingest/001", "daybook/ingest/002", "daybook/ingest/003", "daybook/ingest/004", "daybook/ingest/005", "daybook/ingest/006"}
	eight := append([]string{"daybook/ingest/007"}, seven...) // in any order
	counts := make(map[string]int)
	for i := range prefixes {
		prefix := types.StreamName(fmt.Sprintf("t/%d", i))
		before, after := Choose(seven, "p", prefix), Choose(eight, "p", prefix)
		counts[after]++
		if after != before && after != "daybook/ingest/007" {
			t.Fatalf("%s moved from %s to %s", prefix, before, after)
		}
	}
	for _, j := range eight {
		if n := counts[j]; n < prefixes/8*8/10 || n > prefixes/8*12/10 {
			t.Errorf("%s has %d of %d prefixes", j, n, prefixes)
		}
	}
}
