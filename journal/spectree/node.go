// Package spectree writes specs of journals as a tree, in YAML, for people to read and edit.
//
//	name: acme/                # A directory ends with a slash, and so does not name a journal.
//	replication: 1
//	fragment:
//	  length: 67108864
//	  compression_codec: ZSTANDARD
//	  refresh_interval: 5m
//	children:
//	- name: acme/orders
//	  labels:
//	  - name: env
//	    value: prod
//	  revision: 12
//
// What a directory says applies to all below it that do not say otherwise; labels do so by name. Nothing but the journals
// themselves reaches a broker. Parse and Flatten go from text to specs, FromListing and Marshal the way back, and put what
// journals have in common into their directories.
//
// A key that is absent inherits; one that is there does not, even if its value is zero. Labels and children may stand in any order. A leaf
// without suspend says nothing about suspension.
//
// Everything is safe for concurrent use as long as nobody modifies a tree.
package spectree

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Node is a directory, or a journal. Its fields stand in the order in which they are written.
type Node struct {
	// Comment is for people.
	Comment string `yaml:"comment,omitempty"`
	// Delete makes Flatten delete the journal, or those below the directory.
	Delete *bool `yaml:"delete,omitempty"`
	// Name is empty, or ends with a slash, for a directory.
	Name          pb.Journal `yaml:"name,omitempty"`
	Replication   *int32     `yaml:"replication,omitempty"`
	Labels        []Label    `yaml:"labels,omitempty"`
	Fragment      Fragment   `yaml:"fragment,omitempty"`
	Flags         *Flag      `yaml:"flags,omitempty"`
	MaxAppendRate *int64     `yaml:"max_append_rate,omitempty"`
	Suspend       *Suspend   `yaml:"suspend,omitempty"`
	// Revision is the one that the journal must have for a change to apply: 0 if it must not exist, -1 if it does not matter.
	Revision int64   `yaml:"revision,omitempty"`
	Children []*Node `yaml:"children,omitempty"`

	line int // Where it begins in the text it was parsed from, or 0.
}

// Label is a name and a value.
type Label struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value,omitempty"`
}

// Fragment says how the fragments of a journal are kept.
type Fragment struct {
	Length              *int64             `yaml:"length,omitempty"`
	CompressionCodec    *Codec             `yaml:"compression_codec,omitempty"`
	Stores              []pb.FragmentStore `yaml:"stores,omitempty"`
	RefreshInterval     *Duration          `yaml:"refresh_interval,omitempty"`
	Retention           *Duration          `yaml:"retention,omitempty"`
	FlushInterval       *Duration          `yaml:"flush_interval,omitempty"`
	PathPostfixTemplate *string            `yaml:"path_postfix_template,omitempty"`
}

// IsZero makes an empty fragment be left out.
func (f Fragment) IsZero() bool {
	return f.Length == nil && f.CompressionCodec == nil && f.Stores == nil && f.RefreshInterval == nil &&
		f.Retention == nil && f.FlushInterval == nil && f.PathPostfixTemplate == nil
}

// Suspend is the suspension of a journal.
type Suspend struct {
	Level  Level `yaml:"level,omitempty"`
	Offset int64 `yaml:"offset,omitempty"`
}

func (n *Node) isDir() bool { return n.Name == "" || strings.HasSuffix(string(n.Name), "/") }

