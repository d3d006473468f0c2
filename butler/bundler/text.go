package bundler

import (
	"bytes"
	"unicode/utf8"
)

const (
	lf   = "\n"
	crlf = "\r\n"
)

// textParser makes entries of lines (spec butler 7.3).
type textParser struct {
	// lines is the number of complete lines so far.
	lines uint64
}

// textLines collects the lines of one entry.
type textLines struct {
	slab       *lineSlab
	from, n    int
	lim        limits
	raw, coded int
}

// add appends a line, if it fits.
func (t *textLines) add(value []byte, delimiter string) bool {
	raw := len(value) + len(delimiter)
	size := 0
	if len(value) > 0 {
		size = fieldSize(len(value))
	}
	if len(delimiter) > 0 {
		size += 2 + len(delimiter)
	}
	size = fieldSize(size)
	if t.raw+raw > t.lim.raw || t.coded+size > t.lim.encoded || t.full() {
		return false
	}
	l := t.slab.ptrs[t.from+t.n]
	l.Value, l.Delimiter = value, delimiter
	t.n++
	t.raw += raw
	t.coded += size
	return true
}

func (t *textLines) full() bool { return t.from+t.n == linesPerSlab }

func (p *textParser) next(q *queue, lim limits, aggressive, closed bool, a *arena) (*slot, error) {
	if q.size == 0 {
		return nil, nil
	}
	t := textLines{lim: lim}
	t.slab, t.from = a.run()
	at := q.segs[0].at
	complete := 0
	for q.size > 0 && q.segs[0].at == at && !t.full() {
		n, more := p.fromSegment(q, &t, a)
		complete += n
		if !more {
			break
		}
		if q.size == 0 || q.segs[0].at != at {
			continue
		}
		// The next line ends in a later segment, or beyond the limit, or is not finished yet.
		if i := q.index('\n', lim.raw-t.raw); i >= 0 && t.addLine(q.peek(i+1, a)) {
			complete++
			q.consume(i + 1)
			continue
		}
		if aggressive {
			p.takeUnfinished(q, &t, closed, a)
		}
		break
	}
	if t.n == 0 {
		return nil, nil
	}
	a.used += t.n
	s := a.slot()
	s.at = at
	s.raw, s.encoded = t.raw, t.coded
	s.text.Lines = t.slab.ptrs[t.from : t.from+t.n : t.from+t.n]
	s.textC.Text = &s.text
	s.entry.Content = &s.textC
	s.entry.Sequence = p.lines
	p.lines += uint64(complete)
	return s, nil
}

// fromSegment takes the complete lines within the first segment. more is false when the entry is full.
func (p *textParser) fromSegment(q *queue, t *textLines, a *arena) (lines int, more bool) {
	s := &q.segs[0]
	data := s.blk.data[s.lo:s.hi]
	done := 0
	for done < len(data) {
		i := bytes.IndexByte(data[done:], '\n')
		if i < 0 {
			break
		}
		if !t.addLine(data[done : done+i+1 : done+i+1]) {
			// A line that is too long for an empty entry is the caller's to cut.
			more = t.n == 0
			goto out
		}
		done += i + 1
		lines++
	}
	more = true
out:
	if done > 0 {
		a.hold(s.blk)
		q.advance(done)
	}
	return lines, more
}

// addLine appends a line that ends in a line feed, if it fits.
func (t *textLines) addLine(line []byte) bool {
	n := len(line) - 1
	if n > 0 && line[n-1] == '\r' {
		return t.add(line[:n-1:n-1], crlf)
	}
	return t.add(line[:n:n], lf)
}

// takeUnfinished takes what is there within the limits as an unfinished line.
func (p *textParser) takeUnfinished(q *queue, t *textLines, closed bool, a *arena) {
	// Tags and lengths of a line take at most 12 bytes.
	n := min(q.size, t.lim.raw-t.raw, t.lim.encoded-t.coded-12)
	if n <= 0 || t.n > 0 && n < q.size {
		return // there is more room in the next entry
	}
	n = q.cut(n)
	value := q.peek(n, a)
	last := closed && n == q.size
	switch {
	case last:
	case value[n-1] == '\r':
		n-- // it may be the first half of a delimiter
	default:
		n -= incomplete(value)
	}
	if n > 0 && t.add(value[:n:n], "") {
		q.consume(n)
	}
}

// incomplete returns the length of a character at the end of b that is cut off, but valid so far.
func incomplete(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
