package bundler

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// parsing drives a parser as the bundler does, block by block.
type parsing struct {
	q   queue
	p   parser
	mem *memory
	// next is the next entry's index.
	next uint64
}

func newParsing(t logpb.StreamType) *parsing {
	return &parsing{p: newParser(t), mem: &memory{limit: 1 << 40}}
}

// push appends a chunk in blocks of at most the given size.
func (r *parsing) push(data []byte, at time.Duration, size int) {
	for len(data) > 0 {
		n := min(size, len(data))
		b := &block{data: data[:n:n], mem: r.mem}
		b.retain()
		r.q.push(segment{blk: b, hi: n, at: at})
		data = data[n:]
	}
}

// entries returns copies of the entries that the parser has.
func (r *parsing) entries(lim limits, aggressive, closed bool) ([]*logpb.LogEntry, error) {
	a := new(arena)
	defer a.release()
	var out []*logpb.LogEntry
	for {
		s, err := r.p.next(&r.q, lim, aggressive, closed, a)
		if s == nil || err != nil {
			return out, err
		}
		s.entry.StreamIndex = r.next
		r.next++
		s.offset.Seconds, s.offset.Nanos = int64(s.at/time.Second), int32(s.at%time.Second)
		s.entry.TimeOffset = &s.offset
		out = append(out, proto.CloneOf(&s.entry))
	}
}

type vectorEntry struct {
	StreamIndex  uint64 `json:"stream_index"`
	Sequence     uint64 `json:"sequence"`
	TimeOffsetMS int64  `json:"time_offset_ms"`
	Lines        []struct {
		ValueHex  string `json:"value_hex"`
		Delimiter string `json:"delimiter"`
	} `json:"lines"`
	DataHex string `json:"data_hex"`
	Partial *struct {
		Index uint32 `json:"index"`
		Size  uint64 `json:"size"`
		Last  bool   `json:"last"`
	} `json:"partial"`
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v *vectorEntry) proto(t *testing.T, typ logpb.StreamType) *logpb.LogEntry {
	at := time.Duration(v.TimeOffsetMS) * time.Millisecond
	e := &logpb.LogEntry{StreamIndex: v.StreamIndex, Sequence: v.Sequence}
	s := slot{at: at}
	s.offset.Seconds, s.offset.Nanos = int64(at/time.Second), int32(at%time.Second)
	e.TimeOffset = &s.offset
	switch typ {
	case logpb.StreamType_TEXT:
		text := new(logpb.Text)
		for _, l := range v.Lines {
			text.Lines = append(text.Lines, &logpb.Text_Line{Value: fromHex(t, l.ValueHex), Delimiter: l.Delimiter})
		}
		e.Content = &logpb.LogEntry_Text{Text: text}
	case logpb.StreamType_BINARY:
		e.Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: fromHex(t, v.DataHex)}}
	case logpb.StreamType_DATAGRAM:
		d := &logpb.Datagram{Data: fromHex(t, v.DataHex)}
		if p := v.Partial; p != nil {
			d.Partial = &logpb.Datagram_Partial{Index: p.Index, Size: p.Size, Last: p.Last}
		}
		e.Content = &logpb.LogEntry_Datagram{Datagram: d}
	}
	return e
}

