package protocol

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

// verdict is what the vectors say about the validity of something.
type verdict struct {
	Valid   bool `json:"valid"`
	Invalid struct {
		At     string `json:"at"`
		Reason Reason `json:"reason"`
	} `json:"invalid"`
}

func (v verdict) check(t *testing.T, what string, err error) {
	t.Helper()
	if v.Valid {
		if err != nil {
			t.Errorf("%s: unexpected error %v", what, err)
		}
		return
	}
	wantViolation(t, what, err, v.Invalid.At, v.Invalid.Reason)
}

func wantViolation(t *testing.T, what string, err error, at string, reason Reason) {
	t.Helper()
	var got *ValidationError
	if !errors.As(err, &got) {
		t.Errorf("%s: got %v, want %s at %q", what, err, reason, at)
		return
	}
	if got.At != at || got.Reason != reason {
		t.Errorf("%s: got %s at %q (%v), want %s at %q", what, got.Reason, got.At, got, reason, at)
	}
}

// vectors decodes one group of the golden data.
func vectors[T any](t *testing.T, group string) T {
	t.Helper()
	data, err := os.ReadFile("testdata/journal.json")
	if err != nil {
		t.Fatal(err)
	}
	var groups map[string]json.RawMessage
	if err := json.Unmarshal(data, &groups); err != nil {
		t.Fatal(err)
	}
	var out T
	if err := json.Unmarshal(groups[group], &out); err != nil {
		t.Fatalf("group %s: %v", group, err)
	}
	return out
}

// labelVector is [name, value, prefix].
type labelVector [3]any

func toLabel(v labelVector) *Label {
	return &Label{Name: v[0].(string), Value: v[1].(string), Prefix: v[2].(bool)}
}

func toSet(vs []labelVector) *LabelSet {
	s := new(LabelSet)
	for _, v := range vs {
		s.Labels = append(s.Labels, toLabel(v))
	}
	return s
}

func decode(t *testing.T, message, hexa string) proto.Message {
	t.Helper()
	raw, err := hex.DecodeString(hexa)
	if err != nil {
		t.Fatal(err)
	}
	typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(message))
	if err != nil {
		t.Fatal(err)
	}
	m := typ.New().Interface()
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatalf("%s: %v", message, err)
	}
	return m
}

type validator interface{ Validate() error }

func TestMessages(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Name, Message, Hex string
		Logical            json.RawMessage
	}](t, "messages") {
		t.Run(v.Name, func(t *testing.T) {
			m := decode(t, v.Message, v.Hex)
			want := m.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(v.Logical, want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, m, protocmp.Transform()); d != "" {
				t.Errorf("decoded differs from logical (-want +got):\n%s", d)
			}
			again, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			back := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(again, back); err != nil || !proto.Equal(m, back) {
				t.Errorf("re-encoding changed the message: %v", err)
			}
			if m, ok := m.(validator); ok {
				v.check(t, v.Name, m.Validate())
			} else if v.Message != "protocol.SHA1Sum" {
				t.Errorf("%s has no Validate method", v.Message)
			}
		})
	}
}

func TestRequestValidity(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Case, Message, Hex string
	}](t, "request_validity") {
		err := decode(t, v.Message, v.Hex).(validator).Validate()
		// The reference accepts this delete and then crashes; it is refused here.
		if strings.HasPrefix(v.Case, "delete with metadata") {
			wantViolation(t, v.Case, err, "Changes[0].Delete", MetaInSpecName)
			continue
		}
		v.check(t, v.Message+" "+v.Case, err)
	}
}

