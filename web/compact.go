package web

import (
	"bytes"
	"encoding/json"
	"fmt"

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

func compact(e *logpb.LogEntry) compactEntry {
	c := compactEntry{Index: e.GetStreamIndex(), Millis: e.GetTimeOffset().AsDuration().Milliseconds()}
	switch content := e.Content.(type) {
	case *logpb.LogEntry_Text:
		c.Line = e.GetSequence() + 1
		c.Lines = make([]compactLine, len(content.Text.GetLines()))
		for i, l := range content.Text.GetLines() {
			c.Lines[i] = compactLine{string(l.GetValue()), l.GetDelimiter()}
		}
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

// batch collects entries, and the ranges missing before them, as one JSON object {"m":[[first,last],…],"e":[…]}.
type batch struct {
	missing [][2]int64
	entries bytes.Buffer
	encoder *json.Encoder
	// next is one past the index of the last entry or range added.
	next int64
}

func newBatch() *batch {
	b := new(batch)
	b.encoder = json.NewEncoder(&b.entries)
	b.encoder.SetEscapeHTML(false)
	return b
}

// addMissing adds what of the ranges lies in [from, until).
func (b *batch) addMissing(ranges []*daybookv1.IndexRange, from, until int64) {
	for _, m := range ranges {
		first, last := max(m.GetFirst(), from), min(m.GetLast(), until-1)
		if first <= last {
			b.missing = append(b.missing, [2]int64{first, last})
			b.next = max(b.next, last+1)
		}
	}
}

func (b *batch) add(e *logpb.LogEntry) error {
	if b.entries.Len() > 0 {
		b.entries.WriteByte(',')
	}
	if err := b.encoder.Encode(compact(e)); err != nil {
		return fmt.Errorf("encode entry %d: %w", e.GetStreamIndex(), err)
	}
	b.entries.Truncate(b.entries.Len() - 1) // the encoder's line feed
	b.next = max(b.next, int64(e.GetStreamIndex())+1)
	return nil
}

func (b *batch) empty() bool { return b.entries.Len() == 0 && len(b.missing) == 0 }

func (b *batch) size() int { return b.entries.Len() }

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
	return nil
}
