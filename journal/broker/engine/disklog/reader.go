package disklog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// reader keeps a fragment's file open, and from being removed.
type reader struct {
	journal  protocol.Journal
	fragment engine.Fragment
	content  *content
	file     vfs.File
	damaged  []span

	// sums are those of the blocks of the first known bytes; nil if they are not known.
	sums  []uint32
	known int64

	mu    sync.Mutex // guards what follows
	block int64      // the block in buf, or -1
	buf   *[]byte
	pool  *sync.Pool
}

// Open returns a reader of a fragment that Load returned.
func (l *Log) Open(_ context.Context, name protocol.Journal, f engine.Fragment) (engine.Reader, error) {
	j, err := l.journal(name)
	if err != nil {
		return nil, err
	}
	s := j.durable.Load()
	r := &reader{journal: name, fragment: f, content: j.content(f.Begin), damaged: s.damaged, block: -1, pool: &l.blocks}
	if i, ok := slices.BinarySearchFunc(s.finished, f.Begin, compareBegin); ok {
		r.sums, r.known = s.sums[i], s.finished[i].Len()
	} else if s.open != nil && s.open.Begin == f.Begin {
		r.sums, r.known = s.blocks.all(), s.open.Len()
	}
	if r.content == nil {
		if slices.ContainsFunc(r.damaged, func(d span) bool { return d.begin <= f.Begin && f.End <= d.end }) {
			return r, nil // there is no file; every read will tell why
		}
		return nil, r.trimmed()
	}
	if r.file, err = r.content.use(); err != nil {
		if r.content = j.content(f.Begin); r.content == nil {
			return nil, r.trimmed()
		}
		kind := fault.Transient // such as too many open files
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.DataLoss
		}
		return nil, fault.New(kind, "open [%d, %d) of %s: %w", f.Begin, f.End, name, err)
	}
	return r, nil
}

func (r *reader) trimmed() error {
	return fault.New(fault.NotFound, "[%d, %d) of %s is not there any more", r.fragment.Begin, r.fragment.End, r.journal)
}

func (r *reader) ReadAt(p []byte, off protocol.Offset) (int, error) {
	f := &r.fragment
	if off < f.Begin {
		return 0, fault.New(fault.OutOfRange, "read %s at %d: the fragment begins at %d", r.journal, off, f.Begin)
	}
	var end error
	if rest := int64(f.End - off); rest < int64(len(p)) {
		if rest <= 0 {
			return 0, io.EOF
		}
		p, end = p[:rest], io.EOF
	}
	for _, d := range r.damaged {
		if d.begin < off+protocol.Offset(len(p)) && d.end > off {
			end = fault.New(fault.DataLoss, "read %s at %d: bytes [%d, %d) are damaged", r.journal, off, d.begin, d.end)
			p = p[:max(0, d.begin-off)]
		}
	}
	if len(p) == 0 {
		return 0, end
	}
	if n, err := r.verified(p, int64(off-f.Begin)); err != nil {
		return n, fault.New(fault.DataLoss, "read %s at %d: %w", r.journal, off+protocol.Offset(n), err)
	}
	return len(p), end
}

// verified reads from a position of the file, and compares the sums of all blocks that it touches. What it returns is right.
func (r *reader) verified(p []byte, at int64) (n int, err error) {
	if r.sums == nil {
		return r.readFile(p, at)
	}
	for n < len(p) {
		pos := at + int64(n)
		block := pos / blockSize
		whole := int64(len(p)-n) / blockSize
		if pos%blockSize != 0 || whole == 0 {
			k, err := r.partial(p[n:], block, pos%blockSize)
			if err != nil {
				return n, err
			}
			n += k
			continue
		}
		q := p[n : n+int(whole)*blockSize]
		if k, err := r.readFile(q, pos); err != nil {
			return n + k/blockSize*blockSize, err
		}
		for len(q) > 0 {
			if err := r.check(block, q[:blockSize]); err != nil {
				return n, err
			}
			q, n = q[blockSize:], n+blockSize
			block++
		}
	}
	return n, nil
}

// partial copies from a position in a block on.
func (r *reader) partial(p []byte, block, at int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := min(blockSize, r.known-block*blockSize)
	if r.buf == nil {
		r.buf = r.pool.Get().(*[]byte)
	}
	b := (*r.buf)[:size]
	if r.block != block {
		r.block = -1
		if _, err := r.readFile(b, block*blockSize); err != nil {
			return 0, err
		}
		if err := r.check(block, b); err != nil {
			return 0, err
		}
		r.block = block
	}
	return copy(p, b[at:]), nil
}

func (r *reader) check(block int64, b []byte) error {
	if crc32.Checksum(b, castagnoli) != r.sums[block] {
		return fmt.Errorf("64 KiB from %d on do not have the sum that was written", r.fragment.Begin+protocol.Offset(block*blockSize))
	}
	return nil
}

func (r *reader) readFile(p []byte, at int64) (int, error) {
	n, err := r.file.ReadAt(p, at)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("the file of the fragment at %d is too short", r.fragment.Begin)
	}
	return n, err
}

func (r *reader) Close() error {
	if r.content == nil {
		return nil
	}
	if r.buf != nil {
		r.pool.Put(r.buf)
		r.buf = nil
	}
	if err := r.content.unuse(); err != nil {
		return fmt.Errorf("close a fragment of %s: %w", r.journal, err)
	}
	return nil
}
