package state

import (
	"regexp"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Pattern matches names and prefixes (spec coordinator 7.5). A star matches one or more characters of a segment. Two stars that are
// a whole segment match any run of segments, none included, and the slash beside them collapses. Two stars within a
// segment match any characters, slashes included. The zero Pattern matches everything.
type Pattern struct {
	text string
	re   *regexp.Regexp
}

// maxStars is the most stars of a pattern: each makes a comparison take longer, as long as the name is.
const maxStars = 100

// ParsePattern returns the pattern; the empty one matches everything.
func ParsePattern(s string) (Pattern, error) {
	if s == "" || s == "**" {
		return Pattern{}, nil
	}
	if err := types.StreamName(strings.ReplaceAll(s, "*", "x")).Validate(); err != nil {
		return Pattern{}, fault.New(fault.Invalid, "pattern: %w", err)
	}
	p := Pattern{text: s}
	switch stars := strings.Count(s, "*"); {
	case stars == 0:
		return p, nil
	case stars > maxStars:
		return Pattern{}, fault.New(fault.Invalid, "pattern has %d stars; at most %d are allowed", stars, maxStars)
	}
	re, err := regexp.Compile(expression(s))
	if err != nil {
		return Pattern{}, fault.New(fault.Invalid, "pattern is too complex")
	}
	p.re = re
	return p, nil
}

// Match reports whether the pattern matches the whole name.
func (p Pattern) Match(name types.StreamName) bool {
	switch {
	case p.text == "":
		return true
	case p.re == nil:
		return string(name) == p.text
	}
	return p.re.MatchString(string(name))
}

// Literal returns the one name that the pattern matches, if it has no star.
func (p Pattern) Literal() (types.StreamName, bool) {
	return types.StreamName(p.text), p.text != "" && p.re == nil
}

// Coarse returns a simpler pattern that matches at least the same names, for databases: each star matches any characters, slashes
// and none included.
func (p Pattern) Coarse() string {
	if p.text == "" {
		return "*"
	}
	s := strings.NewReplacer("/**/", "*", "/**", "*", "**/", "*").Replace(p.text)
	for strings.Contains(s, "**") {
		s = strings.ReplaceAll(s, "**", "*")
	}
	return s
}

// expression translates a pattern with stars.
func expression(s string) string {
	var segments []string
	for seg := range strings.SplitSeq(s, "/") {
		if n := len(segments); seg == "**" && n > 0 && segments[n-1] == "**" {
			continue
		}
		segments = append(segments, seg)
	}
	var b strings.Builder
	b.WriteString(`^`)
	slash := "" // what separates the next segment from what is there already
	for i, seg := range segments {
		if seg != "**" {
			b.WriteString(slash)
			seg = regexp.QuoteMeta(seg)
			seg = strings.ReplaceAll(seg, `\*\*`, `.*`)
			b.WriteString(strings.ReplaceAll(seg, `\*`, `[^/]+`))
			slash = "/"
			continue
		}
		switch last := i == len(segments)-1; {
		case last && i == 0:
			b.WriteString(`.*`)
		case last:
			b.WriteString(`(?:/.*)?`)
		default:
			b.WriteString(slash + `(?:.*/)?`)
			slash = ""
		}
	}
	b.WriteString(`$`)
	return b.String()
}
