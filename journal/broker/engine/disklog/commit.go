package disklog

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"math"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Commit appends. Content is in the page cache of its fragment's file before its record is in the log, so that nothing is
// left to do once the record is durable. Content up to the inline limit is in the record too; larger content is synced first.
func (l *Log) Commit(ctx context.Context, name protocol.Journal, a *engine.Append) (engine.Result, error) {
	j, err := l.journal(name)
	if err != nil {
		return engine.Result{}, err
	}
	if err := l.writer.failure(); err != nil {
		return engine.Result{}, fmt.Errorf("append to %s: %w", name, err)
	}
	src, err := l.source(a)
	if err == nil && src.size > 0 && !src.adopt {
		err = l.budget.admit(src.size)
	}
	if err != nil {
		return engine.Result{}, fmt.Errorf("append to %s: %w", name, err)
	}
	j.mu.Lock()
	var res engine.Result
	var b *batch
	if j.gone || a.Created != 0 && a.Created != j.created {
		err = unknownJournal(name)
	} else {
		res, b, err = l.commit(j, a, src)
	}
	j.mu.Unlock()
	if err != nil {
		return engine.Result{}, fmt.Errorf("append to %s: %w", name, err)
	}
	if err := l.wait(ctx, b); err != nil {
		return engine.Result{}, fmt.Errorf("append to %s: %w", name, err)
	}
	return res, nil
}

// wait waits until a batch is durable; nil has been for long.
func (l *Log) wait(ctx context.Context, b *batch) error {
	if b == nil {
		return nil
	}
	return l.writer.await(ctx, b)
}

// commit orders an append. The caller holds j.mu, and waits for the batch.
func (l *Log) commit(j *journal, a *engine.Append, src *source) (engine.Result, *batch, error) {
	for {
		j.refresh(l.writer.current())
		res, b, err := l.try(j, a, src)
		// An append that took the last state of the journal just before the log failed takes the one before the failure.
		if !errors.Is(err, errStale) || src.taken {
			return res, b, err
		}
	}
}

func (l *Log) try(j *journal, a *engine.Append, src *source) (engine.Result, *batch, error) {
	cur := j.next
	begin, registers, refusal := a.Decide(cur.head, cur.registers)
	res := engine.Result{Refusal: refusal, Begin: begin, End: begin, Sum: src.sum, Codec: a.Roll.Codec, Registers: registers}
	if refusal != engine.Committed {
		// Even a refusal tells about appends before it, which must be durable when it is known.
		return res, j.last, nil
	}
	if begin > math.MaxInt64-protocol.Offset(src.size) {
		return res, nil, fault.New(fault.OutOfRange, "offset %d is too large", begin)
	}
	body := appendBody{journal: j.id, begin: begin, fragment: begin, time: max(0, a.Now.Unix()), length: src.size}
	next := cur
	roll := a.Roll
	roll.Force = roll.Force || src.adopt
	if roll.Due(cur.openExtent(), cur.lowest(), begin, a.Now) && cur.open != nil {
		body.flags |= flagFinish
		body.postfix = roll.Finish(cur.openFragment(), cur.registers).Postfix
		next = next.finish(body.postfix)
	}
	if begin != cur.head {
		body.flags |= flagJump
		jumped := *next
		jumped.head = begin
		next = &jumped
	}
	if src.size == 0 {
		res.Registers = cur.registers
		if body.flags == 0 {
			if next.open != nil {
				res.Codec = next.open.Codec
			}
			return res, j.last, nil
		}
	} else {
		if next.open == nil {
			body.flags |= flagBegin
			body.codec = a.Roll.Codec
			next = next.begin(body.codec, body.time)
		}
		var err error
		if next, err = l.place(j, next, &body, src); err != nil {
			return res, nil, err
		}
		if registers != cur.registers {
			body.flags |= flagRegisters
			body.registers = registers
			next.registers = registers
		}
		body.fragment = next.open.Begin
		res.End, res.Codec = next.head, next.open.Codec
	}
	b, err := l.order(j, recordAppend, body.head(make([]byte, 0, 128)), body.content, next)
	return res, b, err
}