func TestJournalSpecValidity(t *testing.T) {
	full := &JournalSpec{}
	for _, m := range vectors[[]struct{ Name, Message, Hex string }](t, "messages") {
		if m.Name == "journal_spec_full" {
			full = decode(t, m.Message, m.Hex).(*JournalSpec)
		}
	}
	flags := func(n uint32) func(*JournalSpec) { return func(s *JournalSpec) { s.Flags = n } }
	length := func(n int64) func(*JournalSpec) { return func(s *JournalSpec) { s.Fragment.Length = n } }
	replication := func(n int32) func(*JournalSpec) { return func(s *JournalSpec) { s.Replication = n } }
	level := func(n JournalSpec_Suspend_Level) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Suspend.Level = n }
	}
	codec := func(n CompressionCodec) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Fragment.CompressionCodec = n }
	}
	template := func(text string) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Fragment.PathPostfixTemplate = text }
	}
	refresh := func(d time.Duration) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Fragment.RefreshInterval = durationpb.New(d) }
	}
	flush := func(d time.Duration) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Fragment.FlushInterval = durationpb.New(d) }
	}
	label := func(name, value string) func(*JournalSpec) {
		return func(s *JournalSpec) { s.Labels.AddValue(name, value) }
	}
	offload := CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION
	changes := map[string]func(*JournalSpec){
		"none":                   func(*JournalSpec) {},
		"replication=0":          replication(0),
		"replication=1":          replication(1),
		"replication=5":          replication(5),
		"replication=6":          replication(6),
		"suspend unset":          func(s *JournalSpec) { s.Suspend = nil },
		"suspend.level=NONE":     level(JournalSpec_Suspend_NONE),
		"suspend.level=FULL":     level(JournalSpec_Suspend_FULL),
		"suspend.level=3":        level(3),
		"suspend.offset=-1":      func(s *JournalSpec) { s.Suspend.Offset = -1 },
		"label name=x":           label("name", "x"),
		"label prefix=x/":        label("prefix", "x/"),
		"content-type twice":     label(LabelContentType, "text/plain"),
		"content-type=bogus/x/y": func(s *JournalSpec) { s.Labels.SetValue(LabelContentType, "bogus/x/y") },
		"content-type removed (message-type kept)": func(s *JournalSpec) { s.Labels.Remove(LabelContentType) },
		"message-subtype without message-type": func(s *JournalSpec) {
			s.Labels.Remove(LabelMessageType)
			s.Labels.SetValue(LabelMessageSubType, "x")
		},
		"region twice": func(s *JournalSpec) {
			s.Labels.AddValue(LabelRegion, "a")
			s.Labels.AddValue(LabelRegion, "b")
		},
		"fragment.length=1023":               length(1023),
		"fragment.length=1024":               length(1024),
		"fragment.length=2^34":               length(1 << 34),
		"fragment.length=2^34+1":             length(1<<34 + 1),
		"fragment.compression_codec=INVALID": codec(0),
		"fragment.compression_codec=6":       codec(6),
		"GZIP_OFFLOAD_DECOMPRESSION with first store file:///": func(s *JournalSpec) {
			s.Fragment.CompressionCodec, s.Fragment.Stores = offload, []string{"file:///"}
		},
		"GZIP_OFFLOAD_DECOMPRESSION with second store file:///": func(s *JournalSpec) {
			s.Fragment.CompressionCodec, s.Fragment.Stores = offload, []string{"s3://b/", "file:///"}
		},
		"stores empty":                   func(s *JournalSpec) { s.Fragment.Stores = nil },
		"stores[1] invalid":              func(s *JournalSpec) { s.Fragment.Stores = []string{"s3://b/", "b"} },
		"refresh_interval=999ms":         refresh(999 * time.Millisecond),
		"refresh_interval=1s":            refresh(time.Second),
		"refresh_interval=24h":           refresh(24 * time.Hour),
		"refresh_interval=24h1ns":        refresh(24*time.Hour + 1),
		"retention=-1h":                  func(s *JournalSpec) { s.Fragment.Retention = durationpb.New(-time.Hour) },
		"flush_interval=0":               flush(0),
		"flush_interval=59s":             flush(59 * time.Second),
		"flush_interval=-1s":             flush(-time.Second),
		"template unparseable":           template("{{"),
		"template unknown field":         template("{{ .Nope }}"),
		"template .Spool.Begin":          template("{{ .Spool.Begin }}"),
		"template .Spool.Registers":      template(`{{ .Spool.Registers.ValueOf "a" }}`),
		"template .JournalSpec.LabelSet": template(`{{ .JournalSpec.LabelSet.ValueOf "a" }}`),
		"template .Name (promoted)":      template("{{ .Name }}"),
		"flags=0":                        flags(0),
		"flags=1":                        flags(1),
		"flags=2":                        flags(2),
		"flags=3":                        flags(3),
		"flags=4":                        flags(4),
		"flags=5":                        flags(5),
		"flags=6":                        flags(6),
		"flags=7":                        flags(7),
		"flags=8":                        flags(8),
		"max_append_rate=-1":             func(s *JournalSpec) { s.MaxAppendRate = -1 },
		"name with metadata":             func(s *JournalSpec) { s.Name += ";meta" },
	}
	for _, v := range vectors[[]struct {
		verdict
		Change  string `json:"change_to_full_spec"`
		Desired int32  `json:"desired_replication"`
	}](t, "journal_spec_validity") {
		change, ok := changes[v.Change]
		if !ok {
			t.Errorf("change %q is not known to the test", v.Change)
			continue
		}
		spec := proto.Clone(full).(*JournalSpec)
		change(spec)
		v.check(t, v.Change, spec.Validate())
		// What an invalid number of replicas would come to does not matter.
		if v.Valid && spec.DesiredReplication() != v.Desired {
			t.Errorf("%s: desired replication %d, want %d", v.Change, spec.DesiredReplication(), v.Desired)
		}
	}
}

