package disklog

import (
	"crypto/sha1"
	"fmt"
	"hash"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// journal is a journal that exists. It costs neither a goroutine nor an open file.
type journal struct {
	id      uint64
	name    protocol.Journal
	created int64
	dir     string

	// durable is what readers see.
	durable atomic.Pointer[state]

	// mu orders the journal's appends. It is held while content is written to the page cache, or synced if it is large,
	// but not while the log syncs.
	mu sync.Mutex
	// next is the state after all appends that are ordered. It holds in its generation of the writer only: when
	// the log fails to write, the journal is what is durable of it.
	next       *state
	generation uint64
	// last is the batch of the last record.
	last *batch
	// gone is set when the journal has been deleted.
	gone bool

	// files has the contents of all fragments by their first offset. Those ahead of durable may be replaced.
	filesMu sync.Mutex
	files   map[protocol.Offset]*content
}

// state is a journal at one point of the log. It is not modified once it has been ordered, except for seq, which is set by
// then.
type state struct {
	seq       uint64 // of the last record
	head      protocol.Offset
	registers *protocol.LabelSet
	// finished shares its array with the states before and after it, and so do stored and the sums. sums has those of the
	// blocks of each finished fragment.
	finished []engine.Fragment
	sums     [][]uint32
	stored   []engine.StoredFragment
	trimmed  protocol.Offset
	// open is the fragment that grows, without its sum; hash is that of its content, nil if that is not known, and blocks
	// has the sums of its blocks.
	open   *engine.Fragment
	hash   hash.Hash
	blocks blockSums
	// damaged are ranges whose bytes are lost or wrong, ascending.
	damaged []span
}

// span is a range of a journal.
type span struct{ begin, end protocol.Offset }

// load returns the state for readers.
func (s *state) load(created int64) engine.State {
	return engine.State{
		Created:   created,
		Head:      s.head,
		Registers: s.registers,
		Finished:  s.finished,
		Stored:    s.stored,
		Trimmed:   s.trimmed,
		Open:      s.openFragment(),
	}
}

// openExtent returns the open fragment without its sum.
func (s *state) openExtent() engine.Fragment {
	if s.open == nil {
		return engine.Fragment{Begin: s.head, End: s.head}
	}
	return *s.open
}

func (s *state) openFragment() engine.Fragment {
	f := s.openExtent()
	if s.hash != nil {
		s.hash.Sum(f.Sum[:0])
	}
	return f
}

// lowest returns the lowest offset of content.
func (s *state) lowest() protocol.Offset {
	lowest := s.head
	if s.open != nil {
		lowest = s.open.Begin
	}
	if len(s.finished) != 0 {
		lowest = s.finished[0].Begin
	}
	if len(s.stored) != 0 {
		lowest = min(lowest, s.stored[0].Begin)
	}
	return lowest
}

// finish returns the state with the open fragment finished.
func (s *state) finish(postfix string) *state {
	next := *s
	if s.open != nil {
		f := s.openFragment()
		f.Postfix = postfix
		next.finished = append(s.finished, f)
		next.sums = append(s.sums, s.blocks.all())
		next.open, next.hash, next.blocks = nil, nil, blockSums{}
	}
	return &next
}

// begin returns the state, which has no open fragment, with one.
func (s *state) begin(codec protocol.CompressionCodec, firstAppend int64) *state {
	next := *s
	next.open = &engine.Fragment{Begin: s.head, End: s.head, Codec: codec, FirstAppend: firstAppend}
	next.hash, next.blocks = sha1.New(), newBlockSums()
	return &next
}

// grow returns the state with the open fragment longer by n bytes that were appended at a time; h is the hash of all its
// content, and blocks are the sums of its blocks.
func (s *state) grow(n, time int64, h hash.Hash, blocks blockSums) *state {
	next := *s
	open := *s.open
	open.End += protocol.Offset(n)
	open.LastAppend = max(open.LastAppend, time)
	next.open, next.hash, next.blocks, next.head = &open, h, blocks, open.End
	return &next
}

// hashed returns the hash of the open fragment with p at its end.
func (s *state) hashed(p []byte) hash.Hash {
	if s.hash == nil {
		return nil
	}
	h := cloneHash(s.hash)
	h.Write(p)
	return h
}

func cloneHash(h hash.Hash) hash.Hash {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic("disklog: SHA-1 cannot be cloned: " + err.Error())
	}
	return c
}

// damage returns the state with a range marked as damaged.
func (s *state) damage(d span) *state {
	for _, known := range s.damaged {
		if known.begin <= d.begin && d.end <= known.end {
			return s
		}
	}
	next := *s
	next.damaged = append(s.damaged[:len(s.damaged):len(s.damaged)], d)
	return &next
}