// wire is the comparison that matters.
func wire(t *testing.T, e *logpb.LogEntry) string {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// repaired are the cases in which the reference never finishes a stream: what we do instead, as the values of the entries.
var repaired = map[string][]string{
	"text_invalid_utf8_tail":     {"abc\xff"},
	"text_replacement_char_tail": {"abc\ufffd"},
	"datagram_header_incomplete": nil,
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/bundler_entries.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Name       string `json:"name"`
			StreamType string `json:"stream_type"`
			Steps      []struct {
				Append []struct {
					Hex  string `json:"hex"`
					AtMS int64  `json:"at_ms"`
				} `json:"append"`
				Limit      int           `json:"limit"`
				Aggressive bool          `json:"aggressive"`
				Closed     bool          `json:"closed"`
				Entries    []vectorEntry `json:"entries"`
				Left       int           `json:"bytes_left_in_buffer"`
				Error      string        `json:"error"`
			} `json:"steps"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != 31 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	for _, c := range file.Cases {
		// The size of the blocks must not matter.
		for _, size := range []int{1 << 20, 2, 1} {
			t.Run(c.Name, func(t *testing.T) {
				typ := logpb.StreamType(logpb.StreamType_value[c.StreamType])
				r := newParsing(typ)
				for i, step := range c.Steps {
					for _, ch := range step.Append {
						r.push(fromHex(t, ch.Hex), time.Duration(ch.AtMS)*time.Millisecond, size)
					}
					got, err := r.entries(limits{raw: step.Limit, encoded: 1 << 30}, step.Aggressive, step.Closed)
					if want, ok := repaired[c.Name]; ok {
						var values []string
						for _, e := range got {
							values = append(values, string(e.GetText().GetLines()[0].GetValue()))
						}
						if diff := cmp.Diff(want, values); diff != "" || r.q.size != 0 {
							t.Fatalf("%d bytes left; (-want +got)\n%s", r.q.size, diff)
						}
						return
					}
					if (step.Error != "") != (err != nil) || err != nil && !errors.Is(err, errDatagramTooLarge) {
						t.Fatalf("step %d: %v, want error %q", i, err, step.Error)
					}
					var want, have []string
					for _, e := range step.Entries {
						want = append(want, wire(t, e.proto(t, typ)))
					}
					for _, e := range got {
						have = append(have, wire(t, e))
					}
					if diff := cmp.Diff(want, have); diff != "" {
						t.Fatalf("step %d: (-want +got)\n%s", i, diff)
					}
					if r.q.size != step.Left {
						t.Fatalf("step %d: %d bytes left, want %d", i, r.q.size, step.Left)
					}
				}
			})
		}
	}
}

func TestDatagramLengthOverflow(t *testing.T) {
	for _, in := range []string{"ffffffffffffffffffff01", "ffffffffffffffffff7f", "8080808080808080808080"} {
		r := newParsing(logpb.StreamType_DATAGRAM)
		r.push(fromHex(t, in), 0, 3)
		if _, err := r.entries(limits{raw: 100, encoded: 100}, true, false); !errors.Is(err, errDatagramTooLarge) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// chunks cuts data into runs of random length and time.
func chunks(t *rapid.T, data []byte, push func([]byte, time.Duration)) {
	at := time.Duration(0)
	for len(data) > 0 {
		n := min(len(data), rapid.SampledFrom([]int{1, 2, 3, 7, 64, 500}).Draw(t, "chunk"))
		push(data[:n], at)
		data = data[n:]
		at += time.Duration(rapid.IntRange(0, 1).Draw(t, "time"))
	}
}

// pieces are what makes text difficult.
var pieces = rapid.SampledFrom([]string{
	"\n", "\r", "\r\n", "a", "word", "ü", "→", "😀", "\xff", "\xe2\x86", "\xf0\x9f\x98", "\x80", "\ufffd",
	"a rather long run of text without any line break",
})

// parseAll gives random chunks to a parser with random limits and returns all entries.
func parseAll(t *rapid.T, typ logpb.StreamType, data []byte) []*logpb.LogEntry {
	r := newParsing(typ)
	blockSize := rapid.SampledFrom([]int{1, 3, 16, 1000}).Draw(t, "block")
	var out []*logpb.LogEntry
	ask := func(closed bool) {
		lim := limits{raw: rapid.IntRange(4, 300).Draw(t, "raw"), encoded: rapid.IntRange(60, 400).Draw(t, "encoded")}
		aggressive := closed || rapid.Bool().Draw(t, "aggressive")
		got, err := r.entries(lim, aggressive, closed)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got {
			content := proto.Size(e.GetText()) + proto.Size(e.GetBinary()) + proto.Size(e.GetDatagram())
			if content > lim.encoded {
				t.Fatalf("content of %d bytes, limit %d", content, lim.encoded)
			}
		}
		out = append(out, got...)
	}
	chunks(t, data, func(b []byte, at time.Duration) {
		r.push(b, at, blockSize)
		if rapid.Bool().Draw(t, "ask") {
			ask(false)
		}
	})
	ask(true)
	if r.q.size != 0 {
		t.Fatalf("%d bytes left at the end", r.q.size)
	}
	return out
}

func TestTextProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		for range rapid.IntRange(0, 60).Draw(t, "pieces") {
			data = append(data, pieces.Draw(t, "piece")...)
		}
		var got []byte
		lines := uint64(0)
		for _, e := range parseAll(t, logpb.StreamType_TEXT, data) {
			if e.GetSequence() != lines {
				t.Fatalf("entry %d: sequence %d, want %d", e.GetStreamIndex(), e.GetSequence(), lines)
			}
			ls := e.GetText().GetLines()
			if len(ls) == 0 {
				t.Fatalf("entry %d has no lines", e.GetStreamIndex())
			}
			for i, l := range ls {
				got = append(append(got, l.GetValue()...), l.GetDelimiter()...)
				switch l.GetDelimiter() {
				case "\n", "\r\n":
					lines++
				case "":
					if i != len(ls)-1 || len(l.GetValue()) == 0 {
						t.Fatalf("entry %d: unfinished line %d of %d, %q", e.GetStreamIndex(), i, len(ls), l.GetValue())
					}
				}
			}
		}
		if diff := cmp.Diff(data, got, cmp.Transformer("string", func(b []byte) string { return string(b) })); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestBinaryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "data")
		var got []byte
		for _, e := range parseAll(t, logpb.StreamType_BINARY, data) {
			if e.GetSequence() != uint64(len(got)) {
				t.Fatalf("sequence %d at %d", e.GetSequence(), len(got))
			}
			got = append(got, e.GetBinary().GetData()...)
		}
		if string(got) != string(data) {
			t.Fatalf("%q, want %q", got, data)
		}
	})
}

func TestDatagramProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		var want []string
		for range rapid.IntRange(0, 10).Draw(t, "datagrams") {
			d := rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "datagram")
			data = append(binary.AppendUvarint(data, uint64(len(d))), d...)
			want = append(want, string(d))
		}
		var got []string
		var pending []byte
		next := uint32(0)
		for _, e := range parseAll(t, logpb.StreamType_DATAGRAM, data) {
			if e.GetSequence() != uint64(len(got)) {
				t.Fatalf("sequence %d after %d datagrams", e.GetSequence(), len(got))
			}
			pending = append(pending, e.GetDatagram().GetData()...)
			p := e.GetDatagram().GetPartial()
			if p == nil && next > 0 || p != nil && (p.GetIndex() != next || int(p.GetSize()) != len(want[len(got)])) {
				t.Fatalf("fragment %d: %v", next, p)
			}
			next++
			if p == nil || p.GetLast() {
				got = append(got, string(pending))
				pending, next = nil, 0
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(pending) > 0 {
			t.Fatalf("%d bytes of a datagram without end\n%s", len(pending), diff)
		}
	})
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte("a\r\nb"), uint8(0), uint8(3))
	f.Add([]byte{5, 1, 2, 0x80}, uint8(2), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, typ, size uint8) {
		st := logpb.StreamType(typ % 3)
		r := newParsing(st)
		r.push(data, 0, int(size)+1)
		got, err := r.entries(limits{raw: 64, encoded: 128}, true, true)
		if err == nil && r.q.size != 0 {
			t.Fatalf("%d bytes left", r.q.size)
		}
		n := 0
		for _, e := range got {
			if err := logpb.ValidateEntry(e, &logpb.LogStreamDescriptor{StreamType: st}); err != nil {
				t.Fatal(err)
			}
			n += len(e.GetBinary().GetData()) + len(e.GetDatagram().GetData())
			for _, l := range e.GetText().GetLines() {
				n += len(l.GetValue()) + len(l.GetDelimiter())
			}
		}
		if st != logpb.StreamType_DATAGRAM && n != len(data) {
			t.Fatalf("%d of %d bytes", n, len(data))
		}
	})
}