func TestJournalNames(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Name, Base, Meta string
		Bytes            int
		AsSpec           bool `json:"valid_as_spec_name"`
	}](t, "journal_names") {
		if v.Base == "" && v.Meta == "" {
			v.Base = v.Name // It is told only where there is something to split.
		}
		if base, meta := Journal(v.Name).SplitMeta(); string(base) != v.Base || meta != v.Meta || len(v.Name) != v.Bytes {
			t.Errorf("%q is split into %q and %q", v.Name, base, meta)
		}
		err := Journal(v.Name).Validate()
		// The reference accepts names that leave the root of a file store; they are refused here.
		if strings.HasPrefix(v.Name, "../") {
			wantViolation(t, v.Name, err, "", ParentElement)
			continue
		}
		v.check(t, v.Name, err)

		spec := &JournalSpec{
			Name: v.Name, Replication: 1,
			Fragment: &JournalSpec_Fragment{
				Length: 1024, CompressionCodec: CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Second),
			},
		}
		if got := spec.Validate() == nil; got != v.AsSpec {
			t.Errorf("%q as the name of a spec: valid is %v, want %v", v.Name, got, v.AsSpec)
		}
	}
}

func TestLabelVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Label      labelVector
		InSelector bool `json:"valid_in_selector"`
	}](t, "labels") {
		v.check(t, "label", toLabel(v.Label).Validate())
		s := &LabelSelector{Include: &LabelSet{Labels: []*Label{toLabel(v.Label)}}}
		if got := s.Validate() == nil; got != v.InSelector {
			t.Errorf("%v in a selector: valid is %v, want %v", v.Label, got, v.InSelector)
		}
	}
	for _, v := range vectors[[]struct {
		verdict
		Labels []labelVector
	}](t, "label_sets") {
		v.check(t, "set", toSet(v.Labels).Validate())
	}
}

