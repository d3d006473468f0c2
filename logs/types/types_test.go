package types

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStreamNameValidate(t *testing.T) {
	for _, c := range []struct {
		in   StreamName
		text string // of the error; empty when valid
	}{
		{"build/steps/3", ""},
		{"x.y:z-1_2", ""},
		{"v1..v2", ""},
		{"Linux:x64", ""},
		{StreamName(strings.Repeat("q", 4096)), ""},
		{StreamName(strings.Repeat("q", 4097)), "4097 bytes"},
		{"", "empty"},
		{"/lead", "byte 0"},
		{"trail/", "ends with a slash"},
		{"gap//gap", "byte 4"},
		{".hidden/x", "byte 0"},
		{"ok/-x", "byte 3"},
		{"50%", "byte 2"},
		{"two words", "byte 3"},
		{"naïve", "byte 2"},
		{"p/ñ", "byte 2"},
		{"a/..", "byte 2"},
		{"a+b", "byte 1"},
	} {
		err := c.in.Validate()
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.40q: error %v, want %q", string(c.in), err, c.text)
		}
		var set StreamName
		if (set.Set(string(c.in)) == nil) != (c.text == "") {
			t.Errorf("%.40q: Set and Validate disagree", string(c.in))
		}
	}
}

func TestStreamNameHelpers(t *testing.T) {
	if got := StreamName("//a//b///").Trim(); got != "a//b" {
		t.Errorf("Trim = %q", got)
	}
	for _, c := range []struct {
		a, b StreamName
		want StreamPath
	}{{"", "", "/+/"}, {"/p/", "/n/", "p/+/n"}, {"p", "", "p/+/"}, {"", "n", "/+/n"}} {
		if got := c.a.Join(c.b); got != c.want {
			t.Errorf("Join(%q, %q) = %q, want %q", c.a, c.b, got, c.want)
		}
	}
	for _, c := range []struct{ a, b, want StreamName }{{"ns/", "x", "ns/x"}, {"", "x", "x"}, {"a", "", "a"}, {"", "", ""}} {
		if got := c.a.Concat(c.b); got != c.want {
			t.Errorf("Concat(%q, %q) = %q, want %q", c.a, c.b, got, c.want)
		}
	}
	if got := StreamName("p").AsPathPrefix("n"); got != "p/+/n" {
		t.Errorf("AsPathPrefix = %q", got)
	}
	if got := StreamName("p").AsPathPrefix(""); got != "p/+" {
		t.Errorf("AsPathPrefix of the empty name = %q", got)
	}
	for _, c := range []struct {
		in   StreamName
		want []string
	}{{"", nil}, {"a", []string{"a"}}, {"a/b/c", []string{"a", "b", "c"}}} {
		if got := c.in.Segments(); !slices.Equal(got, c.want) || c.in.SegmentCount() != len(c.want) {
			t.Errorf("%q: segments %q, count %d", c.in, got, c.in.SegmentCount())
		}
	}
	for _, c := range []struct{ in, base, last StreamName }{{"p/q/r", "p/q", "r"}, {"p", "", "p"}, {"", "", ""}, {"p/", "p", ""}, {"/p", "", "p"}} {
		if base, last := c.in.Split(); base != c.base || last != c.last {
			t.Errorf("Split(%q) = %q, %q", c.in, base, last)
		}
	}
	for _, c := range []struct {
		in   StreamName
		want []StreamName
	}{{"a/b/c", []StreamName{"a/b/", "a/", ""}}, {"a", []StreamName{""}}, {"", []StreamName{""}}, {"/", []StreamName{""}}} {
		if diff := cmp.Diff(c.want, c.in.Namespaces()); diff != "" {
			t.Errorf("Namespaces(%q) (-want +got):\n%s", c.in, diff)
		}
	}
	for _, c := range []struct{ in, want StreamName }{{"", ""}, {"a", "a/"}, {"a/", "a/"}} {
		if got := c.in.AsNamespace(); got != c.want {
			t.Errorf("AsNamespace(%q) = %q", c.in, got)
		}
	}
}

