package testkit

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"unicode/utf8"
)

// Kind is a kind of output that programs write.
type Kind string

const (
	// Lines are short numbered lines.
	Lines Kind = "lines"
	// LongLines are lines of 1 KiB to 256 KiB.
	LongLines Kind = "long-lines"
	// CRLF are short lines that end as on Windows, and sometimes in a lone CR or LF.
	CRLF Kind = "crlf"
	// Unicode are short lines of valid UTF-8 with characters of one to four bytes.
	Unicode Kind = "unicode"
	// InvalidUTF8 are short lines with stray, cut and overlong sequences.
	InvalidUTF8 Kind = "invalid-utf8"
	// Random is any bytes.
	Random Kind = "random"
	// Partial are short lines, of which the last has no end.
	Partial Kind = "partial"
	// OneLine is a single line with an end.
	OneLine Kind = "one-line"
)

// Kinds are all kinds.
var Kinds = []Kind{Lines, LongLines, CRLF, Unicode, InvalidUTF8, Random, Partial, OneLine}

// Content is generated output. Equal Contents are equal bytes, on every machine and in chunks of any size. The zero value
// is empty.
type Content struct {
	Kind Kind
	Seed uint64
	Size int64
}

// String names the content so that it can be generated again.
func (c Content) String() string { return fmt.Sprintf("%s/seed=%d/size=%d", c.Kind, c.Seed, c.Size) }

// Reader returns the content from its beginning.
func (c Content) Reader() io.Reader {
	return &generator{content: c, left: c.Size, rand: rand.New(rand.NewPCG(c.Seed, 0x6461_7962_6f6f_6b))}
}

type generator struct {
	content Content
	left    int64 // bytes not yet returned
	pending []byte
	buf     []byte // pending's memory
	line    int64
	rand    *rand.Rand
}

func (g *generator) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && g.left > 0 {
		if len(g.pending) == 0 {
			g.buf = g.next(g.buf[:0])
			if int64(len(g.buf)) >= g.left {
				g.buf = g.buf[:g.left]
				g.finish(g.buf)
			}
			g.pending = g.buf
		}
		m := copy(p[n:], g.pending)
		g.pending = g.pending[m:]
		g.left -= int64(m)
		n += m
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// next appends the next line, or some bytes where there are no lines.
func (g *generator) next(b []byte) []byte {
	g.line++
	switch g.content.Kind {
	case LongLines:
		return append(g.letters(b, 1<<10+g.rand.IntN(255<<10)), '\n')
	case CRLF:
		b = g.words(b)
		switch g.rand.IntN(8) {
		case 0:
			return append(b, '\r')
		case 1:
			return append(b, '\n')
		}
		return append(b, '\r', '\n')
	case Unicode:
		for range g.rand.IntN(40) {
			b = utf8.AppendRune(b, g.letter())
		}
		return append(b, '\n')
	case InvalidUTF8:
		for range g.rand.IntN(40) {
			switch g.rand.IntN(4) {
			case 0: // a character cut after any of its bytes, maybe all
				from := len(b)
				b = utf8.AppendRune(b, g.letter())
				b = b[:from+1+g.rand.IntN(len(b)-from)]
			case 1: // a continuation of nothing
				b = append(b, 0x80|byte(g.rand.IntN(64)))
			case 2: // an overlong or impossible first byte
				b = append(b, 0xc0, 0xf8|byte(g.rand.IntN(8)))
			default:
				b = append(b, 'a'+byte(g.rand.IntN(26)))
			}
		}
		return append(b, '\n')
	case Random:
		for range 512 {
			v := g.rand.Uint64()
			b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
		}
		return b
	case OneLine:
		return g.letters(b, 4<<10)
	default:
		return append(g.words(b), '\n')
	}
}

// finish makes the last bytes of all what the kind promises.
func (g *generator) finish(b []byte) {
	last := &b[len(b)-1]
	switch g.content.Kind {
	case Random, InvalidUTF8:
	case Unicode:
		// The cut may have left part of a character.
		for i := range b {
			b[i] = 'x'
		}
		*last = '\n'
	case Partial:
		*last = '.'
	case CRLF:
		*last = '\n'
		if len(b) > 1 {
			b[len(b)-2] = '\r'
		}
	default:
		*last = '\n'
	}
}

// words appends the line's number, by which a difference shows where it belongs, and a few letters.
func (g *generator) words(b []byte) []byte {
	b = strconv.AppendInt(b, g.line, 10)
	return g.letters(append(b, ' '), g.rand.IntN(16))
}

func (g *generator) letters(b []byte, n int) []byte {
	for n > 0 {
		v := g.rand.Uint64()
		for i := 0; i < 8 && n > 0; i++ {
			b = append(b, "abcdefghijklmnopqrstuvwxyz -_.:/"[v&31])
			v >>= 8
			n--
		}
	}
	return b
}

// letter returns a character of one to four bytes that is no line's end.
func (g *generator) letter() rune {
	switch g.rand.IntN(4) {
	case 0:
		return 'a' + g.rand.Int32N(26)
	case 1:
		return 0x80 + g.rand.Int32N(0x780)
	case 2:
		return 0x2000 + g.rand.Int32N(0x8000)
	default:
		return 0x1f300 + g.rand.Int32N(0x300)
	}
}
