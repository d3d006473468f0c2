package prpc

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/wire"
)

func TestTooDeep(t *testing.T) {
	open, shut := strings.Repeat("a{", maxDepth), strings.Repeat("}", maxDepth)
	for _, tc := range []struct {
		name, body string
		want       bool
	}{
		{"nothing", "", false},
		{"just deep enough", open + shut, false},
		{"too deep", "a{" + open + shut + "}", true},
		{"never closed", open + "a{", true},
		{"angles", strings.Repeat("a<", maxDepth+1), true},
		{"wide", strings.Repeat("a{}", maxDepth+1), false},
		{"lists", strings.Repeat("a:[{", maxDepth+1), true},
		{"in strings", `project: "` + strings.Repeat("{", maxDepth+1) + `"`, false},
		{"closed in strings only", strings.Repeat(`a{b:"}" c:'"}'`, maxDepth+1), true},
		{"closed in comments only", strings.Repeat("a{#}\n", maxDepth+1), true},
		{"quotes in comments", strings.Repeat("a{#\"\n", maxDepth+1), true},
		{"escaped quotes", strings.Repeat(`a{b:"\"}\\"`, maxDepth+1), true},
		{"string without end", `a:"\`, false},
		{"comment without end", `#`, false},
	} {
		if got := tooDeep([]byte(tc.body)); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	r := &logdog.GetRequest{}
	if err := text.unmarshal([]byte(open+shut+` project: "p"`), r); err != nil || r.GetProject() != "p" {
		t.Error(err)
	}
}

// A small body, compressed, cannot make a message that takes the memory of the machine.
func TestTooMany(t *testing.T) {
	many := func(s string) string { return strings.Repeat(s, wire.MaxFields+1) }
	field := func(number protowire.Number, value string) string {
		return string(protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value))
	}
	large := strings.Repeat("x", 3*wire.MaxFields)
	for _, tc := range []struct {
		name string
		e    encoding
		body string
		m    proto.Message
		want bool // that it is refused
	}{
		{"entries", binary, many("\x0a\x00"), &logdog.BatchRequest{}, true},
		{"strings", binary, many("\x1a\x00"), &logdog.RegisterPrefixRequest{}, true},
		{"inside", binary, field(1, field(4, field(1000, "")+many(field(7, "")))), &logdog.BatchRequest{}, true},
		{"not known", binary, many("\xf8\x07\x00"), &logdog.GetRequest{}, true},
		{"JSON", json, `{"req":[` + many("{},") + `{}]}`, &logdog.BatchRequest{}, true},
		{"text", text, many("req{}"), &logdog.BatchRequest{}, true},
		{"text in angles", text, many("req<>"), &logdog.BatchRequest{}, true},
		{"list in text", text, `source_info:[` + strings.Repeat(`"",`, wire.MaxFields) + `""]`, &logdog.RegisterPrefixRequest{}, true},
		{"a large string", binary, field(1, large), &logdog.GetRequest{}, false},
		{"a large string inside", binary, field(1, field(1, field(1, large))), &logdog.BatchRequest{}, false},
		{"a large string in JSON", json, `{"project":"` + large + `"}`, &logdog.GetRequest{}, false},
		{"a large string in text", text, `project:"` + large + `"`, &logdog.GetRequest{}, false},
	} {
		if err := tc.e.unmarshal([]byte(tc.body), tc.m); (err != nil) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		} else if tc.want && !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s is refused for another reason: %v", tc.name, err)
		}
	}
}

// All encodings take messages of any nesting without losing the process.
func FuzzDecode(f *testing.F) {
	f.Add(`project: "p" a { b: "}" } # c`)
	f.Add(`{"project":"p","x":[[{"y":1}]]}`)
	f.Add("\x0a\x01p\x1b\x1c")
	f.Fuzz(func(_ *testing.T, s string) {
		for e := binary; e <= text; e++ {
			_ = e.unmarshal([]byte(s), &logdog.GetRequest{})
		}
	})
}