// trim returns the state without the finished fragments that end at or below an offset, and these.
func (s *state) trim(below protocol.Offset) (next *state, dropped []engine.Fragment) {
	k := 0
	for k < len(s.finished) && s.finished[k].End <= below {
		k++
	}
	n := *s
	dropped, n.finished, n.sums = s.finished[:k], s.finished[k:], s.sums[k:]
	for len(n.stored) != 0 && n.stored[0].End <= below {
		n.stored = n.stored[1:]
	}
	if len(dropped) == 0 && len(n.stored) == len(s.stored) {
		return s, nil
	}
	n.trimmed = max(n.trimmed, n.lowest())
	n.damaged = nil
	for _, d := range s.damaged {
		if d.end > n.lowest() {
			n.damaged = append(n.damaged, d)
		}
	}
	return &n, dropped
}

// store returns the state with a finished fragment stored. A fragment that is not there was lost with records about it, and
// is known again.
func (s *state) store(f engine.StoredFragment) *state {
	n := *s
	if i, ok := slices.BinarySearchFunc(n.finished, f.Begin, compareBegin); ok {
		if i == 0 {
			n.finished, n.sums = n.finished[1:], n.sums[1:]
		} else {
			n.finished = slices.Delete(slices.Clone(n.finished), i, i+1)
			n.sums = slices.Delete(slices.Clone(n.sums), i, i+1)
		}
	}
	i, found := slices.BinarySearchFunc(n.stored, f.Begin, func(x engine.StoredFragment, begin protocol.Offset) int {
		return compareBegin(x.Fragment, begin)
	})
	switch {
	case found:
	case i == len(n.stored):
		n.stored = append(n.stored, f)
	default:
		n.stored = slices.Insert(slices.Clone(n.stored), i, f)
	}
	n.damaged = slices.DeleteFunc(slices.Clone(n.damaged), func(d span) bool { return f.Begin <= d.begin && d.end <= f.End })
	return &n
}

// journalDir is the directory of a journal's files. Names of journals are longer than some file systems allow, and have no
// place in a path.
func journalDir(root string, id uint64) string {
	return filepath.Join(root, journalsDir, fmt.Sprintf("%016x", id))
}

// content returns the file of the fragment that begins at an offset, or nil.
func (j *journal) content(begin protocol.Offset) *content {
	j.filesMu.Lock()
	defer j.filesMu.Unlock()
	return j.files[begin]
}

// setContent sets the file of the fragment that begins where c does. An older one is that of an append that failed.
func (j *journal) setContent(c *content) error {
	j.filesMu.Lock()
	old := j.files[c.begin]
	j.files[c.begin] = c
	j.filesMu.Unlock()
	if old == nil {
		return nil
	}
	return old.forget()
}

// allContents returns the files of all fragments.
func (j *journal) allContents() []*content {
	j.filesMu.Lock()
	defer j.filesMu.Unlock()
	out := make([]*content, 0, len(j.files))
	for _, c := range j.files {
		out = append(out, c)
	}
	return out
}

// dropContent removes the file of the fragment that begins at an offset.
func (j *journal) dropContent(begin protocol.Offset) error {
	j.filesMu.Lock()
	c := j.files[begin]
	delete(j.files, begin)
	j.filesMu.Unlock()
	if c == nil {
		return nil
	}
	return c.drop()
}

// refresh brings next to the writer's generation. The caller holds mu.
func (j *journal) refresh(generation uint64) {
	if j.generation != generation {
		j.next, j.generation, j.last = j.durable.Load(), generation, nil
	}
}

// change is a record of one journal on its way into the log.
type change struct {
	journal *journal
	next    *state
}

func (c *change) ordered(seq uint64) { c.next.seq = seq }
func (c *change) publish()           { c.journal.durable.Store(c.next) }

// order puts a record into the log that leads to next. The caller holds mu, has made next from j.next, and has written the
// content.
func (l *Log) order(j *journal, typ recordType, head, content []byte, next *state) (*batch, error) {
	// After the content was written and before a checkpoint can have the record: so every checkpoint that has it syncs the
	// content, or one before it did.
	l.markDirty(j)
	b, err := l.writer.enqueue(j.generation, typ, head, content, &change{j, next})
	if err != nil {
		return nil, err
	}
	j.next, j.last = next, b
	return b, nil
}

// unknownJournal is the error for a journal that does not exist, any more or yet.
func unknownJournal(name protocol.Journal) error {
	return fault.New(fault.NotFound, "journal %s does not exist", name)
}
