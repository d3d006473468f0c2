package testkit

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCompareEqual(t *testing.T) {
	for _, kind := range Kinds {
		for _, size := range []int64{0, 1, 2, 5, 4096, 256 << 10, 1<<20 + 1} {
			c := Content{Kind: kind, Seed: 7, Size: size}
			if err := Compare(c.Reader(), iotest.HalfReader(c.Reader())); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		}
	}
}

func TestCompareFindsFirstDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 600<<10).Draw(t, "size")
		content := Content{Kind: Lines, Seed: rapid.Uint64().Draw(t, "seed"), Size: size}
		want, err := io.ReadAll(content.Reader())
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.Int64Range(0, size-1).Draw(t, "at")
		got := bytes.Clone(want)
		switch rapid.SampledFrom([]string{"changed", "cut", "longer"}).Draw(t, "how") {
		case "changed":
			got[at] ^= 0x80
		case "cut":
			got = got[:at]
		case "longer":
			at = size
			got = append(got, '!')
		}
		var d *Difference
		if err := Compare(bytes.NewReader(want), iotest.HalfReader(bytes.NewReader(got))); !errors.As(err, &d) {
			t.Fatalf("Compare = %v, want a difference", err)
		}
		if d.Offset != at || d.WantSize != size || d.GotSize != int64(len(got)) || d.WantSum == d.GotSum {
			t.Fatalf("difference at %d of %d and %d bytes, want at %d of %d and %d", d.Offset, d.WantSize, d.GotSize, at, size, len(got))
		}
		if line := int64(1 + bytes.Count(want[:at], []byte("\n"))); d.Line != line {
			t.Fatalf("line %d, want %d", d.Line, line)
		}
		if !bytes.Equal(d.Want[:d.Before], d.Got[:d.Before]) || !bytes.Contains(want, d.Want) || !bytes.Contains(got, d.Got) {
			t.Fatalf("context %q and %q", d.Want, d.Got)
		}
	})
}

func TestDifferenceText(t *testing.T) {
	err := Compare(strings.NewReader("one\ntwo\nthree\n"), strings.NewReader("one\ntwo\nthree"))
	if err == nil {
		t.Fatal("no difference")
	}
	want := "first difference at byte 13, line 3:\n" +
		`  want "one\ntwo\nthree\n"` + "\n" +
		`  got  "one\ntwo\nthree"` + "\n" +
		"  want 14 bytes, sha256 "
	if diff := cmp.Diff(want, err.Error()[:min(len(want), len(err.Error()))]); diff != "" {
		t.Error(diff)
	}
}

func TestCompareReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	err := Compare(strings.NewReader("abc"), io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "what was read at byte 2") {
		t.Errorf("Compare = %v", err)
	}
}
