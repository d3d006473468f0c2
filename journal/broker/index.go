package broker

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// gapAge is how old a fragment behind a gap must be before readers jump over the gap, if nobody can tell why there is one:
// what is missing may be on its way into the store.
const gapAge = 6 * time.Hour

// indexed is a fragment of an index. It has a store unless the engine holds its content.
type indexed struct {
	engine.StoredFragment
	// known says that the engine has a record of the fragment, and so of why something is missing before it.
	known bool
}

func (f *indexed) local() bool { return f.Store == "" }

// message returns the fragment as clients see it.
func (f *indexed) message(journal protocol.Journal) *protocol.Fragment {
	m := fragmentOf(journal, f.Fragment)
	m.BackingStore, m.PathPostfix, m.ModTime = string(f.Store), f.Postfix, f.Modified
	return m
}

// indexedOf returns a fragment that a store lists.
func indexedOf(m *protocol.Fragment) indexed {
	return indexed{StoredFragment: engine.StoredFragment{
		Fragment: engine.Fragment{
			Begin: protocol.Offset(m.GetBegin()), End: protocol.Offset(m.GetEnd()),
			Sum: m.GetSum().ToDigest(), Codec: m.GetCompressionCodec(), Postfix: m.GetPathPostfix(),
		},
		Store: protocol.FragmentStore(m.GetBackingStore()), Modified: m.GetModTime(),
	}}
}

// coverSet is a set of fragments of which none lies inside another, ascending by both begin and end (spec broker 7.2).
type coverSet []indexed

// add adds a fragment in place of those that lie inside it, unless it lies inside another. The fragment replaces one that
// spans the same.
func (s coverSet) add(f indexed) (_ coverSet, added bool) {
	if f.Len() <= 0 {
		return s, false
	}
	// Those that begin at or after f, and those of them that end at or before its end.
	i := sort.Search(len(s), func(i int) bool { return s[i].Begin >= f.Begin })
	k := i + sort.Search(len(s)-i, func(k int) bool { return s[i+k].End > f.End })
	if i > 0 && s[i-1].End >= f.End || k == i && k < len(s) && s[k].Begin == f.Begin {
		return s, false
	}
	if i == len(s) {
		return append(s, f), true
	}
	return slices.Replace(s, i, k, f), true
}

// lookup returns the index of the fragment that covers an offset and reaches furthest, or else of the first one beyond.
func (s coverSet) lookup(o protocol.Offset) (i int, covered bool) {
	// Among the covering ones the last begins last, and so ends last.
	i = sort.Search(len(s), func(i int) bool { return s[i].Begin > o })
	if i > 0 && s[i-1].End > o {
		return i - 1, true
	}
	return i, false
}

// view is the index of a journal at one time: what the engine knows, and what stores have besides.
type view struct {
	state engine.State
	// listed has the fragments in stores that the engine has no record of.
	listed coverSet
	// missing are the first offsets of fragments that the engine knows to be stored and that the store has no more.
	missing map[protocol.Offset]bool
}

// newView leaves out of the listing what has been dropped and not yet removed.
func newView(state engine.State, on *shelved) view {
	v := view{state: state}
	if on != nil {
		v.listed, v.missing = on.listed, on.missing
		v.listed = v.listed[sort.Search(len(v.listed), func(i int) bool { return v.listed[i].End > state.Trimmed }):]
	}
	return v
}

// end returns the journal's write head as readers see it.
func (v *view) end() protocol.Offset {
	if n := len(v.listed); n != 0 {
		return max(v.state.Head, v.listed[n-1].End)
	}
	return v.state.Head
}

// begin returns the lowest offset of content, or the end if there is none.
func (v *view) begin() protocol.Offset {
	if f, ok := v.find(0); ok {
		return f.Begin
	}
	return v.end()
}

// find returns the fragment that covers an offset and reaches furthest, or else the first one beyond, if there is any.
func (v *view) find(o protocol.Offset) (best indexed, ok bool) {
	consider := func(f indexed) {
		switch covers := f.Begin <= o; {
		case !ok, covers && (best.Begin > o || f.End > best.End), !covers && f.Begin < best.Begin:
			best, ok = f, true
		}
	}
	if f := v.state.Open; f.End > o && f.Len() > 0 {
		consider(localOf(f))
	}
	finished := v.state.Finished
	if i := sort.Search(len(finished), func(i int) bool { return finished[i].End > o }); i < len(finished) {
		consider(localOf(finished[i]))
	}
	stored := v.state.Stored
	for i := sort.Search(len(stored), func(i int) bool { return stored[i].End > o }); i < len(stored); i++ {
		if !v.missing[stored[i].Begin] {
			consider(indexed{StoredFragment: stored[i], known: true})
			break
		}
	}
	if i, _ := v.listed.lookup(o); i < len(v.listed) {
		consider(v.listed[i])
	}
	return best, ok
}

func localOf(f engine.Fragment) indexed {
	return indexed{StoredFragment: engine.StoredFragment{Fragment: f}, known: true}
}

// query returns the fragment to be read at an offset, and the offset from which on (spec protocol 10.6.2). Fragments that were
// stored before beginMod are left out.
func (v *view) query(o protocol.Offset, beginMod int64, now time.Time) (at protocol.Offset, f indexed, ok bool) {
	for {
		f, ok = v.find(o)
		if ok && f.Begin > o {
			if !v.jumps(&f, now) {
				return o, f, false
			}
			o = f.Begin
		}
		if !ok || f.local() || f.Modified >= beginMod {
			return o, f, ok
		}
		o = f.End
	}
}

// jumps reports whether a reader may jump over what is missing before a fragment.
func (v *view) jumps(f *indexed, now time.Time) bool {
	switch {
	case f.known:
		return true
	case f.local():
		return false
	}
	return f.Modified < now.Add(-gapAge).Unix() || f.Begin == v.begin()
}

// all returns all fragments.
func (v *view) all() coverSet {
	known := make([]indexed, 0, len(v.state.Stored)+len(v.state.Finished)+len(v.listed)+1)
	for _, f := range v.state.Stored {
		if !v.missing[f.Begin] {
			known = append(known, indexed{StoredFragment: f, known: true})
		}
	}
	for _, f := range v.state.Finished {
		known = append(known, localOf(f))
	}
	known = append(append(known, localOf(v.state.Open)), v.listed...)
	// Those that are known come last among equals, and so replace the others.
	slices.SortStableFunc(known, func(x, y indexed) int {
		if c := cmp.Or(cmp.Compare(x.Begin, y.Begin), cmp.Compare(x.End, y.End)); c != 0 || x.known == y.known {
			return c
		} else if x.known {
			return 1
		}
		return -1
	})
	out := make(coverSet, 0, len(known))
	for _, f := range known {
		out, _ = out.add(f)
	}
	return out
}

// page returns the fragments of a page that a request selects, and where the next page begins (spec protocol 10.7).
func (s coverSet) page(req *protocol.FragmentsRequest) (page []indexed, next protocol.Offset) {
	from := sort.Search(len(s), func(i int) bool { return s[i].Begin >= protocol.Offset(req.GetNextPageToken()) })
	limit := int(cmp.Or(req.GetPageLimit(), defaultPage))
	for _, f := range s[from:] {
		if len(page) == limit {
			return page, f.Begin
		}
		late := req.GetEndModTime() != 0 && (f.local() || f.Modified > req.GetEndModTime())
		if early := !f.local() && f.Modified < req.GetBeginModTime(); !early && !late {
			page = append(page, f)
		}
	}
	return page, 0
}
