package ingest

import (
	"strings"

	"github.com/daybook-dev/daybook/logs/types"
)

// topicPrefix makes names that clients of Pub/Sub accept: four parts, the last of them of 3 to 255 characters, beginning with a letter.
const topicPrefix = "projects/daybook/topics/ingest-"

// Topic returns the Pub/Sub topic of a project: what Butlers publish to that know no journals (spec coordinator 6.1).
func Topic(p types.Project) string { return topicPrefix + string(p) }

// ProjectOf returns the project whose topic this is, and whether it is one of a project at all.
func ProjectOf(topic string) (types.Project, bool) {
	name, found := strings.CutPrefix(topic, topicPrefix)
	p := types.Project(name)
	return p, found && p.Validate() == nil
}
