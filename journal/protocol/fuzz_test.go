package protocol

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/daybook-dev/daybook/internal/fault"
)

// seeds returns a field of each vector of a group.
func seeds(f *testing.F, group, field string) []string {
	f.Helper()
	data, err := os.ReadFile("testdata/journal.json")
	if err != nil {
		f.Fatal(err)
	}
	var groups map[string]json.RawMessage
	var vectors []map[string]any
	if err := errors.Join(json.Unmarshal(data, &groups), json.Unmarshal(groups[group], &vectors)); err != nil {
		f.Fatal(err)
	}
	var out []string
	for _, v := range vectors {
		out = append(out, v[field].(string))
	}
	return out
}

// Whatever bytes a message is decoded from, it is validated without a panic, and what is wrong with it is said in bounds.
func FuzzMessages(f *testing.F) {
	var types []protoreflect.MessageType
	protoregistry.GlobalTypes.RangeMessages(func(typ protoreflect.MessageType) bool {
		if _, ok := typ.Zero().Interface().(validator); ok && typ.Descriptor().ParentFile().Package() == "protocol" {
			types = append(types, typ)
		}
		return true
	})
	for _, h := range append(seeds(f, "messages", "hex"), seeds(f, "request_validity", "hex")...) {
		raw, err := hex.DecodeString(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, typ := range types {
			m := typ.New().Interface()
			if proto.Unmarshal(raw, m) != nil {
				continue
			}
			err := m.(validator).Validate()
			if err != nil && (!fault.Is(err, fault.Invalid) || len(err.Error()) > 4096) {
				t.Errorf("%s: %d bytes of error: %.300v", typ.Descriptor().FullName(), len(err.Error()), err)
			}
			switch m := m.(type) {
			case *LabelSelector:
				checkSelector(t, m, err)
			case *LabelSet:
				checkSet(t, m, err)
			}
		}
	})
}

// checkSelector checks that a selector that is valid has a text that means the same.
func checkSelector(t *testing.T, s *LabelSelector, err error) {
	if err != nil {
		return
	}
	again, err := ParseLabelSelector(s.Canonical())
	if err != nil || !again.Include.Equal(s.GetInclude()) || !again.Exclude.Equal(s.GetExclude()) {
		t.Errorf("%q of %v parses to %v: %v", s.Canonical(), s, again, err)
	}
}

// checkSet checks that a set that is valid stays so when labels are added to it, replaced and removed.
func checkSet(t *testing.T, s *LabelSet, err error) {
	if err != nil {
		return
	}
	if !UnionLabelSets(s, s).Equal(s) || !IntersectLabelSets(s, s).Equal(s) || len(SubtractLabelSets(s, s).Labels) != 0 {
		t.Errorf("the algebra of %v is wrong", s)
	}
	s.SetValue("some", "value")
	s.AddValue("some", "other")
	if err := s.Validate(); err != nil || s.ValueOf("some") != "other" {
		t.Errorf("%v: %v", s, err)
	}
	s.Remove("some")
	if err := s.Validate(); err != nil {
		t.Errorf("%v: %v", s, err)
	}
}

func FuzzJournal(f *testing.F) {
	for _, s := range seeds(f, "journal_names", "name") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		j := Journal(name)
		base, meta := j.SplitMeta()
		if string(base)+meta != name || base != j.StripMeta() {
			t.Errorf("%q is split into %q and %q", name, base, meta)
		}
		if j.Validate() != nil {
			return
		}
		for _, part := range strings.Split(name, ";") {
			if part == "" || part[0] == '/' || strings.HasPrefix(part, "..") && (len(part) == 2 || part[2] == '/') || strings.Contains(part, "//") {
				t.Errorf("%q is accepted", name)
			}
		}
	})
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range seeds(f, "endpoints", "endpoint") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e := Endpoint(text)
		err := e.Validate()
		address, dialErr := e.DialAddress()
		if (err == nil) != (dialErr == nil) || err == nil && address == "" {
			t.Errorf("%q: %v, but %q, %v", text, err, address, dialErr)
		}
		_, _ = e.TLS()
	})
}

func FuzzFragmentStore(f *testing.F) {
	for _, s := range seeds(f, "fragment_stores", "store") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := FragmentStore(text)
		u, err := s.URL()
		if (err == nil) != (s.Validate() == nil) {
			t.Errorf("%q: %v, and %v", text, err, s.Validate())
		}
		if err == nil && !strings.HasSuffix(u.Path, "/") {
			t.Errorf("%q is accepted", text)
		}
	})
}