func TestStreamPath(t *testing.T) {
	for _, c := range []struct {
		path          StreamPath
		prefix        StreamName
		sep           bool
		name          StreamName
		full, partial bool
	}{
		{"", "", false, "", false, true},
		{"x/+/y", "x", true, "y", true, true},
		{"p/q/+/n/m", "p/q", true, "n/m", true, true},
		{"solo", "solo", false, "", false, true},
		{"p/+", "p", true, "", false, true},
		{"p/+/", "p", true, "", false, true},
		{"+/n", "", true, "n", false, true},
		{"/+/", "", true, "", false, true},
		{"+n", "+n", false, "", false, false},
		{"p/+n/+/m", "p/+n", true, "m", false, false},
		{"c+/d+e/+/f", "c+/d+e", true, "f", false, false},
		{"p/+/m/+/n", "p", true, "m/+/n", false, false},
		{"/p/+/n", "/p", true, "n", false, false},
		{"p//+/n", "p/", true, "n", false, false},
	} {
		prefix, sep, name := c.path.SplitParts()
		if prefix != c.prefix || sep != c.sep || name != c.name {
			t.Errorf("%q splits into %q, %v, %q", c.path, prefix, sep, name)
		}
		if got := c.path.Validate() == nil; got != c.full {
			t.Errorf("%q: valid is %v", c.path, got)
		}
		if got := c.path.ValidatePartial() == nil; got != c.partial {
			t.Errorf("%q: valid as partial is %v", c.path, got)
		}
		data, err := json.Marshal(c.path)
		if err != nil {
			t.Fatal(err)
		}
		var p StreamPath
		if err := json.Unmarshal(data, &p); (err == nil) != c.full {
			t.Errorf("%q: decoding from JSON: %v", c.path, err)
		}
	}
}

func TestMakeStreamName(t *testing.T) {
	for _, c := range []struct {
		fill     string
		segments []string
		want     StreamName // empty for an error
	}{
		{"z_", []string{""}, "z_"},
		{"z_", []string{"", "step", "a*b", "→go"}, "z_/step/a_b/z__go"},
		{"z_", []string{"unit", "hello world"}, "unit/hello_world"},
		{"z_", []string{"a/b"}, "a_b"},
		{"z_", []string{"a\xffb"}, "a_b"},
		{"file:", []string{"/srv/x y.txt"}, "file:_srv_x_y.txt"},
		{"file:", []string{"rel/path"}, "rel_path"},
		{"", []string{"-x"}, ""},
		{"!", []string{"-x"}, ""},
		{"", []string{"ok"}, "ok"},
		{"!", []string{"ok"}, "ok"},
		{"z", nil, ""},
		{"z", []string{strings.Repeat("a", 5000)}, ""},
	} {
		got, err := MakeStreamName(c.fill, c.segments...)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("MakeStreamName(%q, %.40q) = %q, %v; want %q", c.fill, c.segments, got, err, c.want)
		}
	}
}

func TestMakeStreamNameIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segments := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "segments")
		name, err := MakeStreamName("x", segments...)
		if err != nil {
			t.Fatal(err)
		}
		if err := name.Validate(); err != nil || name.SegmentCount() != len(segments) {
			t.Fatalf("%q: %v", name, err)
		}
	})
}

func TestProject(t *testing.T) {
	for in, want := range map[Project]bool{
		"a": true, "proj-foo": true, "a_b-9": true, Project(strings.Repeat("a", 100)): true,
		"": false, "9a": false, "A": false, "a.b": false, "-a": false, "aé": false, Project(strings.Repeat("a", 101)): false,
	} {
		if got := in.Validate() == nil; got != want {
			t.Errorf("%.20q: valid is %v", string(in), got)
		}
	}
}

func TestTags(t *testing.T) {
	long := strings.Repeat("v", MaxTagValueLength)
	for _, c := range []struct {
		key, value string
		want       bool
	}{
		{"k", "", true},
		{ViewerURLTag, "https://example.org/?a=b c", true},
		{"a/b", "any\x00thing", true},
		{strings.Repeat("k", 64), long, true},
		{strings.Repeat("k", 65), "", false},
		{"k", long + "v", false},
		{"", "v", false},
		{"bad!", "v", false},
	} {
		if err := ValidateTag(c.key, c.value); (err == nil) != c.want {
			t.Errorf("%.20q: %v", c.key, err)
		}
	}
}

func TestSecret(t *testing.T) {
	a, b := NewPrefixSecret(), NewPrefixSecret()
	if a.Validate() != nil || !a.Equal(a) || a.Equal(b) || a.Equal(nil) {
		t.Error("secrets do not compare as they should")
	}
	if a.String() != "[secret]" {
		t.Error("a secret shows itself")
	}
	if a[:35].Validate() == nil {
		t.Error("35 bytes were accepted")
	}
}

type idVectors struct {
	Normalization []struct {
		Input, Normalized string
		OK                bool
	} `json:"id_normalization"`
	PathSplit []struct {
		Path         rawPath `json:"path"`
		Prefix, Name string
		Separator    bool
		ValidFull    bool `json:"valid_full"`
		ValidPartial bool `json:"valid_partial"`
	} `json:"path_split"`
	Streams []struct {
		Path       string
		Prefix     string
		Name       string
		Project    Project
		StreamID   StreamID `json:"stream_id"`
		PrefixID   PrefixID `json:"prefix_id"`
		ViewerPath string   `json:"viewer_path"`
	}
}

// rawPath is a path that is not validated when it is decoded.
type rawPath string

func TestIDVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var v idVectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Normalization {
		want := c.OK && len(c.Input) == 64 // the reference accepts 65 characters
		id, err := ParseStreamID(c.Input)
		if (err == nil) != want || want && string(id) != c.Normalized {
			t.Errorf("stream id %q: %q, %v", c.Input, id, err)
		}
		if _, err := ParsePrefixID(c.Input); (err == nil) != want {
			t.Errorf("prefix id %q: %v", c.Input, err)
		}
	}
	for _, c := range v.PathSplit {
		p := StreamPath(c.Path)
		prefix, sep, name := p.SplitParts()
		if string(prefix) != c.Prefix || sep != c.Separator || string(name) != c.Name {
			t.Errorf("%q splits into %q, %v, %q", p, prefix, sep, name)
		}
		if (p.Validate() == nil) != c.ValidFull || (p.ValidatePartial() == nil) != c.ValidPartial {
			t.Errorf("%q: %v, %v", p, p.Validate(), p.ValidatePartial())
		}
	}
	for _, c := range v.Streams {
		p := StreamPath(c.Path)
		prefix, name := p.Split()
		if string(prefix) != c.Prefix || string(name) != c.Name || prefix.Join(name) != p {
			t.Errorf("%q splits into %q and %q", p, prefix, name)
		}
		if got := p.ID(); got != c.StreamID {
			t.Errorf("%q: id %s, want %s", p, got, c.StreamID)
		}
		if got := prefix.PrefixID(); got != c.PrefixID {
			t.Errorf("%q: prefix id %s, want %s", p, got, c.PrefixID)
		}
		if got := ViewerURL("h", c.Project, p); got != "https://h"+c.ViewerPath {
			t.Errorf("%q: viewer URL %s, want path %s", p, got, c.ViewerPath)
		}
	}
}

func TestViewerURL(t *testing.T) {
	const host = "logs.example.org"
	for _, c := range []struct {
		paths []StreamPath
		want  string
	}{
		{nil, "https://logs.example.org/v/"},
		{[]StreamPath{"builds/8/+/steps/compile/stdout"}, "https://logs.example.org/logs/proj/builds/8/+/steps/compile/stdout"},
		{
			[]StreamPath{"builds/8/+/steps/compile/stdout", "builds/8/+/log:2"},
			"https://logs.example.org/v/?s=proj%2Fbuilds%2F8%2F%2B%2Fsteps%2Fcompile%2Fstdout&s=proj%2Fbuilds%2F8%2F%2B%2Flog%3A2",
		},
	} {
		if got := ViewerURL(host, "proj", c.paths...); got != c.want {
			t.Errorf("ViewerURL(%q) = %s, want %s", c.paths, got, c.want)
		}
	}
}

func TestStreamAddr(t *testing.T) {
	for _, in := range []string{"logdog://example.org/proj/a/b/+/c", "logdog://localhost:8080/p/x/+/y/z"} {
		var a StreamAddr
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.Var(&a, "addr", "")
		if err := fs.Parse([]string{"-addr", in}); err != nil {
			t.Fatal(err)
		}
		if err := a.Validate(); err != nil || a.String() != in {
			t.Errorf("%s: %v, %v", in, a, err)
		}
		data, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var b StreamAddr
		if err := json.Unmarshal(data, &b); err != nil || a != b {
			t.Errorf("%s: %v, %v", data, b, err)
		}
	}
	for _, in := range []string{
		"", "::not a url", "http://h/proj/a/+/b", "logdog://h", "logdog://h/proj", "logdog://h/PROJ/a/+/b", "logdog://h/proj/a/b",
		"logdog://h/proj/a/+/.b", "logdog://h/proj//a/+/b",
	} {
		if a, err := ParseStreamAddr(in); err == nil {
			t.Errorf("%q was accepted: %v", in, a)
		}
	}
	if data, err := json.Marshal(StreamAddr{}); err != nil || string(data) != "{}" {
		t.Errorf("zero value: %s, %v", data, err)
	}
	if a, err := ParseStreamAddr("logdog:///proj/a/+/b"); err != nil || a.Validate() == nil {
		t.Errorf("without host: %v", err)
	}
}

func FuzzStreamPath(f *testing.F) {
	for _, s := range []string{"", "+", "a/+/b", "a/+b/+/", "/+/", "++"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := StreamPath(s)
		prefix, sep, name := p.SplitParts()
		if !sep && (string(prefix) != s || name != "") {
			t.Fatalf("%q without separator splits into %q and %q", s, prefix, name)
		}
		if p.Validate() == nil {
			if p.ValidatePartial() != nil || prefix.Join(name) != p {
				t.Fatalf("%q is valid, but is not put together again", s)
			}
			if a, err := ParseStreamAddr("logdog://h/p/" + s); err != nil || a.Path != p {
				t.Fatalf("address of %q: %v", s, err)
			}
		}
	})
}