// set returns a pointer to v, or nil if v is zero.
func set[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// value returns what p points to, or zero.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// ofSpec returns the leaf of a journal.
func ofSpec(s *pb.JournalSpec, revision int64) *Node {
	f := s.GetFragment()
	n := &Node{
		Name:          pb.Journal(s.GetName()),
		Replication:   set(s.GetReplication()),
		Labels:        ofLabels(s.GetLabels()),
		Flags:         set(Flag(s.GetFlags())),
		MaxAppendRate: set(s.GetMaxAppendRate()),
		Revision:      revision,
		Fragment: Fragment{
			Length:              set(f.GetLength()),
			CompressionCodec:    set(Codec(f.GetCompressionCodec())),
			RefreshInterval:     set(Duration(f.GetRefreshInterval().AsDuration())),
			Retention:           set(Duration(f.GetRetention().AsDuration())),
			FlushInterval:       set(Duration(f.GetFlushInterval().AsDuration())),
			PathPostfixTemplate: set(f.GetPathPostfixTemplate()),
		},
	}
	for _, store := range f.GetStores() {
		n.Fragment.Stores = append(n.Fragment.Stores, pb.FragmentStore(store))
	}
	if u := s.GetSuspend(); u.GetLevel() != 0 || u.GetOffset() != 0 {
		n.Suspend = &Suspend{Level(u.GetLevel()), u.GetOffset()}
	}
	return n
}

func ofLabels(s *pb.LabelSet) (out []Label) {
	for _, l := range s.GetLabels() {
		out = append(out, Label{l.GetName(), l.GetValue()})
	}
	return out
}

// labelSet returns labels in their order.
func labelSet(labels []Label) *pb.LabelSet {
	labels = slices.Clone(labels)
	slices.SortFunc(labels, func(a, b Label) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
	out := new(pb.LabelSet)
	for _, l := range labels {
		out.Labels = append(out.Labels, &pb.Label{Name: l.Name, Value: l.Value})
	}
	return out
}

// spec returns the spec of a leaf that has inherited all it can.
func (n *Node) spec() *pb.JournalSpec {
	s := &pb.JournalSpec{
		Name:          string(n.Name),
		Replication:   value(n.Replication),
		Labels:        labelSet(n.Labels),
		Flags:         uint32(value(n.Flags)),
		MaxAppendRate: value(n.MaxAppendRate),
		Fragment: &pb.JournalSpec_Fragment{
			Length:              value(n.Fragment.Length),
			CompressionCodec:    pb.CompressionCodec(value(n.Fragment.CompressionCodec)),
			RefreshInterval:     duration(n.Fragment.RefreshInterval),
			Retention:           duration(n.Fragment.Retention),
			FlushInterval:       duration(n.Fragment.FlushInterval),
			PathPostfixTemplate: value(n.Fragment.PathPostfixTemplate),
		},
	}
	for _, store := range n.Fragment.Stores {
		s.Fragment.Stores = append(s.Fragment.Stores, string(store))
	}
	if n.Suspend != nil {
		s.Suspend = &pb.JournalSpec_Suspend{Level: pb.JournalSpec_Suspend_Level(n.Suspend.Level), Offset: n.Suspend.Offset}
	}
	return s
}

func duration(d *Duration) *durationpb.Duration {
	if value(d) == 0 {
		return nil
	}
	return durationpb.New(d.std())
}

// Validate returns an error unless the tree is one: directories have children, whose names begin with theirs, and no journal is
// there twice.
func (n *Node) Validate() error { return n.validate(make(map[pb.Journal]int)) }

// validate collects the lines of the journals.
func (n *Node) validate(lines map[pb.Journal]int) error {
	if !n.isDir() {
		if err := n.Name.Validate(); err != nil {
			return n.invalid("journal %s: %w", n.Name, err)
		}
		if len(n.Children) != 0 {
			return n.invalid("journal %s has children; the name of a directory ends with a slash", n.Name)
		}
		if line, ok := lines[n.Name]; ok {
			return n.invalid("journal %s is there twice, before on line %d", n.Name, line)
		}
		lines[n.Name] = n.line
		return nil
	}
	switch {
	case n.Revision != 0:
		return n.invalid("directory %q has a revision; only journals have", n.Name)
	case n.Suspend != nil:
		return n.invalid("directory %q has suspend; only journals have", n.Name)
	case len(n.Children) == 0:
		return n.invalid("directory %q has no children; the name of a journal does not end with a slash", n.Name)
	}
	for i, c := range n.Children {
		switch {
		case c == nil:
			return n.invalid("child %d of directory %q is empty", i+1, n.Name)
		case !strings.HasPrefix(string(c.Name), string(n.Name)):
			return c.invalid("%q is a child of directory %q, but its name does not begin with it", c.Name, n.Name)
		}
		if err := c.validate(lines); err != nil {
			return err
		}
	}
	return nil
}

// invalid returns an error about the node, which says on which line it is.
func (n *Node) invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "%s%w", lineOf(n.line), fmt.Errorf(format, args...))
}

// lineOf is what an error begins with that is about a line, if it is known.
func lineOf(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("line %d: ", line)
}
