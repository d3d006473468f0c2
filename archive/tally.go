package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// tally counts what passes into or out of an archive. The writer and the verifier keep one each, and compare.
type tally struct {
	sum hash.Hash // of the uncompressed entries file

	entries     uint64
	lastPrefix  uint64
	lastStream  uint64
	lastSeq     uint64
	contentSize uint64
	lines       uint64
	openLine    bool // the last line has no delimiter yet
}

func newTally() *tally { return &tally{sum: sha256.New()} }

func (t *tally) frame(header, payload []byte) {
	t.sum.Write(header)
	t.sum.Write(payload)
}

func (t *tally) hash() string { return hex.EncodeToString(t.sum.Sum(nil)) }

// last is the index of the last entry, -1 if there is none.
func (t *tally) last() types.MessageIndex {
	if t.entries == 0 {
		return -1
	}
	return types.MessageIndex(t.lastStream)
}

func (t *tally) entry(e *summary) {
	t.entries++
	t.lastPrefix, t.lastStream, t.lastSeq = e.prefix, e.stream, e.sequence
	t.contentSize += e.contentSize
	t.lines += e.lines
	if e.begins {
		t.openLine = e.open
	}
}

// lineCount counts a last line without a delimiter too.
func (t *tally) lineCount() uint64 {
	if t.openLine {
		return t.lines + 1
	}
	return t.lines
}

// hints fills the fields of an index that follow from the entries.
func (t *tally) hints(x *logpb.LogIndex) {
	x.LastPrefixIndex, x.LastStreamIndex, x.LogEntryCount = t.lastPrefix, t.lastStream, t.entries
	x.ContentSize, x.Lines = t.contentSize, t.lineCount()
}

// gaps collects ranges of missing indices in ascending order.
type gaps struct {
	next   types.MessageIndex // every index below it is there or recorded
	ranges []Range
}

// present records that index is there, and those between it and the ones before are not.
func (g *gaps) present(index types.MessageIndex) {
	if index > g.next {
		g.add(Range{First: g.next, Last: index - 1})
	}
	g.next = max(g.next, index+1)
}

// lost records that index arrived and is not kept.
func (g *gaps) lost(index types.MessageIndex, reason string) {
	if index < g.next {
		return
	}
	g.present(index)
	g.add(Range{First: index, Last: index, Reason: reason})
}

// end records what is missing up to the last index of the stream; negative is unknown or none. It comes last.
func (g *gaps) end(terminal types.MessageIndex) {
	if terminal >= g.next {
		g.add(Range{First: g.next, Last: terminal})
	}
}

func (g *gaps) add(r Range) {
	if n := len(g.ranges); n > 0 {
		p := &g.ranges[n-1]
		if n == MaxMissing {
			p.Last = r.Last
			if p.Reason != r.Reason {
				p.Reason = ""
			}
			return
		}
		if p.Reason == r.Reason && p.Last+1 == r.First {
			p.Last = r.Last
			return
		}
	}
	g.ranges = append(g.ranges, r)
}

func (g *gaps) proto() []*logpb.LogIndex_Range {
	var out []*logpb.LogIndex_Range
	for _, r := range g.ranges {
		out = append(out, &logpb.LogIndex_Range{First: uint64(r.First), Last: uint64(r.Last), Reason: r.Reason})
	}
	return out
}
