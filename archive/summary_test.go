package archive

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// entries are of all forms.
func entries(t testing.TB) [][]byte {
	t.Helper()
	at := &durationpb.Duration{Seconds: 3, Nanos: 4}
	line := func(value, delimiter string) *logpb.Text_Line {
		return &logpb.Text_Line{Value: []byte(value), Delimiter: delimiter}
	}
	var all [][]byte
	for _, e := range []*logpb.LogEntry{
		{},
		{TimeOffset: at, PrefixIndex: 1, StreamIndex: 2, Sequence: math.MaxUint64, ContentOffset: 7},
		{TimeOffset: &durationpb.Duration{}},
		{TimeOffset: &durationpb.Duration{Seconds: -1, Nanos: -5}},
		{Content: &logpb.LogEntry_Text{Text: &logpb.Text{}}},
		{Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{line("a", "\n"), line("\xff", "\r\n"), line("", "\n"), line("c", "")}}}},
		{Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{line("", "")}}}},
		{Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte("abc")}}},
		{Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{}}},
		{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("abc")}}},
		{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("abc"), Partial: &logpb.Datagram_Partial{Index: 1}}}},
	} {
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// Entries as programs write them are not decoded.
func TestUsualEntriesAreScanned(t *testing.T) {
	for i, data := range entries(t)[:9] {
		if _, ok := scanEntry(data); !ok {
			t.Errorf("entry %d is decoded", i)
		}
	}
}

// A summary is the same whether the entry was decoded or not, and there is none of what cannot be decoded.
func FuzzSummarize(f *testing.F) {
	for _, data := range entries(f) {
		f.Add(data)
		f.Add(append(data, data...)) // fields twice
		f.Add(data[:max(len(data)-1, 0)])
	}
	f.Add([]byte{0x52, 4, 0x0a, 2, 0x12, 1, 0xff}) // a delimiter that is no text
	f.Add([]byte{0x0b, 0x0c})                      // a group
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := summarize(data)
		e := new(logpb.LogEntry)
		if perr := proto.Unmarshal(data, e); (err != nil) != (perr != nil) {
			t.Fatalf("%x: %v; decoded: %v", data, err, perr)
		} else if perr != nil {
			return
		}
		if want := summaryOf(e); got != want {
			t.Errorf("%x: %+v; decoded: %+v", data, got, want)
		}
		if got.at() != e.GetTimeOffset().AsDuration() {
			t.Errorf("%x: at %v; decoded: %v", data, got.at(), e.GetTimeOffset())
		}
	})
}
