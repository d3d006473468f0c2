package protocol

import (
	"context"
	"crypto/sha1"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Every message is safe to validate when it is nil and when it is empty.
func TestValidateIsSafe(t *testing.T) {
	count := 0
	protoregistry.GlobalTypes.RangeMessages(func(typ protoreflect.MessageType) bool {
		if typ.Descriptor().ParentFile().Package() != "protocol" {
			return true
		}
		for _, m := range []proto.Message{typ.Zero().Interface(), typ.New().Interface()} {
			if v, ok := m.(validator); ok {
				_ = v.Validate()
				count++
			}
		}
		return true
	})
	if count < 40 {
		t.Errorf("only %d messages were validated", count)
	}
}

func TestViolationIsInvalid(t *testing.T) {
	err := fmt.Errorf("append: %w", Journal("x").Validate())
	if !fault.Is(err, fault.Invalid) || fault.IsTransient(err) {
		t.Errorf("%v is of kind %s", err, fault.KindOf(err))
	}
}

func TestJournalMeta(t *testing.T) {
	name, meta := Journal("acme/min;a;b").SplitMeta()
	if name != "acme/min" || meta != ";a;b" {
		t.Errorf("got %q and %q", name, meta)
	}
	if got := Journal("acme/min").StripMeta(); got != "acme/min" {
		t.Errorf("got %q", got)
	}
	for _, j := range []Journal{"../etc", "acme;../x"} {
		if j.Validate() == nil {
			t.Errorf("%q is accepted", j)
		}
	}
	if err := Journal("..acme").Validate(); err != nil {
		t.Errorf("dots within an element: %v", err)
	}
}

func TestLabelSetEdits(t *testing.T) {
	s := MustLabelSet("mm", "1")
	s.AddValue("zz", "1")
	s.AddValue("aa", "2")
	s.AddValue("aa", "1")
	s.AddValue("aa", "1")
	if want := MustLabelSet("aa", "1", "aa", "2", "mm", "1", "zz", "1"); !s.Equal(want) {
		t.Errorf("got %v", s)
	}
	if got := s.ValuesOf("aa"); len(got) != 2 || s.ValueOf("aa") != "1" || s.ValueOf("bb") != "" {
		t.Errorf("values of aa are %v", got)
	}
	s.SetValue("aa", "9")
	s.SetValue("bb", "3")
	s.Remove("mm")
	s.Remove("absent")
	if want := MustLabelSet("aa", "9", "bb", "3", "zz", "1"); !s.Equal(want) {
		t.Errorf("got %v", s)
	}
}

func TestAddedPrefixIsNotDropped(t *testing.T) {
	s := new(LabelSet)
	s.AddValue("aa", "1")
	s.add(&Label{Name: "aa", Value: "1", Prefix: true})
	if len(s.Labels) != 2 || s.Validate() == nil {
		t.Errorf("got %v", s)
	}
}

func TestNilSetsAreEmpty(t *testing.T) {
	var s *LabelSet
	var sel *LabelSelector
	if s.ValueOf("aa") != "" || s.ValuesOf("aa") != nil || !s.Equal(&LabelSet{}) || !sel.Matches(s) || sel.Canonical() != "" {
		t.Error("nil is not empty")
	}
	if got := UnionLabelSets(nil, nil); len(got.Labels) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestPathPostfix(t *testing.T) {
	spec := &JournalSpec{
		Name:   "acme/min",
		Labels: MustLabelSet("env", "qa"),
		Fragment: &JournalSpec_Fragment{
			PathPostfixTemplate: `day={{ .Spool.FirstAppendTime.Format "2006-01-02" }}/{{ .LabelSet.ValueOf "env" }}/{{ .Spool.Registers.ValueOf "rr" }}`,
		},
	}
	spool := SpoolData{
		Fragment:        &Fragment{},
		FirstAppendTime: time.Unix(1700000000, 0).UTC(),
		Registers:       MustLabelSet("rr", "one"),
	}
	got, err := EvaluatePathPostfix(spec, spool)
	if err != nil || got != "day=2023-11-14/qa/one" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{
		"{{ .Spool.FirstAppendTime }}",       // A path must not have blanks and colons.
		"../{{ .Name }}",                     // Nor leave the store.
		"{{ range 1000000000000 }}{{ end }}", // A stranger's template must end.
		`{{ if .Name }}{{ with .Name }}{{ range 9 }}{{ end }}{{ end }}{{ end }}`,
		`{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`,
		strings.Repeat("a", 5000),
		// Nor may it take more memory the longer it goes on.
		`{{ $x := "aaaaaaaa" }}` + strings.Repeat(`{{ $x = print $x $x }}`, 20) + `{{ $x | len }}`,
		`{{ "aaaaaaaa"` + strings.Repeat(` | printf "%[1]s%[1]s"`, 20) + ` | len }}`,
		`{{ "'"` + strings.Repeat(` | js`, 25) + ` | len }}`,
		`{{ printf "%1000000d" 1 | len }}`,
		`{{ printf "%*d" 1000000 1 | len }}`,
		`{{ printf "%.1000000f" 1.0 | len }}`,
	} {
		spec.Fragment.PathPostfixTemplate = text
		if got, err := EvaluatePathPostfix(spec, spool); err == nil {
			t.Errorf("%.40q gives %.40q", text, got)
		}
	}
	for text, want := range map[string]string{
		`{{ printf "%s-%05d" (.Spool.FirstAppendTime.Format "2006/01") .Spool.Begin }}`: "2023/11-00000",
		`{{ $env := .LabelSet.ValueOf "env" }}{{ print $env "-" $env | urlquery }}`:     "qa-qa",
	} {
		spec.Fragment.PathPostfixTemplate = text
		if got, err := EvaluatePathPostfix(spec, spool); err != nil || got != want {
			t.Errorf("%s gives %q, %v", text, got, err)
		}
	}
}

func TestSHA1Sum(t *testing.T) {
	d := sha1.Sum([]byte("hello"))
	if s := SHA1SumOf([]byte("hello")); s.ToDigest() != d || s.IsZero() {
		t.Errorf("got %v", s)
	}
	var none *SHA1Sum
	if !none.IsZero() || none.ToDigest() != [20]byte{} {
		t.Error("a nil sum is not zero")
	}
}

type oneRoute struct {
	NoopDispatchRouter
	route *Route
}

func (r oneRoute) Route(context.Context, string) *Route { return r.route }

func TestDispatch(t *testing.T) {
	if _, ok := DispatchOf(t.Context()); ok {
		t.Error("a plain context has a dispatch")
	}
	a, b := &ProcessSpec_ID{Zone: "a", Suffix: "aaaa"}, &ProcessSpec_ID{Zone: "b", Suffix: "bbbb"}
	r := oneRoute{route: &Route{Members: []*ProcessSpec_ID{a, b}, Primary: 1}}

	d, _ := DispatchOf(WithDispatchItemRoute(t.Context(), r, "acme/min", true))
	if d.ProcessID != b || d.Item != "acme/min" || d.Router == nil {
		t.Errorf("got %v", d)
	}
	if d, _ := DispatchOf(WithDispatchItemRoute(t.Context(), r, "acme/min", false)); d.ProcessID != nil || d.Route != r.route {
		t.Errorf("got %v", d)
	}
	if d, _ := DispatchOf(WithDispatchItemRoute(t.Context(), NoopDispatchRouter{}, "acme/min", true)); d.ProcessID != nil {
		t.Errorf("got %v", d)
	}
	if d, _ := DispatchOf(WithDispatchDefault(t.Context())); len(d.Route.Members) != 0 || d.Route.Validate() != nil {
		t.Errorf("got %v", d)
	}
}

func TestRouteEquivalence(t *testing.T) {
	a, b := &ProcessSpec_ID{Zone: "a", Suffix: "aaaa"}, &ProcessSpec_ID{Zone: "b", Suffix: "bbbb"}
	x := &Route{Members: []*ProcessSpec_ID{a, b}, Endpoints: []string{"http://a", ""}}
	for _, c := range []struct {
		y    *Route
		want bool
	}{
		{&Route{Members: []*ProcessSpec_ID{a, b}}, true},
		{&Route{Members: []*ProcessSpec_ID{a, b}, Primary: 1}, false},
		{&Route{Members: []*ProcessSpec_ID{a}}, false},
		{&Route{Members: []*ProcessSpec_ID{a, a}}, false},
	} {
		if got := x.EquivalentTo(c.y); got != c.want {
			t.Errorf("%v: got %v", c.y, got)
		}
	}
	if err := x.Validate(); err != nil {
		t.Error(err)
	}
	x.Members[0], x.Members[1] = b, a
	wantViolation(t, "unsorted", x.Validate(), "", MembersUnsorted)
}

func FuzzParseLabelSelector(f *testing.F) {
	for _, s := range []string{"", "aa", "aa=b,!cc", "aa in (x,y), bb notin (z)", "name:prefix=acme/", "aa==b", "aa in (", "aa not in(b)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseLabelSelector(text)
		if err != nil {
			return
		}
		again, err := ParseLabelSelector(s.Canonical())
		if err != nil {
			t.Fatalf("canonical form %q of %q: %v", s.Canonical(), text, err)
		}
		if !proto.Equal(s, again) {
			t.Fatalf("canonical form %q of %q differs", s.Canonical(), text)
		}
	})
}

func FuzzParseFragmentFromRelativePath(f *testing.F) {
	const sum = "0102030405060708090a0b0c0d0e0f1011121314"
	for _, s := range []string{
		"0000000000001000-000000000000100e-" + sum + ".raw", "a=b/0-1-" + sum + ".GZ", "0-0-" + sum, "/.", "../0-1-" + sum, "-+1-.-",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		frag, err := ParseFragmentFromRelativePath("acme/min", name)
		if err != nil {
			return
		}
		again, err := ParseFragmentFromRelativePath("acme/min", strings.TrimPrefix(frag.ContentPath(), "acme/min/"))
		if err != nil || !proto.Equal(frag, again) {
			t.Fatalf("%q becomes %q, which parses to %v, %v", name, frag.ContentPath(), again, err)
		}
	})
}
