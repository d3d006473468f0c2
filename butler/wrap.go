package butler

import (
	"fmt"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// wrap returns a callback that passes only complete lines or datagrams on to cb. It panics when it gets what no bundler
// produces.
func wrap(cb StreamChunkCallback, t logpb.StreamType) StreamChunkCallback {
	switch t {
	case logpb.StreamType_TEXT:
		return (&textWrapper{cb: cb}).entry
	case logpb.StreamType_DATAGRAM:
		return (&datagramWrapper{cb: cb}).entry
	default:
		return cb
	}
}

type textWrapper struct {
	cb StreamChunkCallback
	// pending is the beginning of a line whose end has not come; unfinished says that there is one.
	pending    []byte
	unfinished bool
	// index and lines count the calls and the lines so far.
	index, lines uint64
	ended        bool
}

func (w *textWrapper) entry(e *logpb.LogEntry) {
	if w.ended {
		panic("entry after the end")
	}
	if e == nil {
		w.ended = true
		if w.unfinished {
			w.pass([]*logpb.Text_Line{{Value: w.pending}})
		}
		w.cb(nil)
		return
	}
	lines := e.GetText().GetLines()
	if len(lines) == 0 {
		panic(fmt.Sprintf("entry %d of a text stream has no text", e.GetStreamIndex()))
	}
	if last := lines[len(lines)-1]; last.GetDelimiter() == "" {
		// A lone unfinished line continues the one before it.
		lines = lines[:len(lines)-1]
		defer func() {
			w.pending = append(w.pending, last.GetValue()...)
			w.unfinished = true
		}()
	}
	for _, l := range lines {
		if l.GetDelimiter() == "" {
			panic(fmt.Sprintf("unfinished line within entry %d", e.GetStreamIndex()))
		}
	}
	if len(lines) == 0 {
		return
	}
	if w.unfinished {
		lines[0].Value = append(w.pending, lines[0].Value...)
		w.pending, w.unfinished = nil, false
	}
	w.pass(lines)
}

func (w *textWrapper) pass(lines []*logpb.Text_Line) {
	e := &logpb.LogEntry{
		StreamIndex: w.index, Sequence: w.lines,
		Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: lines}},
	}
	w.index++
	w.lines += uint64(len(lines))
	w.cb(e)
}

type datagramWrapper struct {
	cb StreamChunkCallback
	// pending has the fragments of a datagram so far; fragments is their number.
	pending   []byte
	fragments uint32
	index     uint64
	ended     bool
}

func (w *datagramWrapper) entry(e *logpb.LogEntry) {
	if w.ended {
		panic("entry after the end")
	}
	if e == nil {
		w.ended = true
		w.cb(nil)
		return
	}
	d := e.GetDatagram()
	if d == nil {
		panic(fmt.Sprintf("entry %d of a datagram stream has no datagram", e.GetStreamIndex()))
	}
	data := d.GetData()
	if p := d.GetPartial(); p.GetIndex() != w.fragments {
		panic(fmt.Sprintf("fragment %d of a datagram where fragment %d belongs", p.GetIndex(), w.fragments))
	} else if p != nil {
		w.pending = append(w.pending, data...)
		w.fragments++
		if !p.GetLast() {
			return
		}
		data, w.pending, w.fragments = w.pending, nil, 0
	}
	e = &logpb.LogEntry{
		StreamIndex: w.index, Sequence: w.index,
		Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: data}},
	}
	w.index++
	w.cb(e)
}
