package logpb

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestValidateDescriptor(t *testing.T) {
	good := &LogStreamDescriptor{
		Prefix: "p", Name: "n", ContentType: "text/plain", Timestamp: &timestamppb.Timestamp{Seconds: 1 << 62},
		Tags: map[string]string{"k": "", "a/b": "any thing"}, BinaryFileExt: "/../",
	}
	for _, c := range []struct {
		name   string
		change func(*LogStreamDescriptor)
		text   string // of the error; empty when valid
	}{
		{"good", func(*LogStreamDescriptor) {}, ""},
		{"no prefix", func(d *LogStreamDescriptor) { d.Prefix = "" }, "prefix"},
		{"prefix before name", func(d *LogStreamDescriptor) { d.Prefix, d.Name = "+", "+" }, "prefix"},
		{"name before type", func(d *LogStreamDescriptor) { d.Name, d.StreamType = "", 7 }, "name"},
		{"type before content type", func(d *LogStreamDescriptor) { d.StreamType, d.ContentType = 3, "" }, "type 3"},
		{"content type before timestamp", func(d *LogStreamDescriptor) { d.ContentType, d.Timestamp = "", nil }, "content type"},
		{"timestamp before tags", func(d *LogStreamDescriptor) { d.Timestamp, d.Tags = nil, map[string]string{"!": ""} }, "timestamp"},
		{"tag", func(d *LogStreamDescriptor) { d.Tags["bad!"] = "" }, "bad!"},
	} {
		d := proto.CloneOf(good)
		c.change(d)
		err := ValidateDescriptor(d, true)
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.text)
		}
	}
	if err := ValidateDescriptor(nil, false); err == nil {
		t.Error("no descriptor was accepted")
	}
	d := proto.CloneOf(good)
	d.Prefix = ""
	if err := ValidateDescriptor(d, false); err != nil {
		t.Errorf("without prefix: %v", err)
	}
}

func TestValidateEntry(t *testing.T) {
	text := &LogEntry{Content: &LogEntry_Text{Text: &Text{Lines: []*Text_Line{{}}}}}
	noLine := &LogEntry{Content: &LogEntry_Text{Text: &Text{}}}
	binary := &LogEntry{Content: &LogEntry_Binary{Binary: &Binary{Data: []byte{0}}}}
	noData := &LogEntry{Content: &LogEntry_Binary{Binary: &Binary{}}}
	datagram := &LogEntry{Content: &LogEntry_Datagram{Datagram: &Datagram{}}}
	all := []*LogEntry{text, noLine, binary, noData, datagram, {}, nil}
	valid := map[StreamType]*LogEntry{StreamType_TEXT: text, StreamType_BINARY: binary, StreamType_DATAGRAM: datagram, 9: nil}
	for typ, want := range valid {
		for i, e := range all {
			if err := ValidateEntry(e, &LogStreamDescriptor{StreamType: typ}); (err == nil) != (e != nil && e == want) {
				t.Errorf("entry %d in a stream of type %v: %v", i, typ, err)
			}
		}
	}
}

func TestFit(t *testing.T) {
	for _, v := range []*timestamppb.Timestamp{
		{Seconds: math.MaxInt64, Nanos: math.MaxInt32}, {Seconds: math.MinInt64, Nanos: math.MinInt32}, {Nanos: -1}, {Nanos: 1e9}, {Seconds: 1}, {},
	} {
		was := proto.CloneOf(v)
		if FitTimestamp(v); !v.IsValid() || was.IsValid() && !proto.Equal(was, v) {
			t.Errorf("%v became %v", was, v)
		}
	}
	for _, v := range []*durationpb.Duration{
		{Seconds: math.MaxInt64, Nanos: math.MaxInt32}, {Seconds: math.MinInt64, Nanos: 1}, {Seconds: 1, Nanos: -1}, {Nanos: 1e9}, {Seconds: -1, Nanos: -1}, {},
	} {
		was := proto.CloneOf(v)
		if FitDuration(v); !v.IsValid() || was.IsValid() && !proto.Equal(was, v) {
			t.Errorf("%v became %v", was, v)
		}
	}
	FitTimestamp(nil)
	FitDuration(nil)
}
