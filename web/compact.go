package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// The compact form of entries, for browsers (docs/api.md). Bytes of text that are no UTF-8 become U+FFFD here; the exact
// bytes are the business of ?format=raw.
type (
	compactEntry struct {
		// Index is the entry's index in the stream.
		Index uint64 `json:"i"`
		// Millis is the entry's time, in milliseconds after the stream's.
		Millis int64 `json:"t"`
		// Line is the number, counted from 1, of the first line.
		Line  uint64        `json:"n,omitempty"`
		Lines []compactLine `json:"l,omitempty"`
		// Data is the content of an entry that is not text.
		Data     []byte           `json:"b,omitempty"`
		Datagram *compactDatagram `json:"g,omitempty"`
	}
	compactLine struct {
		Value     string `json:"v"`
		Delimiter string `json:"d"`
	}
	compactDatagram struct {
		Number uint64 `json:"n"`
		// Index, Size and Last are of a fragment.
		Index uint32 `json:"i"`
		Size  uint64 `json:"s"`
		Last  bool   `json:"last"`
	}
)

// compact returns e without its lines.
func compact(e *logpb.LogEntry) compactEntry {
	c := compactEntry{Index: e.GetStreamIndex(), Millis: e.GetTimeOffset().AsDuration().Milliseconds()}
	switch content := e.Content.(type) {
	case *logpb.LogEntry_Binary:
		c.Data = content.Binary.GetData()
	case *logpb.LogEntry_Datagram:
		c.Data = content.Datagram.GetData()
		c.Datagram = &compactDatagram{Number: e.GetSequence(), Size: uint64(len(c.Data)), Last: true}
		if p := content.Datagram.GetPartial(); p != nil {
			c.Datagram.Index, c.Datagram.Size, c.Datagram.Last = p.GetIndex(), p.GetSize(), p.GetLast()
		}
	}
	return c
}

// position is a place between two lines or entries of a stream: what comes next is the entry at index, without its lines that are
// numbered below line. A line of zero is the whole entry.
type position struct{ index, line int64 }

// String returns the form that clients see and send back.
func (p position) String() string {
	if p.line > 0 {
		return fmt.Sprintf("%d.%d", p.index, p.line)
	}
	return strconv.FormatInt(p.index, 10)
}

func parsePosition(s string) (position, bool) {
	index, line, split := strings.Cut(s, ".")
	var p position
	var err error
	if p.index, err = strconv.ParseInt(index, 10, 64); err != nil || p.index < 0 {
		return position{}, false
	}
	if split {
		if p.line, err = strconv.ParseInt(line, 10, 64); err != nil || p.line < 1 {
			return position{}, false
		}
	}
	return p, true
}

// batch collects entries, and the ranges missing between them, as one JSON object {"m":[[first,last],…],"e":[…]}. An entry of many
// lines is split between batches.
type batch struct {
	missing [][2]int64
	entries bytes.Buffer
	encoder *json.Encoder
	// next is where the batch ends, and so where the next one begins.
	next position
	// lines counts those in the batch.
	lines int
}

func newBatch(begin position) *batch {
	b := &batch{next: begin}
	b.encoder = json.NewEncoder(&b.entries)
	b.encoder.SetEscapeHTML(false)
	return b
}

// addMissing adds what of the ranges the client has not seen.
func (b *batch) addMissing(ranges []*daybookv1.IndexRange) {
	for _, m := range ranges {
		if first := max(m.GetFirst(), b.next.index); first <= m.GetLast() {
			b.missing = append(b.missing, [2]int64{first, m.GetLast()})
			b.next = position{index: m.GetLast() + 1, line: b.next.line}
		}
	}
}

// limits say when a batch is full. An entry that is not text, and a line, are never split.
type limits struct{ bytes, lines int }

func (b *batch) full(l limits) bool { return b.entries.Len() >= l.bytes || b.lines >= l.lines }

// add adds what of e lies at or after next, until the batch is full or the line numbered until is reached (0 is never), and reports
// whether that was all of e.
func (b *batch) add(e *logpb.LogEntry, l limits, until int64) (all bool, err error) {
	index := int64(e.GetStreamIndex())
	c := compact(e)
	text, isText := e.Content.(*logpb.LogEntry_Text)
	if isText {
		lines := text.Text.GetLines()
		number := int64(e.GetSequence()) + 1
		if skip := b.next.line - number; skip > 0 {
			skip = min(skip, int64(len(lines)))
			lines, number = lines[skip:], number+skip
		}
		c.Line = uint64(number)
		size := b.entries.Len()
		for len(lines) > 0 && (until == 0 || number < until) && size < l.bytes && b.lines < l.lines {
			v := lines[0].GetValue()
			c.Lines = append(c.Lines, compactLine{string(v), lines[0].GetDelimiter()})
			size += len(v) + len(`{"v":"","d":"\n"},`)
			lines = lines[1:]
			number++
			b.lines++
		}
		if len(lines) > 0 {
			b.next = position{index, number}
		} else {
			if l := text.Text.GetLines(); len(l) > 0 && l[len(l)-1].GetDelimiter() == "" {
				number-- // the next entry goes on with the last line
			}
			b.next = position{index: index + 1, line: b.keepLine(number)}
			all = true
		}
		if len(c.Lines) == 0 {
			return all, nil
		}
	} else {
		b.next = position{index: index + 1}
		all = true
	}
	if b.entries.Len() > 0 {
		b.entries.WriteByte(',')
	}
	if err := b.encoder.Encode(c); err != nil {
		return false, fmt.Errorf("encode entry %d: %w", index, err)
	}
	b.entries.Truncate(b.entries.Len() - 1) // the encoder's line feed
	return all, nil
}

// keepLine returns the line that next has to wait for still, when the next entry begins with line number.
func (b *batch) keepLine(number int64) int64 {
	if b.next.line > number {
		return b.next.line
	}
	return 0
}

func (b *batch) empty() bool { return b.entries.Len() == 0 && len(b.missing) == 0 }

// appendTo appends the fields of the object, without braces, and empties the batch.
func (b *batch) appendTo(out *bytes.Buffer) error {
	if len(b.missing) > 0 {
		m, err := json.Marshal(b.missing)
		if err != nil {
			return fmt.Errorf("encode missing ranges: %w", err)
		}
		out.WriteString(`"m":`)
		out.Write(m)
		out.WriteByte(',')
	}
	out.WriteString(`"e":[`)
	out.Write(b.entries.Bytes())
	out.WriteByte(']')
	b.missing = b.missing[:0]
	b.entries.Reset()
	b.lines = 0
	return nil
}