// place writes content to the end of next's open fragment, and returns the state with it.
func (l *Log) place(j *journal, next *state, body *appendBody, src *source) (*state, error) {
	if body.flags&flagBegin != 0 {
		if err := l.newContent(j, next.open.Begin, src); err != nil {
			return nil, fmt.Errorf("begin a fragment: %w", noSpace(err))
		}
	}
	c := j.content(next.open.Begin)
	at := next.open.Len()
	var h hash.Hash
	blocks := next.blocks
	switch {
	case src.taken:
		h, blocks = src.hash, src.stage.blocks
	case src.stage == nil:
		if err := c.write(src.content, at); err != nil {
			return nil, fmt.Errorf("write content: %w", noSpace(err))
		}
		h, blocks = next.hashed(src.content), blocks.extend(src.content)
	default:
		var err error
		if h, blocks, err = l.copyStaged(c, at, next, src); err != nil {
			return nil, fmt.Errorf("copy staged content: %w", noSpace(err))
		}
	}
	if src.stage == nil && src.size <= int64(l.opts.InlineSize) {
		body.content = src.content
	} else {
		body.flags |= flagReference
		body.sum = src.crc
		if err := l.syncContent(j, c); passes(err) {
			return nil, fault.Wrap(fault.Transient, err)
		} else if err != nil {
			l.writer.kill(err)
			return nil, l.writer.failure()
		}
	}
	return next.grow(src.size, body.time, h, blocks), nil
}

// newContent makes the file of a fragment that begins: an empty one, or the staged content if that is large.
func (l *Log) newContent(j *journal, begin protocol.Offset, src *source) error {
	c := &content{files: &l.files, dir: j.dir, begin: begin, name: openName(begin)}
	if err := l.opts.FS.MkdirAll(j.dir); err != nil {
		return err
	}
	if err := j.setContent(c); err != nil {
		return err
	}
	if !src.adopt {
		return c.create()
	}
	if err := src.stage.move(c.path()); err != nil {
		return err
	}
	src.taken = true
	c.takes(src.stage.size)
	return nil
}

// syncContent makes a file's content and name durable. A failure is final.
func (l *Log) syncContent(j *journal, c *content) error {
	if err := c.sync(); err != nil {
		return fmt.Errorf("sync a fragment of %s: %w", j.name, err)
	}
	c.mu.Lock()
	named := c.named
	c.mu.Unlock()
	if named {
		return nil
	}
	return l.syncNames(j, []*content{c})
}

// syncNames makes the names of files durable, whatever they are now.
func (l *Log) syncNames(j *journal, contents []*content) error {
	names := make([]string, len(contents))
	for i, c := range contents {
		c.mu.Lock()
		names[i] = c.name
		c.mu.Unlock()
	}
	if err := l.opts.FS.SyncDir(j.dir); err != nil {
		return fmt.Errorf("sync the directory of %s: %w", j.name, err)
	}
	if err := l.opts.FS.SyncDir(l.path(journalsDir)); err != nil {
		return fmt.Errorf("sync the directory of all journals: %w", err)
	}
	for i, c := range contents {
		c.mu.Lock()
		if c.name == names[i] {
			c.named = true
		}
		c.mu.Unlock()
	}
	return nil
}

// copyStaged copies staged content to the end of a fragment, and returns the hash and the sums of the fragment with it.
func (l *Log) copyStaged(c *content, at int64, next *state, src *source) (hash.Hash, blockSums, error) {
	h, blocks := next.hash, next.blocks
	if h != nil {
		h = cloneHash(h)
	}
	buf := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buf)
	for done := int64(0); done < src.size; {
		p := (*buf)[:min(int64(len(*buf)), src.size-done)]
		if _, err := src.stage.file.ReadAt(p, done); err != nil {
			return nil, blocks, err
		}
		blocks = blocks.extend(p)
		if h != nil {
			h.Write(p)
		}
		if err := c.write(p, at+done); err != nil {
			return nil, blocks, err
		}
		done += int64(len(p))
	}
	return h, blocks, nil
}

// source is the content of an append.
type source struct {
	content []byte
	stage   *stage
	size    int64
	sum     [sha1.Size]byte
	crc     uint32
	hash    hash.Hash // of staged content
	// adopt is set when the staged file is large enough to become the file of a fragment, which saves copying it.
	adopt bool
	// taken is set when the staged file has become a fragment's.
	taken bool
}

// source does what can be done before the journal is locked.
func (l *Log) source(a *engine.Append) (*source, error) {
	if a.Staged == nil {
		src := &source{content: a.Content, size: int64(len(a.Content)), sum: sha1.Sum(a.Content)}
		if len(a.Content) > l.opts.InlineSize {
			src.crc = crc32.Checksum(a.Content, castagnoli)
		}
		return src, nil
	}
	st := a.Staged.(*stage)
	src := &source{stage: st, size: st.size, crc: st.crc, hash: st.hash, adopt: st.size >= l.opts.AdoptSize}
	st.hash.Sum(src.sum[:0])
	if src.adopt {
		if err := st.sync(); err != nil {
			return nil, fault.New(fault.Transient, "sync staged content: %w", err)
		}
	}
	return src, nil
}

// noSpace makes a full disk an error that passes.
func noSpace(err error) error {
	if vfs.IsNoSpace(err) {
		return fault.New(fault.Transient, "no space left for journals: %w", err)
	}
	return fault.Wrap(fault.Transient, err)
}
