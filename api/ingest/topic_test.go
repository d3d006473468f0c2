package ingest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/logs/types"
)

func TestTopic(t *testing.T) {
	// What Butlers demand of a topic (spec coordinator 6.1).
	demanded := regexp.MustCompile(`^projects/[^/]+/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254}$`)
	for _, p := range []types.Project{"p", "local", "a-b_c0", types.Project(strings.Repeat("x", types.MaxProjectLength))} {
		topic := Topic(p)
		if !demanded.MatchString(topic) || strings.Contains(topic, "topics/goog") {
			t.Errorf("%s: topic %s", p, topic)
		}
		if got, ok := ProjectOf(topic); got != p || !ok {
			t.Errorf("%s: %s, %v", topic, got, ok)
		}
	}
	for _, topic := range []string{"", "ingest-p", "projects/daybook/topics/ingest-", "projects/daybook/topics/ingest-P", "projects/daybook/topics/ingest-a/b", "projects/x/topics/ingest-p"} {
		if p, ok := ProjectOf(topic); ok {
			t.Errorf("%q is a topic of %s", topic, p)
		}
	}
}