func TestLabelSetAlgebraVectors(t *testing.T) {
	v := vectors[struct {
		Left         []labelVector
		Right        []labelVector
		Union        []labelVector `json:"union_prefers_left"`
		Intersection []labelVector
		Minus        []labelVector                  `json:"left_minus_right"`
		Registers    struct{ Result []labelVector } `json:"registers_after_append"`
	}](t, "label_set_algebra")
	left, right := toSet(v.Left), toSet(v.Right)
	for _, c := range []struct {
		name string
		got  *LabelSet
		want []labelVector
	}{
		{"union", UnionLabelSets(left, right), v.Union},
		{"intersection", IntersectLabelSets(left, right), v.Intersection},
		{"subtraction", SubtractLabelSets(left, right), v.Minus},
		{"registers", UnionLabelSets(MustLabelSet("aa", "9"), SubtractLabelSets(left, right)), v.Registers.Result},
	} {
		if !c.got.Equal(toSet(c.want)) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestSelectorVectors(t *testing.T) {
	for _, v := range vectors[struct {
		Cases []struct {
			verdict
			OK               bool
			Input, Canonical string
			Include, Exclude []labelVector
		}
	}](t, "selector_parse").Cases {
		s, err := ParseLabelSelector(v.Input)
		v.Valid = v.OK
		v.check(t, v.Input, err)
		if err != nil {
			continue
		}
		if !s.Include.Equal(toSet(v.Include)) || !s.Exclude.Equal(toSet(v.Exclude)) {
			t.Errorf("%q parses to %v", v.Input, s)
		}
		if got := s.Canonical(); got != v.Canonical {
			t.Errorf("%q: canonical form %q, want %q", v.Input, got, v.Canonical)
		}
		if again, err := ParseLabelSelector(s.Canonical()); err != nil || !proto.Equal(again, s) {
			t.Errorf("%q: canonical form parses to %v, %v", v.Input, again, err)
		}
	}
	for _, v := range vectors[[]struct {
		Selector string
		Labels   []labelVector
		Matches  bool
	}](t, "selector_match") {
		if got := Must(ParseLabelSelector(v.Selector)).Matches(toSet(v.Labels)); got != v.Matches {
			t.Errorf("%q matches %v is %v", v.Selector, v.Labels, got)
		}
	}
}

func TestProcessIDVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Zone, Suffix string
	}](t, "process_ids") {
		v.check(t, v.Zone+"#"+v.Suffix, (&ProcessSpec_ID{Zone: v.Zone, Suffix: v.Suffix}).Validate())
	}
}

func TestEndpointVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Endpoint string
		Dial     string `json:"dial_address"`
	}](t, "endpoints") {
		v.check(t, v.Endpoint, Endpoint(v.Endpoint).Validate())
		if got, err := Endpoint(v.Endpoint).DialAddress(); got != v.Dial || (err == nil) != v.Valid {
			t.Errorf("%q: dial address %q, %v; want %q", v.Endpoint, got, err, v.Dial)
		}
	}
}

func TestFragmentStoreVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		Store string
	}](t, "fragment_stores") {
		v.check(t, v.Store, FragmentStore(v.Store).Validate())
	}
}

func TestFragmentNameVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		verdict
		OK       bool
		Relative string `json:"relative_path"`
		Name     string `json:"content_name"`
		Path     string `json:"content_path"`
		Fragment json.RawMessage
	}](t, "fragment_names") {
		f, err := ParseFragmentFromRelativePath("acme/min", v.Relative)
		if !v.OK {
			// Where an unclean postfix is reported as a bad offset by the reference, it is named here for what it is.
			if i := strings.LastIndexByte(v.Relative, '/'); i >= 0 && v.Invalid.At == "Begin" {
				wantViolation(t, v.Relative, err, "PathPostfix", PathNotClean)
			} else {
				v.check(t, v.Relative, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", v.Relative, err)
			continue
		}
		want := new(Fragment)
		if err := protojson.Unmarshal(v.Fragment, want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, f, protocmp.Transform()); d != "" {
			t.Errorf("%q (-want +got):\n%s", v.Relative, d)
		}
		if f.ContentName() != v.Name || f.ContentPath() != v.Path {
			t.Errorf("%q: name %q, path %q", v.Relative, f.ContentName(), f.ContentPath())
		}
	}
}

func TestFragmentPathVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		Length   int64  `json:"content_length"`
		Name     string `json:"content_name"`
		Path     string `json:"content_path"`
		Fragment json.RawMessage
	}](t, "fragment_paths") {
		f := new(Fragment)
		if err := protojson.Unmarshal(v.Fragment, f); err != nil {
			t.Fatal(err)
		}
		if f.ContentName() != v.Name || f.ContentPath() != v.Path || f.ContentLength() != v.Length {
			t.Errorf("%v: name %q, path %q, length %d", f, f.ContentName(), f.ContentPath(), f.ContentLength())
		}
	}
}

