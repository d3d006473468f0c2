package testkit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// Difference says where and how what was read differs from what was written.
type Difference struct {
	// Offset is the first byte that differs, or the length of the shorter one; Line counts from 1.
	Offset, Line int64
	// Want and Got are the bytes around it, beginning with the same Before bytes.
	Want, Got []byte
	Before    int
	// Sizes and SHA-256 sums of both as a whole.
	WantSize, GotSize int64
	WantSum, GotSum   [sha256.Size]byte
}

func (d *Difference) Error() string {
	return fmt.Sprintf("first difference at byte %d, line %d:\n  want %q\n  got  %q\n  want %d bytes, sha256 %x\n  got  %d bytes, sha256 %x",
		d.Offset, d.Line, d.Want, d.Got, d.WantSize, d.WantSum, d.GotSize, d.GotSum)
}

// around is how many bytes before and after a difference it shows.
const around = 40

// Compare reads both to their ends, in bounded memory, and returns nil if they are equal, a *Difference if not, and
// another error if one could not be read.
func Compare(want, got io.Reader) error {
	w, g := newSide("what was written", want), newSide("what was read", got)
	var (
		line   int64 = 1
		offset int64
		before []byte // the last bytes in which both were equal
	)
	for {
		if err := w.fill(); err != nil {
			return err
		}
		if err := g.fill(); err != nil {
			return err
		}
		n := commonPrefix(w.data, g.data)
		line += int64(bytes.Count(w.data[:n], []byte{'\n'}))
		offset += int64(n)
		before = append(before, w.data[:n]...)
		before = append([]byte(nil), before[max(0, len(before)-around):]...)
		w.data, g.data = w.data[n:], g.data[n:]
		switch {
		case len(w.data) == 0 && len(g.data) == 0 && w.ended && g.ended:
			return nil
		case (len(w.data) == 0 && !w.ended) || (len(g.data) == 0 && !g.ended):
			continue
		}
		d := &Difference{Offset: offset, Line: line, Before: len(before)}
		d.Want = append(before[:len(before):len(before)], w.data[:min(around, len(w.data))]...)
		d.Got = append(before[:len(before):len(before)], g.data[:min(around, len(g.data))]...)
		if err := w.finish(); err != nil {
			return err
		}
		if err := g.finish(); err != nil {
			return err
		}
		d.WantSize, d.GotSize = w.size, g.size
		w.sum.Sum(d.WantSum[:0])
		g.sum.Sum(d.GotSum[:0])
		return d
	}
}

// side is one of the two that are compared.
type side struct {
	name  string
	r     io.Reader
	buf   []byte
	data  []byte // read and not yet compared
	ended bool
	size  int64
	sum   hash.Hash
}

func newSide(name string, r io.Reader) *side {
	return &side{name: name, r: r, buf: make([]byte, 256<<10), sum: sha256.New()}
}

// fill reads until there is as much to compare as the buffer holds, or until the end: both sides then differ only where
// their bytes do, not where their chunks end.
func (s *side) fill() error {
	kept := copy(s.buf, s.data)
	s.data = s.buf[:kept]
	for len(s.data) < len(s.buf) && !s.ended {
		n, err := s.r.Read(s.buf[len(s.data):])
		s.count(s.buf[len(s.data) : len(s.data)+n])
		s.data = s.buf[:len(s.data)+n]
		if err == io.EOF {
			s.ended = true
		} else if err != nil {
			return fmt.Errorf("testkit: read %s at byte %d: %w", s.name, s.size, err)
		}
	}
	return nil
}

// finish reads what is left, for the size and the sum.
func (s *side) finish() error {
	s.data = nil
	for !s.ended {
		if err := s.fill(); err != nil {
			return err
		}
		s.data = nil
	}
	return nil
}

func (s *side) count(p []byte) {
	s.size += int64(len(p))
	s.sum.Write(p)
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return n
	}
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
