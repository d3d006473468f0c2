package redact

import (
	"bytes"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// pattern is a compiled regular expression.
type pattern struct {
	prog *syntax.Prog
	// first are the bytes that a match may begin with.
	first [256]bool
	// prefix is what every match begins with; it may be empty.
	prefix []byte
}

func compile(prog *syntax.Prog) *pattern {
	prefix, _ := prog.Prefix()
	p := &pattern{prog: prog, prefix: []byte(prefix)}
	seen := make([]bool, len(prog.Inst))
	var visit func(pc uint32)
	visit = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		switch in := &prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			visit(in.Out)
			visit(in.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			visit(in.Out)
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			for b := range rune(utf8.RuneSelf) {
				if in.MatchRune(b) {
					p.first[b] = true
				}
			}
			if beyondASCII(in) {
				for b := utf8.RuneSelf; b < 256; b++ {
					p.first[b] = true
				}
			}
		case syntax.InstMatch, syntax.InstFail:
		}
	}
	visit(uint32(prog.Start))
	return p
}

// beyondASCII reports whether an instruction may match a rune that takes several bytes, or an invalid byte.
func beyondASCII(in *syntax.Inst) bool {
	if in.Op == syntax.InstRuneAny || in.Op == syntax.InstRuneAnyNotNL {
		return true
	}
	wide := func(r rune) bool { return r >= utf8.RuneSelf }
	// A letter may fold into another alphabet, as k does into the Kelvin sign.
	fold := len(in.Rune) == 1 && syntax.Flags(in.Arg)&syntax.FoldCase != 0
	return slices.ContainsFunc(in.Rune, wide) || fold && slices.ContainsFunc(folds(in.Rune[0]), wide)
}

// folds returns the other cases of a rune.
func folds(r rune) (out []rune) {
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		out = append(out, f)
	}
	return out
}

// thread is a place in a program, and where in the stream its match began.
type thread struct {
	pc    uint32
	begin int
}

// search looks for a pattern in a stream that comes piece by piece: Pike's simulation, which prefers the leftmost match and of
// these the one that a backtracking search would find first. Positions count from the begin of the stream.
type search struct {
	*pattern
	pos  int  // of the next rune
	prev rune // the one before it, -1 at the begin
	// threads are where matches that have begun go on, at pos, in order of preference.
	threads, next []thread
	// match is the best one so far; none if it is empty.
	match span
	// queued holds, for each instruction, the round in which it was queued.
	queued []uint32
	round  uint32
	run    []thread
}

func newSearch(p *pattern) *search {
	s := &search{pattern: p, queued: make([]uint32, len(p.prog.Inst))}
	s.reset(0)
	return s
}

// reset begins a stream.
func (s *search) reset(pos int) {
	s.pos, s.prev, s.threads, s.match = pos, -1, s.threads[:0], span{}
}

// advance looks at the text, which begins at base and contains pos, and appends the matches that are certain. From hold on there
// may yet be one. End says that nothing follows.
func (s *search) advance(text []byte, base int, end bool, found []span) (_ []span, hold int) {
	for {
		i := s.pos - base
		if len(s.threads) == 0 && s.match.end == 0 {
			i = s.skip(text, i)
			s.pos = base + i
		}
		r, width := rune(-1), 0
		switch {
		case i < len(text):
			if text[i] < utf8.RuneSelf {
				r, width = rune(text[i]), 1
			} else if end || utf8.FullRune(text[i:]) {
				r, width = utf8.DecodeRune(text[i:])
			} else {
				return found, s.hold()
			}
		case !end:
			return found, s.hold()
		}
		s.step(r)
		if width > 0 {
			s.pos += width
			s.prev = r
			s.expire()
		} else {
			s.threads = s.threads[:0]
		}
		if len(s.threads) == 0 && s.match.end > 0 {
			found = append(found, s.match)
			s.pos = s.match.end
			s.prev, _ = utf8.DecodeLastRune(text[:s.pos-base])
			s.match = span{}
			continue
		}
		if width == 0 {
			return found, s.pos
		}
	}
}

// skip returns the next place from i on where a match can begin.
func (s *search) skip(text []byte, i int) int {
	from := i
	if n := len(s.prefix); n > 1 {
		if at := bytes.Index(text[i:], s.prefix); at >= 0 {
			i += at
		} else {
			i = max(i, len(text)-n+1)
		}
	}
	for i < len(text) && !s.first[text[i]] {
		i++
	}
	if i > from {
		s.prev, _ = utf8.DecodeLastRune(text[:i])
	}
	return i
}

// step lets all threads, and one that begins here, read a rune; -1 is the end of the stream.
func (s *search) step(r rune) {
	flags := syntax.EmptyOpContext(s.prev, r)
	s.round++
	s.run = s.run[:0]
	for _, t := range s.threads {
		s.queue(t.pc, t.begin, flags)
	}
	if s.match.end == 0 {
		s.queue(uint32(s.prog.Start), s.pos, flags)
	}
	s.next = s.next[:0]
	for _, t := range s.run {
		in := &s.prog.Inst[t.pc]
		if in.Op == syntax.InstMatch {
			if t.begin < s.pos {
				s.match = span{t.begin, s.pos}
				break
			}
			continue // nothing to mask
		}
		if r >= 0 && in.MatchRune(r) {
			s.next = append(s.next, thread{in.Out, t.begin})
		}
	}
	s.threads, s.next = s.next, s.threads
}

// queue adds the instructions that read a rune, or match, and are reached from pc.
func (s *search) queue(pc uint32, begin int, flags syntax.EmptyOp) {
	if s.queued[pc] == s.round {
		return
	}
	s.queued[pc] = s.round
	switch in := &s.prog.Inst[pc]; in.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		s.queue(in.Out, begin, flags)
		s.queue(in.Arg, begin, flags)
	case syntax.InstCapture, syntax.InstNop:
		s.queue(in.Out, begin, flags)
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(in.Arg)&^flags == 0 {
			s.queue(in.Out, begin, flags)
		}
	case syntax.InstFail:
	default:
		s.run = append(s.run, thread{pc, begin})
	}
}

// expire gives up matches that are too long.
func (s *search) expire() {
	oldest := s.pos - MaxMatch
	if s.hold() < oldest {
		s.threads = slices.DeleteFunc(s.threads, func(t thread) bool { return t.begin < oldest })
		if s.match.end > 0 && s.match.begin < oldest {
			s.threads = s.threads[:0]
		}
	}
}

// hold returns where the first match begins that is not certain yet.
func (s *search) hold() int {
	hold := s.pos
	if s.match.end > 0 {
		hold = s.match.begin
	}
	for _, t := range s.threads {
		hold = min(hold, t.begin)
	}
	return hold
}
