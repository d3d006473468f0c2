package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/streamproto"
)

func TestStreamSpec(t *testing.T) {
	for text, want := range map[string]streamSpec{
		"-":                             {off: true},
		"log":                           {name: "log"},
		"name=a/b":                      {name: "a/b"},
		"log,type=binary":               {name: "log", typ: streamproto.Binary},
		"type=datagram":                 {typ: streamproto.Datagram},
		`log,tag=a=1,tag=b,tag="c=x,y"`: {name: "log", tags: streamproto.TagMap{"a": "1", "b": "", "c": "x,y"}},
		`content-type=a\,b\"c`:          {contentType: `a,b"c`},
	} {
		var got streamSpec
		if err := got.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(streamSpec{})); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, text := range []string{"", "a//b", "name=", "type=video", "a,b", "tag==x", `"a`, "a,color=red"} {
		var got streamSpec
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %+v", text, got)
		}
	}
}

func TestDescriptorDefaults(t *testing.T) {
	s := streamSpec{typ: streamproto.Binary}
	if d := s.descriptor("stdout"); d.GetName() != "stdout" || d.GetContentType() != "application/octet-stream" || d.GetTimestamp() == nil {
		t.Error(d)
	}
	s = streamSpec{name: "log"}
	if d := s.descriptor("stdout"); d.GetName() != "log" || d.GetContentType() != "text/plain; charset=utf-8" {
		t.Error(d)
	}
}
