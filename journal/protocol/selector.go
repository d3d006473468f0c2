package protocol

import (
	"regexp"
	"slices"
	"strings"
)

// Validate returns an error unless both sets are valid; they may use prefix.
func (x *LabelSelector) Validate() error {
	if err := x.GetInclude().validate((*Label).validate); err != nil {
		return at("Include", err)
	}
	return at("Exclude", x.GetExclude().validate((*Label).validate))
}

// Matches reports whether the selector selects the set: no excluded label matches, and of each included name at least one
// does. An empty selector selects everything.
func (x *LabelSelector) Matches(set *LabelSet) bool {
	for labels := x.GetExclude().GetLabels(); len(labels) != 0; {
		n := run(labels, labels[0].GetName())
		if anyMatches(labels[:n], set) {
			return false
		}
		labels = labels[n:]
	}
	for labels := x.GetInclude().GetLabels(); len(labels) != 0; {
		n := run(labels, labels[0].GetName())
		if !anyMatches(labels[:n], set) {
			return false
		}
		labels = labels[n:]
	}
	return true
}

// anyMatches reports whether any of the alternatives, which share a name, matches a label of the set.
func anyMatches(alternatives []*Label, set *LabelSet) bool {
	begin, end := set.span(alternatives[0].GetName())
	for _, l := range set.GetLabels()[begin:end] {
		for _, a := range alternatives {
			switch v := a.GetValue(); {
			case v == "",
				v == l.GetValue(),
				a.GetPrefix() && strings.HasPrefix(l.GetValue(), v):
				return true
			}
		}
	}
	return false
}

// The expressions of a selector's text, in the order in which they are tried. A name may carry ":prefix", and " ?" is the
// only white space there is.
var (
	selectorName  = ` ?([\pL\pN\-_+/.]{2,}(?::prefix)?)`
	selectorValue = ` ?([\pL\pN\-_+/.=%]*)`
	selectorEnd   = ` ?(?:,|$)`
	selectorSet   = ` ?\(([^)]+)\)`

	selectorEqual   = regexp.MustCompile(`^` + selectorName + ` ?==?` + selectorValue + selectorEnd)
	selectorUnequal = regexp.MustCompile(`^` + selectorName + ` ?!=` + selectorValue + selectorEnd)
	selectorIn      = regexp.MustCompile(`^` + selectorName + ` in` + selectorSet + selectorEnd)
	selectorNotIn   = regexp.MustCompile(`^` + selectorName + ` not ?in` + selectorSet + selectorEnd)
	selectorHas     = regexp.MustCompile(`^` + selectorName + selectorEnd)
	selectorHasNot  = regexp.MustCompile(`^ ?!` + selectorName + selectorEnd)
	selectorItem    = regexp.MustCompile(`^` + selectorValue + selectorEnd)
)

// ParseLabelSelector parses the text form of a selector, such as
//
//	topic in (clicks, views), name:prefix=acme/, env != qa, !deprecated
//
// and validates the result.
func ParseLabelSelector(text string) (*LabelSelector, error) {
	out := &LabelSelector{Include: new(LabelSet), Exclude: new(LabelSet)}
	for rest := text; rest != ""; {
		var m []string
		var err error
		match := func(re *regexp.Regexp) bool { m = re.FindStringSubmatch(rest); return m != nil }

		switch {
		case match(selectorEqual):
			addSelected(out.Include, m[1], m[2])
		case match(selectorUnequal):
			addSelected(out.Exclude, m[1], m[2])
		case match(selectorIn):
			err = addSelectedItems(out.Include, m[1], m[2])
		case match(selectorNotIn):
			err = addSelectedItems(out.Exclude, m[1], m[2])
		case match(selectorHas):
			addSelected(out.Include, m[1], "")
		case match(selectorHasNot):
			addSelected(out.Exclude, m[1], "")
		default:
			err = violation(SelectorSyntax, "selector cannot be parsed from %s on", quote(rest))
		}
		if err != nil {
			return nil, err
		}
		rest = rest[len(m[0]):]
	}
	for _, set := range []*LabelSet{out.Include, out.Exclude} {
		slices.SortStableFunc(set.Labels, compareLabels)
		set.Labels = slices.CompactFunc(set.Labels, equalLabels)
	}
	if err := out.Validate(); err != nil {
		return nil, err
	}
	return out, nil
}

// addSelected appends; the parser sorts once at the end, which keeps long selectors cheap.
func addSelected(set *LabelSet, name, value string) {
	name, prefix := strings.CutSuffix(name, ":prefix")
	set.Labels = append(set.Labels, &Label{Name: name, Value: value, Prefix: prefix})
}

func addSelectedItems(set *LabelSet, name, items string) error {
	for rest := items; rest != ""; {
		m := selectorItem.FindStringSubmatch(rest)
		if m == nil {
			return violation(SelectorSyntax, "set of %s cannot be parsed from %s on", quote(name), quote(rest))
		}
		addSelected(set, name, m[1])
		rest = rest[len(m[0]):]
	}
	return nil
}

// Canonical returns the one text form of the selector that all of its forms parse to. Parsing it yields an equal selector.
func (x *LabelSelector) Canonical() string {
	var b strings.Builder
	writeCanonical(&b, x.GetInclude(), "", "=", " in ")
	writeCanonical(&b, x.GetExclude(), "!", "!=", " notin ")
	return b.String()
}

func writeCanonical(b *strings.Builder, set *LabelSet, not, equal, in string) {
	groups := map[string][]string{}
	var names []string
	for _, l := range set.GetLabels() {
		name := l.GetName()
		if l.GetPrefix() {
			name += ":prefix"
		}
		if _, ok := groups[name]; !ok {
			names = append(names, name)
		}
		groups[name] = append(groups[name], l.GetValue())
	}
	slices.Sort(names)
	for _, name := range names {
		if b.Len() != 0 {
			b.WriteByte(',')
		}
		switch values := groups[name]; {
		case len(values) > 1, strings.HasPrefix(values[0], "="): // "n==v" would be read as "n=v".
			b.WriteString(name + in + "(" + strings.Join(values, ",") + ")")
		case values[0] == "":
			b.WriteString(not + name)
		default:
			b.WriteString(name + equal + values[0])
		}
	}
}
