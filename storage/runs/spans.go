package runs

import (
	"cmp"
	"slices"

	"github.com/daybook-dev/daybook/logs/types"
)

// Spans is a set of indices. The zero value is empty. It may be copied when the original is no longer changed.
type Spans struct {
	all []Span // not empty, in order, with a gap between any two
}

// Add adds the indices of a span, and reports whether any was not there.
func (s *Spans) Add(x Span) bool {
	if x.First >= x.End {
		return false
	}
	// Those that x touches are from first up to and without end.
	first, _ := slices.BinarySearchFunc(s.all, x.First, func(a Span, first types.MessageIndex) int { return cmp.Compare(a.End, first) })
	end := first
	for end < len(s.all) && s.all[end].First <= x.End {
		end++
	}
	if first < end {
		if s.all[first].First <= x.First && x.End <= s.all[first].End {
			return false
		}
		x.First, x.End = min(x.First, s.all[first].First), max(x.End, s.all[end-1].End)
	}
	s.all = slices.Replace(s.all, first, end, x)
	return true
}

// Next returns the first index that is not in the set.
func (s *Spans) Next() types.MessageIndex {
	if len(s.all) == 0 || s.all[0].First > 0 {
		return 0
	}
	return s.all[0].End
}

// End returns the index behind the last one in the set, 0 if it is empty.
func (s *Spans) End() types.MessageIndex {
	if len(s.all) == 0 {
		return 0
	}
	return s.all[len(s.all)-1].End
}

// Gaps returns the indices below End that are not in the set.
func (s *Spans) Gaps() []Span {
	var gaps []Span
	next := types.MessageIndex(0)
	for _, x := range s.all {
		if x.First > next {
			gaps = append(gaps, Span{next, x.First})
		}
		next = x.End
	}
	return gaps
}
