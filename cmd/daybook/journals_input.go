package main

import (
	"context"
	"fmt"
	"io"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
)

// inputChunk is how much of the input is read at once.
const inputChunk = 256 << 10

// inputReader reads a file until a context ends, though the read of a terminal or a pipe cannot be interrupted: the goroutine
// that is in one then stays until the process ends.
type inputReader struct {
	ctx    context.Context
	chunks chan inputRead
	free   chan []byte
	buf    []byte // That of rest.
	rest   []byte
	err    error
	bar    *progress
}

type inputRead struct {
	buf []byte
	n   int
	err error
}

func newInputReader(ctx context.Context, r io.Reader, bar *progress) *inputReader {
	in := &inputReader{ctx: ctx, chunks: make(chan inputRead), free: make(chan []byte, 2), bar: bar}
	in.free <- make([]byte, inputChunk)
	in.free <- make([]byte, inputChunk)
	go in.pump(r)
	return in
}

func (in *inputReader) pump(r io.Reader) {
	for {
		var c inputRead
		select {
		case c.buf = <-in.free:
		case <-in.ctx.Done():
			return
		}
		c.n, c.err = r.Read(c.buf)
		select {
		case in.chunks <- c:
		case <-in.ctx.Done():
			return
		}
		if c.err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (in *inputReader) Read(p []byte) (int, error) {
	for len(in.rest) == 0 {
		if in.buf != nil {
			in.free <- in.buf
			in.buf = nil
		}
		if in.err != nil {
			return 0, in.err
		}
		select {
		case c := <-in.chunks:
			in.buf, in.rest, in.err = c.buf, c.buf[:c.n], c.err
			in.bar.add(c.n)
		case <-in.ctx.Done():
			in.err = fault.New(fault.Canceled, "interrupted before the end of the input")
		}
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// sentRecords counts which records were acknowledged.
type sentRecords struct {
	waiting []*sentBatch
	last    map[string]*sentBatch // Of each journal.

	records, bytes int64 // Acknowledged.
	lost           int64 // Records of which that is not so.
	err            error // Why, first.
}

// sentBatch is the records that share an append.
type sentBatch struct {
	append         *client.AsyncAppend
	journal        string
	records, bytes int64
}

func newSentRecords() *sentRecords { return &sentRecords{last: make(map[string]*sentBatch)} }

// add counts a record that was released. It returns the first failure so far.
func (s *sentRecords) add(journal string, p *client.AsyncAppend, size int) error {
	b := s.last[journal]
	if b == nil || b.append != p {
		b = &sentBatch{append: p, journal: journal}
		s.last[journal] = b
		s.waiting = append(s.waiting, b)
		s.sweep()
	}
	b.records++
	b.bytes += int64(size)
	return s.err
}

// sweep counts what was decided. The last batch of a journal may still be joined by records, unless it was sent.
func (s *sentRecords) sweep() {
	kept := s.waiting[:0]
	for _, b := range s.waiting {
		select {
		case <-b.append.Done():
			if s.last[b.journal] != b {
				s.count(b)
				continue
			}
		default:
		}
		kept = append(kept, b)
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}

func (s *sentRecords) count(b *sentBatch) {
	if err := b.append.Err(); err != nil {
		s.lost += b.records
		if s.err == nil {
			s.err = fmt.Errorf("append to %s: %w", b.journal, explainAppend(err, b.journal))
		}
		return
	}
	s.records += b.records
	s.bytes += b.bytes
}

// finish waits for what is left. The service must have ended, or been drained.
func (s *sentRecords) finish() error {
	for _, b := range s.waiting {
		s.count(b)
	}
	s.waiting = nil
	return s.err
}

// String tells what was acknowledged.
func (s *sentRecords) String() string {
	out := fmt.Sprintf("appended: %s with %s", plural(s.records, "record"), bytesText(s.bytes))
	if s.lost != 0 {
		out += fmt.Sprintf("; not known to be appended: %s", plural(s.lost, "record"))
	}
	return out
}
