package collector

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// FuzzCountLines compares the lines that are counted with those of the generated decoder.
func FuzzCountLines(f *testing.F) {
	long := strings.Repeat("x", 130)
	for _, l := range [][2]string{{"a", "\n"}, {"", "\n"}, {"a", ""}, {"", ""}, {"a", "\r\n"}, {"\x12\x01\n", "\n"}, {long, "\n"}, {strings.Repeat("x", 1<<14), "\n"}, {"a", "x"}} {
		one := &logpb.Text_Line{Value: []byte(l[0]), Delimiter: l[1]}
		b, err := proto.Marshal(&logpb.Text{Lines: []*logpb.Text_Line{one, {Value: []byte(long), Delimiter: "\n"}, one}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("\x0a\x06\x0a\x01a\x12\x01\xff"))
	f.Add([]byte("\x0a\x07\x0a\x02a\x12\x01\x0a\x12"))
	f.Add([]byte("\x0a\x86\x00\x0a\x01a\x12\x01\x0a\x0a\x80\x01\x0a\x01a\x12\x01\x0a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want logpb.Text
		wantErr := proto.Unmarshal(b, &want)
		got, err := countLines(b)
		if (err == nil) != (wantErr == nil) || err == nil && got != len(want.GetLines()) {
			t.Fatalf("%d lines, error %v; want %d, error %v", got, err, len(want.GetLines()), wantErr)
		}
	})
}

// parseBundle decodes a serialized bundle.
func parseBundle(body []byte) (*bundle, error) {
	b := new(bundle)
	return b, b.parse(body)
}

// BenchmarkCountLines counts the lines of an entry with lines of 7 bytes.
func BenchmarkCountLines(b *testing.B) {
	text := bytes.Repeat([]byte("\x0a\x0c\x0a\x07abcdefg\x12\x01\x0a"), 2000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if n, err := countLines(text); n != 2000 || err != nil {
			b.Fatal(n, err)
		}
	}
}

// FuzzParseBundle compares the parser with the generated decoder and the validation of decoded entries.
func FuzzParseBundle(f *testing.F) {
	for _, msg := range sampleBundles() {
		b, err := proto.Marshal(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x1a\x04\x2a\x02\x52\x00"))
	f.Add([]byte("\x1a\x06\x2a\x04\x52\x02\x0a\x00"))
	f.Add([]byte("\x1a\x0b\x2a\x09\x52\x02\x0a\x00\x5a\x00\x52\x01\x0a"))
	f.Add([]byte("\x0b\x0c"))
	f.Add([]byte("\x1a\x02\x18\x01\x1a\x04\xc8\x3e\x01\x18\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		want := new(logpb.ButlerLogBundle)
		wantErr := proto.Unmarshal(body, want)
		got, err := parseBundle(bytes.Clone(body))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		if err != nil {
			return
		}
		if string(got.project) != want.GetProject() || string(got.prefix) != want.GetPrefix() || !bytes.Equal(got.secret, want.GetSecret()) {
			t.Fatalf("project %q, prefix %q, secret %x", got.project, got.prefix, got.secret)
		}
		if got.entries != len(want.GetEntries()) {
			t.Fatalf("%d entries, want %d", got.entries, len(want.GetEntries()))
		}
		runs := got.runs
		for _, e := range want.GetEntries() {
			if len(e.GetLogs()) == 0 && !e.GetTerminal() && !e.GetAnnounce() {
				continue
			}
			if len(runs) == 0 {
				t.Fatalf("no run for %v", e)
			}
			compareRun(t, runs[0], e)
			runs = runs[1:]
		}
		if len(runs) > 0 {
			t.Fatalf("%d runs too many", len(runs))
		}
	})
}

func compareRun(t *testing.T, r *run, e *logpb.ButlerLogBundle_Entry) {
	t.Helper()
	if (r.desc == nil) != (e.Desc == nil) || !proto.Equal(r.desc, e.Desc) {
		t.Fatalf("descriptor %v, want %v", r.desc, e.Desc)
	}
	if r.terminal != e.GetTerminal() {
		t.Fatalf("terminal is %v, want %v", r.terminal, e.GetTerminal())
	}
	if r.err == nil && e.GetTerminal() && (r.end < 0) != e.GetTerminalEmpty() {
		t.Fatalf("end %d, empty is %v", r.end, e.GetTerminalEmpty())
	}
	if !proto.Equal(r.ended, e.GetEnded()) {
		t.Fatalf("end %v, want %v", r.ended, e.GetEnded())
	}
	if _, known := logpb.StreamType_name[int32(e.GetDesc().GetStreamType())]; !known {
		return // refused by its descriptor
	}
	bad := e.GetTerminal() && (e.GetTerminalEmpty() && len(e.GetLogs()) > 0 || !e.GetTerminalEmpty() && int64(e.GetTerminalIndex()) < 0)
	for k, log := range e.GetLogs() {
		index := e.GetLogs()[0].GetStreamIndex() + uint64(k)
		bad = bad || log.GetStreamIndex() != index || int64(index) < 0 || logpb.ValidateEntry(log, e.GetDesc()) != nil
	}
	if (r.err != nil) != bad {
		t.Fatalf("error %v, but bad is %v: %v", r.err, bad, e)
	}
	if bad {
		if r.values != nil {
			t.Fatal("a bad run keeps its values")
		}
		return
	}
	if len(r.values) != len(e.GetLogs()) {
		t.Fatalf("%d values, want %d", len(r.values), len(e.GetLogs()))
	}
	for k, v := range r.values {
		log := new(logpb.LogEntry)
		if err := proto.Unmarshal(v, log); err != nil || !proto.Equal(log, e.GetLogs()[k]) || uint64(r.first)+uint64(k) != log.GetStreamIndex() {
			t.Fatalf("value %d: %v, %v; want %v", k, log, err, e.GetLogs()[k])
		}
	}
}

// sampleBundles returns bundles with everything that a bundle can hold.
func sampleBundles() []*logpb.ButlerLogBundle {
	at := timestamppb.New(testTime)
	desc := func(name string, typ logpb.StreamType) *logpb.LogStreamDescriptor {
		return &logpb.LogStreamDescriptor{Name: name, StreamType: typ, ContentType: "x/y", Timestamp: at, Tags: map[string]string{"k": "v"}}
	}
	return []*logpb.ButlerLogBundle{
		{
			DeprecatedSource: "s", Timestamp: at, Project: "p", Prefix: "a/b", Secret: testSecret,
			Entries: []*logpb.ButlerLogBundle_Entry{
				{Desc: desc("text", 0), Logs: []*logpb.LogEntry{text(7, "one\n", "two\r\n", "thr"), text(8, "ee\n")}, DeprecatedEntrySecret: []byte("x")},
				{Desc: desc("binary", 1), Terminal: true, TerminalIndex: 0, Logs: []*logpb.LogEntry{
					{Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte{0, 255}}}},
				}},
				{Desc: desc("datagram", 2), Logs: []*logpb.LogEntry{
					{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Partial: &logpb.Datagram_Partial{Index: 1, Size: 2, Last: true}}}},
				}},
				{Desc: desc("empty", 0), Terminal: true, TerminalEmpty: true, Ended: &logpb.StreamEnd{Reason: "killed", Tags: map[string]string{"k": "v"}}},
				{Desc: desc("announced", 0), Announce: true},
				{Desc: desc("junk", 0)},
			},
		},
		{Entries: []*logpb.ButlerLogBundle_Entry{
			{Terminal: true, TerminalIndex: 1 << 63},
			{Logs: []*logpb.LogEntry{text(1, "x"), text(3, "y")}},
			{Logs: []*logpb.LogEntry{{StreamIndex: 1<<63 - 1}, {StreamIndex: 1 << 63}}},
			{Desc: desc("d", 9), Logs: []*logpb.LogEntry{{TimeOffset: durationpb.New(-5), ContentOffset: 9}}},
		}},
	}
}

