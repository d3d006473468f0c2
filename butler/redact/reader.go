package redact

import (
	"errors"
	"io"
	"slices"
)

// Mode says what a mask looks like.
type Mode int

const (
	// Shorten puts Mask in the place of a secret. It is for text.
	Shorten Mode = iota
	// KeepLength puts as many asterisks, so that the offsets of what follows stay. It is for binary data.
	KeepLength
)

// Reader gives the content of another one, redacted.
type Reader struct {
	r       io.Reader
	scanner scanner
	// frames is set if the content is a sequence of datagrams.
	frames *frames
	// ready is redacted content for which there was no room.
	ready   []byte
	scratch []byte
	err     error
}

// Reader returns a reader of a stream of bytes. Values that are added to the set later are found in what is read later.
func (s *Set) Reader(r io.Reader, mode Mode) *Reader {
	return &Reader{r: r, scanner: newScanner(s, mode)}
}

// Datagrams returns a reader of datagrams, each with its length before it (spec butler 3.4). The lengths stay, and nothing is found
// that reaches from one datagram into the next.
func (s *Set) Datagrams(r io.Reader) *Reader {
	return &Reader{r: r, scanner: newScanner(s, KeepLength), frames: new(frames)}
}

// Count returns how many masks were given away. It must not be called during a Read.
func (r *Reader) Count() int64 { return r.scanner.count }

// Read implements io.Reader. If the stream ends with another error than io.EOF, what could have become a secret is masked.
func (r *Reader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(r.ready) > 0 {
			n := copy(p, r.ready)
			r.ready = r.ready[n:]
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		buf := p
		held := r.scanner.held
		if 2*len(held) >= len(p) && len(held) > 0 {
			r.scratch = slices.Grow(r.scratch[:0], 2*len(held)+len(p))
			buf = r.scratch[:2*len(held)+len(p)]
		}
		n := copy(buf, held)
		m, err := r.r.Read(buf[n:])
		r.err = err
		r.scanner.matcher = r.scanner.set.matcher.Load()
		var out []byte
		if text := buf[:n+m]; r.frames != nil {
			out = r.frames.clean(&r.scanner, text, err)
		} else {
			out = r.scanner.clean(text, err)
		}
		switch {
		case &buf[0] != &p[0]:
			r.ready = out
		case len(out) > 0:
			return len(out), nil
		}
		if m == 0 && err == nil {
			break
		}
	}
	return 0, nil
}

// scanner redacts a stream that comes piece by piece.
type scanner struct {
	set     *Set
	mode    Mode
	matcher *matcher
	// base is the position in the stream of the first byte that was not given away; held are the bytes from there on.
	base int
	held []byte
	// covered is how many of them belong to a mask that was given away.
	covered  int
	searches []*search
	// found are matches of patterns that were not given away; positions count from the begin of the stream.
	found []span
	spans []span
	count int64
}

func newScanner(set *Set, mode Mode) scanner {
	s := scanner{set: set, mode: mode}
	if m := set.matcher.Load(); m != nil {
		for _, p := range m.patterns {
			s.searches = append(s.searches, newSearch(p))
		}
	}
	return s
}

// clean redacts the text, which is what is held and what came after it, in its place and returns what can be given away. Any
// error ends the stream.
func (s *scanner) clean(text []byte, err error) []byte {
	if s.matcher == nil {
		s.base += len(text)
		return text
	}
	end := err != nil
	spans, hold := s.spans[:0], len(text)
	if s.covered > 0 {
		spans = append(spans, span{0, s.covered})
	}
	if s.matcher.words != nil {
		spans, hold = s.matcher.words.find(text, spans)
	}
	cut := end && !errors.Is(err, io.EOF)
	for _, search := range s.searches {
		var h int
		s.found, h = search.advance(text, s.base, end && !cut, s.found)
		hold = min(hold, h-s.base)
	}
	for _, f := range s.found {
		spans = append(spans, span{f.begin - s.base, f.end - s.base})
	}
	if end {
		if cut && hold < len(text) {
			spans = append(spans, span{hold, len(text)})
		}
		hold = len(text)
	}
	spans = merge(spans)
	s.spans = spans
	for i, sp := range spans {
		// The mask of a match that is shorter than a mask depends on what yet becomes of it.
		if sp.begin < hold && hold < sp.end && sp.end-sp.begin < len(Mask) && (i > 0 || s.covered == 0) {
			hold = sp.begin
		}
	}
	s.held = append(s.held[:0], text[hold:]...)
	out := s.mask(text, spans, hold)
	s.base += hold
	s.found = slices.DeleteFunc(s.found, func(f span) bool { return f.begin < s.base })
	return out
}

// mask puts masks for the spans that begin before hold.
func (s *scanner) mask(text []byte, spans []span, hold int) []byte {
	if hold == 0 {
		return nil
	}
	continued := s.covered > 0
	s.covered = 0
	to, from := 0, 0
	for _, sp := range spans {
		if sp.begin >= hold {
			break
		}
		if to == from {
			to = sp.begin
		} else {
			to += copy(text[to:], text[from:sp.begin])
		}
		from = min(sp.end, hold)
		mask := from - sp.begin
		if s.mode == Shorten {
			mask = min(len(Mask), sp.end-sp.begin)
			if continued {
				mask = 0
			}
		}
		for i := range mask {
			text[to+i] = Mask[0]
		}
		to += mask
		if !continued {
			s.count++
		}
		continued = false
		s.covered = sp.end - from
	}
	if to == from {
		return text[:hold]
	}
	if from < hold {
		to += copy(text[to:], text[from:hold])
	}
	return text[:to]
}

// restart begins another stream.
func (s *scanner) restart() {
	s.base, s.held, s.covered, s.found = 0, s.held[:0], 0, s.found[:0]
	for _, search := range s.searches {
		search.reset(0)
	}
}

// frames follows the lengths in a stream of datagrams.
type frames struct {
	size  uint64 // of the datagram, as far as it is known
	shift uint   // bits of the size that are known, while it is read
	left  uint64 // bytes of the datagram that were not read yet
	lost  bool   // the rest is not to be understood, and goes as one
}

// clean redacts the text, which is what the scanner holds and what came after it.
func (f *frames) clean(s *scanner, text []byte, err error) []byte {
	to := 0
	for i := 0; i < len(text); {
		held := len(s.held)
		if held == 0 && f.left == 0 && !f.lost {
			text[to] = text[i]
			f.head(text[i])
			to++
			i++
			continue
		}
		n := len(text) - i - held
		if !f.lost {
			n = int(min(uint64(n), f.left))
			f.left -= uint64(n)
		}
		piece := text[i : i+held+n]
		i += len(piece)
		if whole := !f.lost && f.left == 0; whole {
			to += copy(text[to:], s.clean(piece, io.EOF))
			s.restart()
		} else {
			to += copy(text[to:], s.clean(piece, err))
		}
	}
	return text[:to]
}

// head takes a byte of a length.
func (f *frames) head(b byte) {
	f.size |= uint64(b&0x7f) << f.shift
	f.shift += 7
	switch {
	case b < 0x80:
		f.left, f.size, f.shift = f.size, 0, 0
	case f.shift >= 64:
		f.lost = true
	}
}
