package disklog

import (
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// apply applies a record, unless the checkpoint has it already.
func (r *replay) apply(rec record) error {
	switch rec.typ {
	case recordStart:
		term, err := decodeStart(rec.body)
		r.identity.Term = max(r.identity.Term, term)
		return err
	case recordApply:
		revision, changes, err := decodeApply(rec.body)
		if err != nil || rec.seq <= r.log.specsSeq {
			return err
		}
		r.log.specsSeq = rec.seq
		return r.specs(revision, changes, rec.seq)
	case recordTrim:
		id, below, err := decodeTrim(rec.body)
		if err != nil {
			return err
		}
		j := r.byID[id]
		if j == nil || rec.seq <= j.next.seq {
			return nil
		}
		trimmed, dropped := j.next.trim(below)
		next := *trimmed
		next.seq, next.trimmed = rec.seq, max(next.trimmed, below)
		j.next = &next
		r.log.dirty[j] = struct{}{}
		for _, f := range dropped {
			if err := j.dropContent(f.Begin); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	case recordStored:
		id, f, err := decodeStored(rec.body)
		if err != nil {
			return err
		}
		j := r.byID[id]
		if j == nil || rec.seq <= j.next.seq {
			return nil
		}
		next := j.next.store(f)
		next.seq, next.head = rec.seq, max(next.head, f.End)
		j.next = next
		r.log.dirty[j] = struct{}{}
		return nil // the file goes when all are checked
	default:
		a, err := decodeAppend(rec.body)
		if err != nil {
			return err
		}
		j := r.byID[a.journal]
		if j == nil || rec.seq <= j.next.seq {
			// The journal was deleted, or the checkpoint has the append.
			return nil
		}
		return r.append(j, &a, rec.seq)
	}
}

// specs applies changes of specs. Should records before this one be lost, what it says holds: the journals that it names exist
// as it says.
func (r *replay) specs(revision int64, changes []specChange, seq uint64) error {
	l := r.log
	var requests []*protocol.ApplyRequest_Change
	remove := func(j *journal) {
		requests = append(requests, &protocol.ApplyRequest_Change{Delete: string(j.name), ExpectModRevision: -1})
		delete(r.byID, j.id)
		delete(l.dirty, j)
		delete(l.journals, j.name)
	}
	created := make(map[string]int64)
	for _, c := range changes {
		known := r.byID[c.journal]
		if c.spec == nil {
			if known != nil {
				remove(known)
			}
			continue
		}
		name := protocol.Journal(c.spec.GetName())
		if known == nil {
			if former := l.journals[name]; former != nil {
				remove(former)
			}
			j, err := r.journal(c.journal, name, c.created)
			if err != nil {
				return err
			}
			j.next.seq = seq
		}
		requests = append(requests, &protocol.ApplyRequest_Change{Upsert: c.spec, ExpectModRevision: -1})
		created[c.spec.GetName()] = c.created
	}
	specs, err := l.specs.Apply(requests)
	if err != nil {
		return err
	}
	next := &engine.Specs{Revision: revision, All: slices.Clone(specs.All)}
	for i, s := range next.All {
		if c, ok := created[s.GetName()]; ok {
			next.All[i] = &engine.Spec{JournalSpec: s.JournalSpec, Created: c, Modified: revision}
		}
	}
	l.specs = next
	return nil
}

// append applies an append record.
func (r *replay) append(j *journal, a *appendBody, seq uint64) error {
	s := j.next
	if a.begin < s.head {
		return fmt.Errorf("append to %s at %d, which ends at %d", j.name, a.begin, s.head)
	}
	if a.begin > s.head && a.flags&flagJump == 0 {
		s = lost(s, a)
	}
	if a.flags&flagFinish != 0 {
		s = s.finish(a.postfix)
	}
	if a.flags&flagJump != 0 {
		jumped := *s
		jumped.head = a.begin
		s = &jumped
	}
	if a.flags&flagBegin != 0 {
		s = s.finish("").begin(a.codec, a.time)
	}
	if a.length > 0 {
		var err error
		if s, err = r.content(j, s, a); err != nil {
			return err
		}
	} else {
		next := *s
		s = &next
	}
	if a.flags&flagRegisters != 0 {
		s.registers = a.registers
	}
	s.seq = seq
	j.next = s
	r.log.dirty[j] = struct{}{}
	return nil
}

// lost returns the state with records lost between its head and those of an append.
func lost(s *state, a *appendBody) *state {
	next := s.damage(span{s.head, a.begin})
	if next.open != nil && next.open.Begin == a.fragment && a.flags&flagBegin == 0 {
		return next.grow(int64(a.begin-s.head), 0, nil, blockSums{})
	}
	next = next.fill(a.fragment)
	if a.flags&flagBegin == 0 {
		// The fragment began in a record that is lost.
		next.open = &engine.Fragment{Begin: a.fragment, End: a.begin, Codec: protocol.CompressionCodec_NONE}
		next.head = a.begin
	}
	return next
}

// fill returns the state with the open fragment finished, and another one from there to end whose content is lost. Without
// it readers would take the loss for a gap that was meant.
func (s *state) fill(end protocol.Offset) *state {
	next := s.finish("")
	if end > s.head {
		next.finished = append(next.finished, engine.Fragment{Begin: s.head, End: end, Codec: protocol.CompressionCodec_NONE})
		next.sums = append(next.sums, nil)
		next.head = end
	}
	return next
}

// content brings an append's content into its fragment's file, or checks that it is there, and returns the state with it.
func (r *replay) content(j *journal, s *state, a *appendBody) (*state, error) {
	if s.open == nil {
		return nil, fmt.Errorf("append to %s at %d has no fragment", j.name, a.begin)
	}
	c, err := r.open(j, s.open.Begin)
	if err != nil {
		return nil, err
	}
	at := int64(a.begin - s.open.Begin)
	if a.flags&flagReference == 0 {
		if err := c.write(a.content, at); err != nil {
			return nil, err
		}
		return s.grow(a.length, a.time, s.hashed(a.content), s.blocks.extend(a.content)), nil
	}
	h, blocks, err := r.verify(c, at, a, s)
	if err != nil {
		// The file's other content may be well, and the fragment may be dropped by a later record.
		return s.damage(span{a.begin, a.begin + protocol.Offset(a.length)}).grow(a.length, a.time, nil, blockSums{}), nil
	}
	return s.grow(a.length, a.time, h, blocks), nil
}

// open returns the file of the fragment that begins at an offset. It is created if it is not there: its content may be in the
// log only, or it is dropped later.
func (r *replay) open(j *journal, begin protocol.Offset) (*content, error) {
	if c := j.content(begin); c != nil {
		return c, nil
	}
	if err := r.log.opts.FS.MkdirAll(j.dir); err != nil {
		return nil, err
	}
	c := &content{files: &r.log.files, dir: j.dir, begin: begin, name: openName(begin)}
	if err := c.create(); err != nil {
		return nil, err
	}
	return c, j.setContent(c)
}

// verify reads content that a record refers to, and returns the hash and the sums of the fragment with it.
func (r *replay) verify(c *content, at int64, a *appendBody, s *state) (hash.Hash, blockSums, error) {
	h, blocks := s.hash, s.blocks
	f, err := c.use()
	if err != nil {
		return nil, blocks, err
	}
	var sum uint32
	if h != nil {
		h = cloneHash(h)
	}
	buf := r.log.buffers.Get().(*[]byte)
	defer r.log.buffers.Put(buf)
	for done := int64(0); done < a.length && err == nil; {
		p := (*buf)[:min(int64(len(*buf)), a.length-done)]
		if _, err = f.ReadAt(p, at+done); errors.Is(err, io.EOF) && done+int64(len(p)) == a.length {
			err = nil
		}
		sum = crc32.Update(sum, castagnoli, p)
		blocks = blocks.extend(p)
		if h != nil {
			h.Write(p)
		}
		done += int64(len(p))
	}
	if err = errors.Join(err, c.unuse()); err == nil && sum != a.sum {
		err = errors.New("the checksum of the content does not match")
	}
	return h, blocks, err
}

// check compares a journal's state with its files.
func (r *replay) check(j *journal) error {
	s := j.next
	needed := make(map[protocol.Offset]bool)
	for _, f := range append(slices.Clone(s.finished), s.openFragment()) {
		if f.Len() == 0 {
			continue
		}
		needed[f.Begin] = true
		size, err := r.size(j, f.Begin)
		if err != nil {
			return err
		}
		if c := j.content(f.Begin); c != nil {
			c.takes(size)
		}
		if size < f.Len() {
			s = s.damage(span{f.Begin + protocol.Offset(size), f.End})
		}
	}
	if r.damaged {
		var err error
		if s, err = r.beyond(j, s, needed); err != nil {
			return err
		}
	}
	for _, c := range j.allContents() {
		if !needed[c.begin] {
			if err := j.dropContent(c.begin); err != nil {
				return err
			}
		}
	}
	for _, d := range s.damaged {
		r.log.metrics.damages.Inc()
		r.log.opts.Logger.Error("journal log: content is lost", "journal", j.name, "begin", d.begin, "end", d.end)
	}
	j.next = s
	return nil
}

// beyond looks for content beyond a journal's head, after records were lost. It may have been acknowledged, so its offsets
// must not be used again.
func (r *replay) beyond(j *journal, s *state, needed map[protocol.Offset]bool) (*state, error) {
	end := s.head
	for _, c := range j.allContents() {
		size, err := r.size(j, c.begin)
		if err != nil {
			return nil, err
		}
		end = max(end, c.begin+protocol.Offset(size))
	}
	if end == s.head {
		return s, nil
	}
	return s.damage(span{s.head, end}).fill(end), nil
}

// size returns the length of a fragment's file; one that is not there has none.
func (r *replay) size(j *journal, begin protocol.Offset) (int64, error) {
	c := j.content(begin)
	if c == nil {
		return 0, nil
	}
	f, err := c.use()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, c.unuse())
}

func readFull(f vfs.File, b []byte) error {
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return err
	}
	return nil
}
