// Package render turns entries into the bytes that a person or a program reads: raw, which is what was written, or human
// (spec archive 9).
//
// A Renderer appends what an entry adds to the output. NewReader puts one before a source of entries as an io.Reader.
// A Renderer serves one stream and one goroutine.
package render

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// Renderer renders the entries of one stream, in their order.
type Renderer interface {
	// Append appends the rendering of e to dst.
	Append(dst []byte, e *logpb.LogEntry) []byte
	// End appends what was held back to be joined with entries that did not come.
	End(dst []byte) []byte
}

// Raw renders the bytes as they were written. It holds nothing back, so one value can serve any number of streams.
type Raw struct{}

// Append implements Renderer.
func (Raw) Append(dst []byte, e *logpb.LogEntry) []byte {
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		for _, l := range c.Text.GetLines() {
			dst = append(dst, l.GetValue()...)
			dst = append(dst, l.GetDelimiter()...)
		}
	case *logpb.LogEntry_Binary:
		dst = append(dst, c.Binary.GetData()...)
	case *logpb.LogEntry_Datagram:
		dst = append(dst, c.Datagram.GetData()...)
	}
	return dst
}

// End implements Renderer.
func (Raw) End(dst []byte) []byte { return dst }

// maxDatagram is the most bytes of fragments that Human holds back; a larger datagram is shown in pieces.
const maxDatagram = 16 << 20

// Human renders text line by line, binary data in hex, and datagrams each with a title and a dump.
type Human struct {
	// Prefix, if set, appends what precedes each line of text.
	Prefix func(dst []byte, e *logpb.LogEntry, line *logpb.Text_Line) []byte
	// Datagram, if set, appends the rendering of a datagram, or declines, and the dump is used.
	Datagram func(dst, data []byte) ([]byte, bool)

	pending  []byte // fragments of a datagram
	open     bool   // pending holds a datagram that is not complete
	sequence uint64 // of the pending datagram
}

// Append implements Renderer.
func (h *Human) Append(dst []byte, e *logpb.LogEntry) []byte {
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		for _, l := range c.Text.GetLines() {
			if h.Prefix != nil {
				dst = h.Prefix(dst, e, l)
			}
			dst = append(dst, l.GetValue()...)
			dst = append(dst, '\n')
		}
	case *logpb.LogEntry_Binary:
		dst = hex.AppendEncode(dst, c.Binary.GetData())
	case *logpb.LogEntry_Datagram:
		dst = h.datagram(dst, e.GetSequence(), c.Datagram)
	}
	return dst
}

func (h *Human) datagram(dst []byte, sequence uint64, d *logpb.Datagram) []byte {
	partial := d.GetPartial()
	if partial.GetIndex() == 0 || sequence != h.sequence || len(h.pending)+len(d.GetData()) > maxDatagram {
		dst = h.End(dst) // the rest of the one before is missing
	}
	h.sequence, h.open = sequence, true
	h.pending = append(h.pending, d.GetData()...)
	if partial == nil || partial.GetLast() {
		dst = h.End(dst)
	}
	return dst
}

// End implements Renderer.
func (h *Human) End(dst []byte) []byte {
	if !h.open {
		return dst
	}
	unit := "bytes"
	if len(h.pending) == 1 {
		unit = "byte"
	}
	dst = fmt.Appendf(dst, "Datagram #%d (%d %s)\n", h.sequence, len(h.pending), unit)
	done := false
	if h.Datagram != nil {
		var custom []byte
		if custom, done = h.Datagram(nil, h.pending); done {
			dst = append(dst, custom...)
		}
	}
	if !done {
		dst = append(dst, hex.Dump(h.pending)...)
	}
	h.pending, h.open = h.pending[:0], false
	return append(dst, '\n')
}

// Source returns the next entry. It may return the last one together with io.EOF.
type Source func() (*logpb.LogEntry, error)

// NewReader returns a reader of what r renders of the entries of next. An error of the source follows the bytes before it.
func NewReader(r Renderer, next Source) io.Reader { return &reader{render: r, next: next} }

type reader struct {
	render Renderer
	next   Source
	buf    []byte // rendered, and not read yet from at on
	at     int
	err    error
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.at == len(r.buf) && r.err == nil {
		r.fill()
	}
	n := copy(p, r.buf[r.at:])
	r.at += n
	if r.at == len(r.buf) {
		return n, r.err
	}
	return n, nil
}

func (r *reader) fill() {
	e, err := r.next()
	r.buf, r.at, r.err = r.buf[:0], 0, err
	if e != nil {
		r.buf = r.render.Append(r.buf, e)
	} else if err == nil {
		r.err = errors.New("render: the source gave neither an entry nor an error")
	}
	if errors.Is(err, io.EOF) {
		r.buf, r.err = r.render.End(r.buf), io.EOF
	}
}
