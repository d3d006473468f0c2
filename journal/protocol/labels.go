package protocol

import (
	"cmp"
	"slices"
	"sort"
)

// Well-known labels.
const (
	LabelContentType    = "content-type"
	LabelMessageType    = "app.gazette.dev/message-type"
	LabelMessageSubType = "app.gazette.dev/message-subtype"
	LabelManagedBy      = "app.gazette.dev/managed-by"
	LabelInstance       = "app.gazette.dev/instance"
	LabelRegion         = "app.gazette.dev/region"
	LabelTag            = "app.gazette.dev/tag"

	// LabelName is synthesized from the journal's name when journals are selected; no spec may carry it.
	LabelName = "name"
	// LabelPrefix selects by prefix of the name in List requests only; no spec may carry it.
	LabelPrefix = "prefix"
)

// MustLabelSet returns the set of the given names and values, which alternate. It panics if their number is odd or if the
// result is not valid.
func MustLabelSet(namesAndValues ...string) *LabelSet {
	if len(namesAndValues)%2 != 0 {
		panic("protocol.MustLabelSet: a name without a value")
	}
	s := new(LabelSet)
	for i := 0; i < len(namesAndValues); i += 2 {
		s.AddValue(namesAndValues[i], namesAndValues[i+1])
	}
	if err := s.Validate(); err != nil {
		panic(err)
	}
	return s
}

// Validate returns an error unless the label may stand in a set outside of a selector.
func (x *Label) Validate() error {
	if err := x.validate(); err != nil {
		return err
	}
	if x.GetPrefix() {
		return violation(PrefixOutside, "prefix is allowed in selectors only")
	}
	return nil
}

func (x *Label) validate() error {
	if err := validateToken(x.GetName(), 2, 64); err != nil {
		return at("Name", err)
	}
	return at("Value", validatePathToken(x.GetValue(), 0, 1024))
}

// Validate returns an error unless the labels are valid, outside of a selector, and strictly ascending.
func (x *LabelSet) Validate() error { return x.validate((*Label).Validate) }

func (x *LabelSet) validate(label func(*Label) error) error {
	for i, l := range x.GetLabels() {
		if err := label(l); err != nil {
			return at("Labels", index(i, err))
		}
		if i == 0 {
			continue
		}
		last := x.Labels[i-1]
		if compareLabels(last, l) >= 0 {
			return violation(Unsorted, "labels must be ascending and without repeats, but %s=%s follows %s=%s",
				l.GetName(), quote(l.GetValue()), last.GetName(), quote(last.GetValue()))
		}
		if last.GetName() == l.GetName() && last.GetValue() == "" {
			return violation(EmptyAndNonEmpty, "label %s has an empty and a non-empty value", l.GetName())
		}
	}
	return nil
}

// compareLabels orders by name and value. It ignores prefix.
func compareLabels(a, b *Label) int {
	return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetValue(), b.GetValue()))
}

// span returns the half-open range of the labels called name.
func (x *LabelSet) span(name string) (begin, end int) {
	labels := x.GetLabels()
	begin = sort.Search(len(labels), func(i int) bool { return labels[i].GetName() >= name })
	for end = begin; end < len(labels) && labels[end].GetName() == name; end++ {
	}
	return begin, end
}

// ValuesOf returns the values of the label, ascending; none if the set does not have it.
func (x *LabelSet) ValuesOf(name string) []string {
	begin, end := x.span(name)
	var out []string
	for _, l := range x.GetLabels()[begin:end] {
		out = append(out, l.GetValue())
	}
	return out
}

// ValueOf returns the first value of the label, or an empty string.
func (x *LabelSet) ValueOf(name string) string {
	if begin, end := x.span(name); begin != end {
		return x.Labels[begin].GetValue()
	}
	return ""
}

// AddValue adds a value to those of the label, unless it is there already.
func (x *LabelSet) AddValue(name, value string) { x.add(&Label{Name: name, Value: value}) }

func (x *LabelSet) add(l *Label) {
	i, found := slices.BinarySearchFunc(x.Labels, l, compareLabels)
	for j := i; j < len(x.Labels) && compareLabels(x.Labels[j], l) == 0; j++ {
		if x.Labels[j].GetPrefix() == l.GetPrefix() {
			return
		}
	}
	if found {
		i++ // The same name and value with another prefix flag: kept, for validation to refuse.
	}
	x.Labels = slices.Insert(x.Labels, i, l)
}

// SetValue makes value the only value of the label.
func (x *LabelSet) SetValue(name, value string) {
	begin, end := x.span(name)
	x.Labels = slices.Replace(x.Labels, begin, end, &Label{Name: name, Value: value})
}

// Remove removes all values of the label.
func (x *LabelSet) Remove(name string) {
	begin, end := x.span(name)
	x.Labels = slices.Delete(x.Labels, begin, end)
}

// Equal reports whether both sets have the same labels.
func (x *LabelSet) Equal(other *LabelSet) bool {
	return slices.EqualFunc(x.GetLabels(), other.GetLabels(), equalLabels)
}

func equalLabels(a, b *Label) bool {
	return a.GetName() == b.GetName() && a.GetValue() == b.GetValue() && a.GetPrefix() == b.GetPrefix()
}

// UnionLabelSets returns the labels of every name of either set; where both have a name, its values are those of left.
func UnionLabelSets(left, right *LabelSet) *LabelSet {
	return mergeLabelSets(left, right, func(l, r []*Label) []*Label {
		if len(l) != 0 {
			return l
		}
		return r
	})
}

// IntersectLabelSets returns the labels of those names whose values are identical in both sets.
func IntersectLabelSets(left, right *LabelSet) *LabelSet {
	return mergeLabelSets(left, right, func(l, r []*Label) []*Label {
		if slices.EqualFunc(l, r, equalLabels) {
			return l
		}
		return nil
	})
}

// SubtractLabelSets returns left without those names whose values are identical in right. A name with other values in right
// stays as it is.
func SubtractLabelSets(left, right *LabelSet) *LabelSet {
	return mergeLabelSets(left, right, func(l, r []*Label) []*Label {
		if slices.EqualFunc(l, r, equalLabels) {
			return nil
		}
		return l
	})
}

// mergeLabelSets walks both sets name by name. Labels are shared with the arguments.
func mergeLabelSets(left, right *LabelSet, pick func(l, r []*Label) []*Label) *LabelSet {
	l, r, out := left.GetLabels(), right.GetLabels(), new(LabelSet)
	for len(l) != 0 || len(r) != 0 {
		var name string
		switch {
		case len(r) == 0 || len(l) != 0 && l[0].GetName() < r[0].GetName():
			name = l[0].GetName()
		default:
			name = r[0].GetName()
		}
		ln, rn := run(l, name), run(r, name)
		out.Labels = append(out.Labels, pick(l[:ln], r[:rn])...)
		l, r = l[ln:], r[rn:]
	}
	return out
}

// run returns how many labels at the beginning are called name.
func run(labels []*Label, name string) int {
	n := 0
	for n < len(labels) && labels[n].GetName() == name {
		n++
	}
	return n
}
