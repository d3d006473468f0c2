package render_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/render"
)

// source gives entries; the last with io.EOF if eager.
func source(entries []*logpb.LogEntry, eager bool) render.Source {
	return func() (*logpb.LogEntry, error) {
		if len(entries) == 0 {
			return nil, io.EOF
		}
		e := entries[0]
		entries = entries[1:]
		if eager && len(entries) == 0 {
			return e, io.EOF
		}
		return e, nil
	}
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/archive.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			Name    string
			Entries []struct {
				Proto []byte `json:"proto_b64"`
			}
			Raw   []byte `json:"rendered_raw_b64"`
			Human []byte `json:"rendered_human_b64"`
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, c := range vectors.Cases {
		var entries []*logpb.LogEntry
		for _, v := range c.Entries {
			e := new(logpb.LogEntry)
			if err := proto.Unmarshal(v.Proto, e); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		for _, eager := range []bool{false, true} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader,
			} {
				t.Run(fmt.Sprintf("%s/%v/%s", c.Name, eager, name), func(t *testing.T) {
					got, err := io.ReadAll(wrap(render.NewReader(render.Raw{}, source(entries, eager))))
					if err != nil || !bytes.Equal(got, c.Raw) {
						t.Errorf("raw = %q, %v; want %q", got, err, c.Raw)
					}
					got, err = io.ReadAll(wrap(render.NewReader(&render.Human{}, source(entries, eager))))
					if err != nil || !bytes.Equal(got, c.Human) {
						t.Errorf("human = %q, %v; want %q", got, err, c.Human)
					}
				})
			}
		}
	}
}

func datagram(sequence uint64, data string, partial *logpb.Datagram_Partial) *logpb.LogEntry {
	return &logpb.LogEntry{Sequence: sequence, Content: &logpb.LogEntry_Datagram{
		Datagram: &logpb.Datagram{Data: []byte(data), Partial: partial},
	}}
}

func text(value string) *logpb.LogEntry {
	return &logpb.LogEntry{Content: &logpb.LogEntry_Text{
		Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: []byte(value), Delimiter: "\x00"}}},
	}}
}

func TestHuman(t *testing.T) {
	custom := func(dst, data []byte) ([]byte, bool) {
		return append(dst, "<"+string(data)+">"...), string(data) != "x"
	}
	dump := func(s string) string { return fmt.Sprintf("00000000  %-50s|%s|\n\n", fmt.Sprintf("% x", s), s) }
	for _, c := range []struct {
		name    string
		human   render.Human
		entries []*logpb.LogEntry
		want    string
	}{
		{name: "no entries"},
		{name: "no content", entries: []*logpb.LogEntry{{}}},
		{
			name: "one byte, empty", entries: []*logpb.LogEntry{datagram(3, "a", nil), datagram(4, "", nil)},
			want: "Datagram #3 (1 byte)\n" + dump("a") + "Datagram #4 (0 bytes)\n\n",
		},
		{
			name: "custom, declined", human: render.Human{Datagram: custom}, entries: []*logpb.LogEntry{datagram(0, "y", nil), datagram(1, "x", nil)},
			want: "Datagram #0 (1 byte)\n<y>\nDatagram #1 (1 byte)\n" + dump("x"),
		},
		{name: "last fragment missing", entries: []*logpb.LogEntry{
			datagram(0, "ab", &logpb.Datagram_Partial{}), datagram(1, "cd", &logpb.Datagram_Partial{}),
			datagram(1, "ef", &logpb.Datagram_Partial{Index: 1, Last: true}),
		}, want: "Datagram #0 (2 bytes)\n" + dump("ab") + "Datagram #1 (4 bytes)\n" + dump("cdef")},
		{
			name: "end missing", entries: []*logpb.LogEntry{datagram(0, "ab", &logpb.Datagram_Partial{})},
			want: "Datagram #0 (2 bytes)\n" + dump("ab"),
		},
		{name: "prefix", human: render.Human{Prefix: func(dst []byte, _ *logpb.LogEntry, l *logpb.Text_Line) []byte {
			return fmt.Appendf(dst, "%d: ", len(l.GetValue()))
		}}, entries: []*logpb.LogEntry{text("one"), text("")}, want: "3: one\n0: \n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := io.ReadAll(render.NewReader(&c.human, source(c.entries, false)))
			if err != nil || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestSourceFails(t *testing.T) {
	broken := errors.New("broken")
	entries := source([]*logpb.LogEntry{text("x")}, false)
	got, err := io.ReadAll(render.NewReader(render.Raw{}, func() (*logpb.LogEntry, error) {
		if e, err := entries(); err == nil {
			return e, nil
		}
		return nil, broken
	}))
	if !errors.Is(err, broken) || string(got) != "x\x00" {
		t.Errorf("read %q, %v", got, err)
	}
	_, err = io.ReadAll(render.NewReader(render.Raw{}, func() (*logpb.LogEntry, error) { return nil, nil }))
	if err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("a source that gives nothing: %v", err)
	}
}
