package log

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

func TestOutput(t *testing.T) {
	var got bytes.Buffer
	o := New(slog.New(slog.NewTextHandler(&got, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})))
	desc := func(name string, typ logpb.StreamType) *logpb.LogStreamDescriptor {
		return &logpb.LogStreamDescriptor{Name: name, StreamType: typ, ContentType: "x/y", Tags: map[string]string{"k": "v"}}
	}
	err := o.SendBundle(&logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{
		{Desc: desc("t", 0), Logs: []*logpb.LogEntry{{
			TimeOffset: durationpb.New(5e6), StreamIndex: 1, PrefixIndex: 2, Sequence: 3,
			Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: []byte("a b"), Delimiter: "\r\n"}, {Value: []byte("c")}}}},
		}}, Terminal: true, TerminalIndex: 1, Ended: &logpb.StreamEnd{Reason: "killed"}},
		{Desc: desc("b", 1), Logs: []*logpb.LogEntry{{Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte{1, 0xff}}}}}},
		{Desc: desc("d", 2), Logs: []*logpb.LogEntry{{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{
			Data: []byte{2}, Partial: &logpb.Datagram_Partial{Index: 1, Size: 9, Last: true},
		}}}}},
		{Desc: desc("e", 0), Terminal: true, TerminalEmpty: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `msg=stream stream=t entries=1 type=TEXT content_type=x/y tags=map[k:v] end=1 reason=killed
msg=entry stream=t offset=5ms index=1 prefix_index=2 sequence=3
msg=line stream=t text="a b" delimiter="\r\n"
msg=line stream=t text=c delimiter=""
msg=stream stream=b entries=1 type=BINARY content_type=x/y tags=map[k:v]
msg=entry stream=b offset=0s index=0 prefix_index=0 sequence=0
msg=binary stream=b hex=01ff
msg=stream stream=d entries=1 type=DATAGRAM content_type=x/y tags=map[k:v]
msg=entry stream=d offset=0s index=0 prefix_index=0 sequence=0
msg=datagram stream=d hex=02 part=1 size=9 last=true
msg=stream stream=e entries=0 type=TEXT content_type=x/y tags=map[k:v] end="without an entry"
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	if s := o.Stats(); s.SentMessages != 3 || s.SentBytes == 0 {
		t.Errorf("%+v", s)
	}
}