func TestCodecVectors(t *testing.T) {
	for _, v := range vectors[[]struct {
		Codec     string
		Number    int32
		Extension string `json:"written_extension"`
	}](t, "codecs") {
		c := CompressionCodec(v.Number)
		if c == CompressionCodec_INVALID {
			continue
		}
		if c.String() != v.Codec || c.Extension() != v.Extension {
			t.Errorf("codec %d is %s with extension %q", v.Number, c, c.Extension())
		}
		if got, err := CodecOfExtension(strings.ToUpper(v.Extension)); got != c || err != nil {
			t.Errorf("extension %q is of codec %s, %v", v.Extension, got, err)
		}
	}
}

// Each group of the golden data is used by a test: of this package, or of one that has a copy of it.
func TestEveryGroupIsUsed(t *testing.T) {
	const here = "vectors_test.go"
	type use struct{ test, data string }
	uses := map[string]use{
		"authorization":       {"../auth/auth_test.go", "../auth/testdata/authorization.json"},
		"codecs":              {"../fragment/fragment_test.go", "../fragment/testdata/codecs.json"}, // Their samples; the names are used here.
		"cover_set_add":       {"../broker/index_test.go", "../broker/testdata/index.json"},
		"cover_set_lookup":    {"../broker/index_test.go", "../broker/testdata/index.json"},
		"index_query":         {"../broker/index_test.go", "../broker/testdata/index.json"},
		"fragment_listing":    {"../broker/index_test.go", "../broker/testdata/index.json"},
		"fragment_rolling":    {"../broker/index_test.go", "../broker/testdata/index.json"},
		"append_flow_control": {"../broker/flow_test.go", "../broker/testdata/append_flow_control.json"},
		"yaml_hierarchy":      {"../spectree/tree_test.go", "../spectree/testdata/yaml_hierarchy.json"},
		"client_backoff_ms":   {"../client/route_test.go", "testdata/journal.json"},
	}
	for _, group := range []string{
		"messages", "request_validity", "journal_spec_validity", "journal_names", "labels", "label_sets", "label_set_algebra",
		"selector_parse", "selector_match", "process_ids", "endpoints", "fragment_stores", "fragment_names", "fragment_paths",
	} {
		uses[group] = use{here, "testdata/journal.json"}
	}
	load := func(name string) map[string]any {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var groups map[string]any
		if err := json.Unmarshal(data, &groups); err != nil {
			t.Fatal(err)
		}
		return groups
	}
	groups := load("testdata/journal.json")
	for group, want := range groups {
		if group == "about" {
			continue
		}
		u, ok := uses[group]
		if !ok {
			t.Errorf("no test is known to use the group %s", group)
			continue
		}
		delete(uses, group)
		var got any = load(u.data)
		if whole, ok := got.(map[string]any)[group]; ok {
			got = whole
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("the copy of %s in %s is another one", group, u.data)
		}
		source, err := os.ReadFile(u.test)
		if err != nil {
			t.Fatal(err)
		}
		// A file of one group need not name it.
		name := strings.TrimSuffix(filepath.Base(u.data), ".json")
		if !strings.Contains(string(source), group) && (name != group || !strings.Contains(string(source), filepath.Base(u.data))) {
			t.Errorf("%s does not use %s", u.test, group)
		}
	}
	for group := range uses {
		t.Errorf("there is no group %s", group)
	}
}
