package spectree

import (
	"slices"
	"strings"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Leaf is what a tree says of one journal.
type Leaf struct {
	Spec     *pb.JournalSpec // Suspend is nil if the tree says nothing about it.
	Revision int64
	Delete   bool
	Line     int // Of the text that was parsed, or 0.
}

// Change returns the change that makes the journal what the tree says.
func (l Leaf) Change() *pb.ApplyRequest_Change {
	if l.Delete {
		return &pb.ApplyRequest_Change{Delete: l.Spec.GetName(), ExpectModRevision: l.Revision}
	}
	return &pb.ApplyRequest_Change{Upsert: l.Spec, ExpectModRevision: l.Revision}
}

// Flatten returns the journals of the tree, in its order, each with what it inherits.
func (n *Node) Flatten() []Leaf { return n.flatten(new(Node), nil) }

func (n *Node) flatten(parent *Node, out []Leaf) []Leaf {
	merged := inherit(n, parent)
	if !n.isDir() {
		return append(out, Leaf{Spec: merged.spec(), Revision: n.Revision, Delete: value(merged.Delete), Line: n.line})
	}
	for _, c := range n.Children {
		out = c.flatten(merged, out)
	}
	return out
}

// inherit returns a copy of the node with what it does not say taken from its parent.
func inherit(n, parent *Node) *Node {
	m := *n
	m.Delete = either(n.Delete, parent.Delete)
	m.Replication = either(n.Replication, parent.Replication)
	m.Flags = either(n.Flags, parent.Flags)
	m.MaxAppendRate = either(n.MaxAppendRate, parent.MaxAppendRate)
	m.Labels = ofLabels(pb.UnionLabelSets(labelSet(n.Labels), labelSet(parent.Labels)))
	f, p := &m.Fragment, &parent.Fragment
	f.Length = either(f.Length, p.Length)
	f.CompressionCodec = either(f.CompressionCodec, p.CompressionCodec)
	f.RefreshInterval = either(f.RefreshInterval, p.RefreshInterval)
	f.Retention = either(f.Retention, p.Retention)
	f.FlushInterval = either(f.FlushInterval, p.FlushInterval)
	f.PathPostfixTemplate = either(f.PathPostfixTemplate, p.PathPostfixTemplate)
	if f.Stores == nil {
		f.Stores = p.Stores
	}
	return &m
}

func either[T any](own, inherited *T) *T {
	if own != nil {
		return own
	}
	return inherited
}

// FromListing returns the tree of the journals, with what they have in common in their directories. No journals make an empty
// node, which is no valid tree.
func FromListing(journals []*pb.ListResponse_Journal) *Node {
	leaves := make([]*Node, len(journals))
	for i, j := range journals {
		leaves[i] = ofSpec(j.GetSpec(), j.GetModRevision())
	}
	slices.SortFunc(leaves, func(a, b *Node) int { return strings.Compare(string(a.Name), string(b.Name)) })
	switch len(leaves) {
	case 0:
		return new(Node)
	case 1:
		return leaves[0]
	}
	root := group(leaves)
	root.hoist()
	return root
}

// group returns the directory of two or more leaves: the deepest one that has them all.
func group(leaves []*Node) *Node {
	dir := commonDir(leaves[0].Name, leaves[len(leaves)-1].Name)
	n := &Node{Name: dir}
	for len(leaves) != 0 {
		// Those that share the next element stand next to each other.
		run := 1
		if i := strings.IndexByte(string(leaves[0].Name[len(dir):]), '/'); i >= 0 {
			prefix := string(leaves[0].Name[:len(dir)+i+1])
			for run < len(leaves) && strings.HasPrefix(string(leaves[run].Name), prefix) {
				run++
			}
		}
		child := leaves[0]
		if run > 1 {
			child = group(leaves[:run])
		}
		n.Children = append(n.Children, child)
		leaves = leaves[run:]
	}
	return n
}

// commonDir returns the longest directory that both names are below of.
func commonDir(a, b pb.Journal) pb.Journal {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return a[:strings.LastIndexByte(string(a[:i]), '/')+1]
}

// hoist moves what all children say alike up, beginning with the deepest ones.
func (n *Node) hoist() {
	if len(n.Children) == 0 {
		return
	}
	for _, c := range n.Children {
		c.hoist()
	}
	hoist(n, func(c *Node) **int32 { return &c.Replication })
	hoist(n, func(c *Node) **Flag { return &c.Flags })
	hoist(n, func(c *Node) **int64 { return &c.MaxAppendRate })
	hoist(n, func(c *Node) **int64 { return &c.Fragment.Length })
	hoist(n, func(c *Node) **Codec { return &c.Fragment.CompressionCodec })
	hoist(n, func(c *Node) **Duration { return &c.Fragment.RefreshInterval })
	hoist(n, func(c *Node) **Duration { return &c.Fragment.Retention })
	hoist(n, func(c *Node) **Duration { return &c.Fragment.FlushInterval })
	hoist(n, func(c *Node) **string { return &c.Fragment.PathPostfixTemplate })
	n.hoistStores()
	n.hoistLabels()
}

func hoist[T comparable](n *Node, field func(*Node) **T) {
	first := *field(n.Children[0])
	for _, c := range n.Children {
		if p := *field(c); first == nil || p == nil || *p != *first {
			return
		}
	}
	*field(n) = first
	for _, c := range n.Children {
		*field(c) = nil
	}
}

func (n *Node) hoistStores() {
	stores := n.Children[0].Fragment.Stores
	for _, c := range n.Children {
		if len(stores) == 0 || !slices.Equal(c.Fragment.Stores, stores) {
			return
		}
	}
	n.Fragment.Stores = stores
	for _, c := range n.Children {
		c.Fragment.Stores = nil
	}
}

func (n *Node) hoistLabels() {
	common := labelSet(n.Children[0].Labels)
	for _, c := range n.Children[1:] {
		common = pb.IntersectLabelSets(common, labelSet(c.Labels))
	}
	n.Labels = ofLabels(common)
	for _, c := range n.Children {
		c.Labels = ofLabels(pb.SubtractLabelSets(labelSet(c.Labels), common))
	}
}
