package bucket_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

func TestBelow(t *testing.T) {
	whole := bucket.NewMem("test")
	neighbours := []string{"a", "some/prefixed", "some/prefiw/x", "z"}
	for _, key := range neighbours {
		whole.SetBytes(key, []byte("a neighbour"))
	}
	b, err := bucket.Below(whole, "some/prefix")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := bucket.Put(ctx, b, "x/one", strings.NewReader("1")); err != nil {
		t.Fatal(err)
	}
	if err := b.Upload(ctx, "x/two", bucket.Object{Content: strings.NewReader("22"), Size: 2}); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Put(ctx, b, "y", strings.NewReader("333")); err != nil {
		t.Fatal(err)
	}
	if got := string(whole.Bytes("some/prefix/x/two")); got != "22" {
		t.Errorf("in the whole bucket lies %q, want 22", got)
	}
	for prefix, want := range map[string][]string{"": {"x/one", "x/two", "y"}, "x/": {"x/one", "x/two"}, "z": nil} {
		var keys []string
		for info, err := range b.List(ctx, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		if diff := cmp.Diff(want, keys); diff != "" {
			t.Errorf("List %q: %s", prefix, diff)
		}
	}
	info, err := b.Stat(ctx, "x/two")
	if err != nil || info.Key != "x/two" || info.Size != 2 {
		t.Errorf("Stat: %+v, %v", info, err)
	}
	r, err := b.Get(ctx, "y", 1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "33" || err != nil {
		t.Errorf("Get: %q, %v", got, err)
	}
	if key, err := b.KeyOf(b.URL("x/one")); key != "x/one" || err != nil {
		t.Errorf("KeyOf: %q, %v", key, err)
	}
	for _, key := range neighbours {
		if _, err := b.KeyOf(whole.URL(key)); !fault.Is(err, fault.Invalid) {
			t.Errorf("the key of the neighbour %s: %v; want Invalid", key, err)
		}
	}
	if err := b.Delete(ctx, "y"); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(whole.Keys(), "some/prefix/y") || len(whole.Keys()) != len(neighbours)+2 {
		t.Errorf("after Delete: %v", whole.Keys())
	}
	// What leads out of it is no key, as everywhere.
	if _, err := b.Get(ctx, "../prefixed/x", 0, -1); err == nil {
		t.Error("a key led out")
	}
	for _, dir := range []string{"", "/", "a//b", "a/"} {
		if _, err := bucket.Below(whole, dir); !fault.Is(err, fault.Invalid) {
			t.Errorf("Below %q: %v; want Invalid", dir, err)
		}
	}
}
