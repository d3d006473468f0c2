package spectree

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

type vectors struct {
	Hierarchy struct {
		Empty     string `json:"empty_listing_yaml"`
		Input     string `json:"flatten_input_yaml"`
		Flattened []struct {
			Delete   bool
			Revision int64
			Spec     json.RawMessage
		}
		Hoisted string `json:"hoisted_yaml"`
		Listing json.RawMessage
		Single  string `json:"single_journal_yaml"`
	} `json:"yaml_hierarchy"`
}

func load(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/yaml_hierarchy.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func text(t testing.TB, n *Node) string {
	t.Helper()
	b, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFlattenVectors(t *testing.T) {
	v := load(t).Hierarchy
	n, err := Parse([]byte(v.Input))
	if err != nil {
		t.Fatal(err)
	}
	leaves := n.Flatten()
	if len(leaves) != len(v.Flattened) {
		t.Fatalf("%d journals instead of %d", len(leaves), len(v.Flattened))
	}
	for i, want := range v.Flattened {
		spec := new(pb.JournalSpec)
		if err := protojson.Unmarshal(want.Spec, spec); err != nil {
			t.Fatal(err)
		}
		if got := leaves[i]; got.Delete != want.Delete || got.Revision != want.Revision || !proto.Equal(got.Spec, spec) {
			t.Errorf("got %v %d %v, want %v", got.Delete, got.Revision, got.Spec, spec)
		}
	}
	if c := leaves[2].Change(); c.Delete != "zed/gone" || c.Upsert != nil || c.ExpectModRevision != 8 {
		t.Errorf("%v", c)
	}
	if c := leaves[1].Change(); c.Delete != "" || c.Upsert.GetName() != "acme/two" || c.ExpectModRevision != -1 {
		t.Errorf("%v", c)
	}
}

func TestHoistVectors(t *testing.T) {
	v := load(t).Hierarchy
	listing := new(pb.ListResponse)
	if err := protojson.Unmarshal(v.Listing, listing); err != nil {
		t.Fatal(err)
	}
	for want, journals := range map[string][]*pb.ListResponse_Journal{
		v.Hoisted: listing.Journals, v.Single: listing.Journals[:1], v.Empty: nil,
	} {
		if diff := cmp.Diff(want, text(t, FromListing(journals))); diff != "" {
			t.Error(diff)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct{ text, err string }{
		"nothing":            {"", "no specs"},
		"empty listing":      {"{}", "no specs"},
		"only a comment":     {"# nothing\n", "no specs"},
		"unknown key":        {"name: a/journal\nnaem: x", `line 2: there is no key "naem"`},
		"unknown keys":       {"name: a/journal\nnaem: x\nfragment: {size: 3}", `line 2: there is no key "naem"; line 3: there is no key "size"`},
		"key twice":          {"name: a/journal\nname: a/journal", "line 2: mapping key"},
		"not a number":       {"name: a/journal\nreplication: many", `line 2: "many" is not a number`},
		"not a boolean":      {"name: a/journal\ndelete: maybe", `line 2: "maybe" is not true or false`},
		"not a list":         {"name: a/journal\nlabels: x", `line 2: "x" is not a list`},
		"a list":             {"name: a/journal\nfragment: [1]", "line 2: a list is not keys and values"},
		"not YAML":           {"name: a/journal\nfragment: {", "line "},
		"two documents":      {"name: a/journal\n---\nname: b/journal", "second"},
		"leaf with children": {"name: a/journal\nchildren:\n- name: a/journal/x", "has children"},
		"bad name":           {"# a comment\nname: a/jour nal", "line 2: journal a/jour nal: "},
		"dir without":        {"name: a/", "no children"},
		"revision of a dir":  {"name: a/\nrevision: 3\nchildren:\n- name: a/journal", "revision"},
		"suspended dir":      {"name: a/\nsuspend: {level: FULL}\nchildren:\n- name: a/journal", "suspend"},
		"another place":      {"name: a/\nchildren:\n- name: b/journal", "line 3: \"b/journal\" is a child"},
		"twice":              {"children:\n- name: a/journal\n- name: a/journal", "line 3: journal a/journal is there twice, before on line 2"},
		"twice below":        {"children:\n- name: a/\n  children:\n  - name: a/b/cd\n- name: a/b/\n  children:\n  - name: a/b/cd", "line 7: journal a/b/cd is there twice, before on line 4"},
		"deep":               {"children:\n- name: a/\n  children:\n  - name: a/b/", "line 4: directory \"a/b/\" has no children"},
		"empty child":        {"children:\n- ", "empty"},
		"codec":              {"name: a/journal\nfragment: {compression_codec: ZIP}", `line 2: "ZIP"`},
		"no unit":            {"name: a/journal\nfragment: {retention: 3600}", "3600s"},
		"bad duration":       {"name: a/journal\nfragment: {retention: [1]}", "duration"},
	} {
		if n, err := Parse([]byte(c.text)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}

// What the original cannot say: a zero that is not inherited over, and labels in any order.
func TestFlattenKeepsWhatIsSaid(t *testing.T) {
	n, err := Parse([]byte(`
replication: 3
fragment: {flush_interval: 1h, stores: ["s3://b/"]}
max_append_rate: 100
children:
- name: a/one1
  labels: [{name: z, value: "2"}, {name: z, value: "1"}, {name: ab}]
  max_append_rate: 0
  fragment: {flush_interval: 0s, stores: [], retention: 5000000000}
  suspend: {level: 0}
- name: a/aa
`))
	if err != nil {
		t.Fatal(err)
	}
	one, two := n.Flatten()[0].Spec, n.Flatten()[1].Spec
	if one.MaxAppendRate != 0 || one.Fragment.FlushInterval != nil || len(one.Fragment.Stores) != 0 || one.Replication != 3 ||
		one.Fragment.Retention.Seconds != 5 || one.Suspend == nil {
		t.Errorf("%v", one)
	}
	if got := one.Labels.String(); !one.Labels.Equal(&pb.LabelSet{Labels: []*pb.Label{{Name: "ab"}, {Name: "z", Value: "1"}, {Name: "z", Value: "2"}}}) {
		t.Errorf("%v", got)
	}
	if two.MaxAppendRate != 100 || two.Fragment.FlushInterval.Seconds != 3600 || two.Suspend != nil {
		t.Errorf("%v", two)
	}
}

func genListing(t *rapid.T) []*pb.ListResponse_Journal {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{1,2}(/[ab]{1,2}){0,3}/[xyz-]{3}`), 0, 12, rapid.ID).Draw(t, "names")
	var out []*pb.ListResponse_Journal
	for i, name := range names {
		labels := new(pb.LabelSet)
		for _, l := range rapid.SliceOfN(rapid.SampledFrom([]string{"env=prod", "env=qa", "team=core", "tag=1", "tag=2"}), 0, 4).Draw(t, "labels") {
			k, v, _ := strings.Cut(l, "=")
			labels.AddValue(k, v)
		}
		s := &pb.JournalSpec{
			Name: name, Replication: rapid.Int32Range(0, 3).Draw(t, "replication"), Labels: labels,
			Flags: uint32(rapid.SampledFrom([]int{0, 1, 4}).Draw(t, "flags")),
			Fragment: &pb.JournalSpec_Fragment{
				Length: rapid.Int64Range(0, 2).Draw(t, "length"), CompressionCodec: pb.CompressionCodec(rapid.Int32Range(0, 5).Draw(t, "codec")),
				Stores: rapid.SampledFrom([][]string{nil, {"s3://a/"}, {"s3://a/", "file:///b/"}}).Draw(t, "stores"),
			},
		}
		if s.MaxAppendRate = rapid.Int64Range(0, 1).Draw(t, "rate"); s.MaxAppendRate != 0 {
			s.Fragment.Retention = durationpb.New(3600e9)
			s.Suspend = &pb.JournalSpec_Suspend{Level: pb.JournalSpec_Suspend_PARTIAL, Offset: 7}
		}
		out = append(out, &pb.ListResponse_Journal{Spec: s, ModRevision: int64(i + 1)})
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		listing := genListing(t)
		b, err := FromListing(listing).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if len(listing) == 0 {
			return
		}
		n, err := Parse(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		want := make(map[string]*pb.ListResponse_Journal)
		for _, j := range listing {
			want[j.Spec.Name] = j
		}
		leaves := n.Flatten()
		for _, l := range leaves {
			j := want[l.Spec.Name]
			if l.Delete || j == nil || l.Revision != j.ModRevision || !proto.Equal(l.Spec, j.Spec) {
				t.Fatalf("%v became %v\n%s", j, l, b)
			}
		}
		if len(leaves) != len(listing) {
			t.Fatalf("%d journals became %d", len(listing), len(leaves))
		}
		var single func(*Node)
		single = func(n *Node) {
			if len(n.Children) == 1 {
				t.Fatalf("directory %q has a single child", n.Name)
			}
			for _, c := range n.Children {
				single(c)
			}
		}
		single(n)
	})
}

func FuzzParse(f *testing.F) {
	v := load(f).Hierarchy
	for _, s := range []string{v.Input, v.Hoisted, v.Single, "&a [*a]", "children: &x\n- name: ab/cd\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse([]byte(s))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
			return
		}
		if len(n.Flatten()) == 0 {
			t.Error("a valid tree without journals")
		}
		again, err := Parse([]byte(text(t, n)))
		if err != nil {
			t.Fatalf("its own text: %v", err)
		}
		leaves := func(n *Node) string {
			out := n.Flatten()
			for i := range out {
				out[i].Line = 0
			}
			return fmt.Sprint(out)
		}
		if a, b := leaves(n), leaves(again); a != b {
			t.Errorf("%s became %s", a, b)
		}
	})
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""},
		{"x\n", "x\n", ""},
		{"", "x\n", "+ x\n"},
		{"x\n", "", "- x\n"},
		{"a\nb\nc\n", "a\nB\nc\nd\n", "  a\n- b\n+ B\n  c\n+ d\n"},
		{"a\n", "a\na\n", "  a\n+ a\n"},
		{"a\nb\na\n", "a\n", "  a\n- b\n- a\n"},
		// Too much to compare line by line: only what both begin and end with is kept.
		{
			"x\n" + strings.Repeat("a\n", 3000) + "y\n", "x\n" + strings.Repeat("b\na\n", 1500) + "y\n",
			"  x\n" + strings.Repeat("- a\n", 2999) + strings.Repeat("+ b\n+ a\n", 1499) + "+ b\n  a\n  y\n",
		},
	} {
		if got := Diff(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %q", c.a, c.b, got)
		}
	}
	if s, err := Text(&pb.JournalSpec{Name: "a/journal", Replication: 2}); err != nil || s != "name: a/journal\nreplication: 2\n" {
		t.Errorf("%q, %v", s, err)
	}
}
