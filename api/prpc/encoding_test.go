package prpc

import (
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/api/logdog"
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
