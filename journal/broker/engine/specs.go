package engine

import (
	"slices"
	"strings"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// Spec is the spec of a journal, with the revisions of its creation and of its last change.
type Spec struct {
	*protocol.JournalSpec
	Created, Modified int64
}

// Specs are the specs of all journals at a revision, ascending by name. They are not to be modified.
type Specs struct {
	Revision int64
	All      []*Spec
}

// Get returns the spec of a journal, or nil.
func (s *Specs) Get(name protocol.Journal) *Spec {
	if i, ok := s.find(string(name)); ok {
		return s.All[i]
	}
	return nil
}

func (s *Specs) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.All, name, func(sp *Spec, name string) int { return strings.Compare(sp.GetName(), name) })
}

// Apply returns the specs after the changes, or ErrRevision. The specs themselves stay as they are. The result is s itself if
// nothing changes. It is for engines that keep all specs in memory.
func (s *Specs) Apply(changes []*protocol.ApplyRequest_Change) (*Specs, error) {
	next := &Specs{Revision: s.Revision + 1, All: slices.Clone(s.All)}
	changed := false
	for _, c := range changes {
		name := c.GetDelete()
		if u := c.GetUpsert(); u != nil {
			name = u.GetName()
		}
		i, ok := next.find(name)
		var modified int64
		if ok {
			modified = next.All[i].Modified
		}
		if expect := c.GetExpectModRevision(); expect != -1 && expect != modified {
			return nil, ErrRevision
		}
		switch {
		case c.GetUpsert() != nil && ok:
			next.All[i] = &Spec{JournalSpec: c.GetUpsert(), Created: next.All[i].Created, Modified: next.Revision}
		case c.GetUpsert() != nil:
			next.All = slices.Insert(next.All, i, &Spec{JournalSpec: c.GetUpsert(), Created: next.Revision, Modified: next.Revision})
		case ok:
			next.All = slices.Delete(next.All, i, i+1)
		default:
			continue // the journal to be deleted is gone already
		}
		changed = true
	}
	if !changed {
		return s, nil
	}
	return next, nil
}