func TestTooManyEntries(t *testing.T) {
	body := []byte(strings.Repeat("\x1a\x02\x18\x01", maxRuns))
	if b, err := parseBundle(body); err != nil || len(b.runs) != maxRuns {
		t.Errorf("the most entries: %v", err)
	}
	if _, err := parseBundle(append(body, "\x1a\x00"...)); err == nil {
		t.Error("one entry too many was accepted")
	}
}

func BenchmarkParseBundle(b *testing.B) {
	var lines []string
	for range 16 << 10 {
		lines = append(lines, "2024-01-02 03:04:05 compiling package example.org/some/module\n")
	}
	for _, perEntry := range []int{1, 50} {
		name := map[int]string{1: "line an entry", 50: "50 lines an entry"}[perEntry]
		b.Run(name, func(b *testing.B) {
			e := &logpb.ButlerLogBundle_Entry{Desc: &logpb.LogStreamDescriptor{Name: "n"}}
			for i := 0; i < len(lines); i += perEntry {
				e.Logs = append(e.Logs, text(uint64(len(e.Logs)), lines[i:min(i+perEntry, len(lines))]...))
			}
			body, err := proto.Marshal(&logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{e}})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(lines) * len(lines[0])))
			for b.Loop() {
				if _, err := parseBundle(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestFieldsAcceptWhatDecodersAccept(t *testing.T) {
	group := protowire.AppendTag(nil, 2000, protowire.StartGroupType)
	group = protowire.AppendTag(group, 2000, protowire.EndGroupType)
	for in, want := range map[string]bool{
		"":                                 true,
		string(group):                      true,
		"\x08\x01":                         true,
		"\x0d\x01\x02\x03\x04":             true,
		"\x09\x01\x02\x03\x04\x05\x06\x07": false,
		"\x0c":                             false, // end of a group that did not begin
		"\x00\x00":                         false, // field 0
		"\x0e":                             false, // no such type
		"\x0a\x05abc":                      false,
	} {
		if got := checkMessage([]byte(in)) == nil; got != want {
			t.Errorf("%q: accepted is %v", in, got)
		}
	}
}
