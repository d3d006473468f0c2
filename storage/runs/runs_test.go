package runs

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

var names = []storage.Stream{{Project: "p", Path: "a/+/b"}, {Project: "p", Path: "a/+/c"}}

// entry is an index of a stream.
type entry struct {
	stream storage.Stream
	index  types.MessageIndex
}

// entries returns what is in the runs, which must have no overlaps.
func entries(t *rapid.T, stream storage.Stream, all []Run) map[entry]string {
	m := make(map[entry]string)
	for _, r := range all {
		if len(r.Values) == 0 {
			t.Fatalf("there is an empty run at %d", r.First)
		}
		for i, v := range r.Values {
			e := entry{stream, r.First + types.MessageIndex(i)}
			if _, ok := m[e]; ok {
				t.Fatalf("entry %v is there twice", e)
			}
			m[e] = string(v)
		}
	}
	return m
}

// Of any puts, in their order, each index is collected once, with its first value, and nothing given is changed.
func TestCollect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var puts []storage.PutRequest
		want := make(map[entry]string)
		for i := range rapid.IntRange(0, 8).Draw(t, "puts") {
			p := storage.PutRequest{
				Stream: rapid.SampledFrom(names).Draw(t, "stream"),
				Index:  types.MessageIndex(rapid.IntRange(0, 15).Draw(t, "index")),
			}
			values := make([][]byte, 0, 32) // room that must not be used
			for k := range rapid.IntRange(0, 5).Draw(t, "values") {
				values = append(values, fmt.Appendf(nil, "%d.%d", i, k))
				e := entry{p.Stream, p.Index + types.MessageIndex(k)}
				if _, ok := want[e]; !ok {
					want[e] = string(values[k])
				}
			}
			p.Values = values
			puts = append(puts, p)
		}
		got := make(map[entry]string)
		for _, s := range Collect(puts) {
			end := types.MessageIndex(-1)
			for _, r := range s.Runs {
				if r.First < end {
					t.Fatalf("run %d follows one that ends at %d", r.First, end)
				}
				end = r.Span().End
			}
			for e, v := range entries(t, s.Name, s.Runs) {
				got[e] = v
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		for i, p := range puts {
			for k, v := range p.Values[:cap(p.Values)] {
				if want := fmt.Sprintf("%d.%d", i, k); k < len(p.Values) && string(v) != want || k >= len(p.Values) && v != nil {
					t.Fatalf("value %d of put %d was changed to %q", k, i, v)
				}
			}
		}
	})
}

func span(t *rapid.T, what string) Span {
	first := types.MessageIndex(rapid.IntRange(0, 20).Draw(t, what))
	return Span{first, first + types.MessageIndex(rapid.IntRange(1, 6).Draw(t, "length"))}
}

func TestMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Run
		next := types.MessageIndex(0)
		for range rapid.IntRange(0, 4).Draw(t, "runs") {
			r := Run{First: next + types.MessageIndex(rapid.IntRange(0, 3).Draw(t, "gap"))}
			for range rapid.IntRange(1, 5).Draw(t, "values") {
				r.Values = append(r.Values, fmt.Append(nil, r.Span().End))
			}
			next = r.Span().End
			all = append(all, r)
		}
		want := entries(t, names[0], all)
		var there Spans
		var have []Span
		for first := range rapid.IntRange(0, 5).Draw(t, "spans") {
			s := span(t, "first")
			s.First, s.End = s.First+types.MessageIndex(first), s.End+types.MessageIndex(first)
			if len(have) > 0 && s.First < have[len(have)-1].First {
				continue // they come in order
			}
			have = append(have, s)
			there.Add(s)
			for i := s.First; i < s.End; i++ {
				delete(want, entry{names[0], i})
			}
		}
		if diff := cmp.Diff(want, entries(t, names[0], Missing(all, have)), cmp.AllowUnexported(entry{})); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Runs in any order, and gaps between them, are what anybody may send: many of them take no longer than as many others.
func TestManyRuns(t *testing.T) {
	const n = 1 << 17
	puts := make([]storage.PutRequest, n)
	gapped := make([]Run, n)
	have := make([]Span, n)
	values := make([][]byte, n)
	for i := range n {
		index := n - 1 - i
		values[index] = []byte{byte(index), byte(index >> 8), byte(index >> 16)}
		puts[i] = storage.PutRequest{Stream: names[0], Index: types.MessageIndex(index), Values: values[index : index+1]}
		first := types.MessageIndex(2 * i)
		gapped[i], have[i] = Run{First: first, Values: [][]byte{nil}}, Span{first, first + 1}
	}
	got := Collect(puts)
	if len(got) != 1 || len(got[0].Runs) != 1 || got[0].Runs[0].Span() != (Span{0, n}) {
		t.Fatalf("%d streams of %d runs", len(got), len(got[0].Runs))
	}
	for i, v := range got[0].Runs[0].Values {
		if !bytes.Equal(v, values[i]) {
			t.Fatalf("value %d is %x", i, v)
		}
	}
	if got := Missing(gapped, have); len(got) != 0 {
		t.Errorf("%d runs are missing, of those that are there", len(got))
	}
	if got := Missing(gapped, nil); len(got) != n {
		t.Errorf("%d of %d runs are missing", len(got), n)
	}
}

func TestCutAndPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Run{First: types.MessageIndex(rapid.IntRange(0, 1000).Draw(t, "first"))}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 300), 1, 20).Draw(t, "sizes") {
			r.Values = append(r.Values, bytes.Repeat([]byte("x"), n))
		}
		size := rapid.IntRange(1, 1000).Draw(t, "size")
		next, i := r.First, 0
		for _, part := range r.Cut(size) {
			packed := part.AppendPacked(nil)
			if len(packed) != part.Size() || len(packed) > size && len(part.Values) > 1 {
				t.Fatalf("%d entries have %d bytes, Size says %d, and %d are allowed", len(part.Values), len(packed), part.Size(), size)
			}
			back, err := Unpack(packed, part.First, len(part.Values))
			if err != nil || back.First != next {
				t.Fatalf("part at %d, want %d: %v", back.First, next, err)
			}
			for _, v := range back.Values {
				if !bytes.Equal(v, r.Values[i]) {
					t.Fatalf("value %d differs", i)
				}
				i++
			}
			next = back.Span().End
		}
		if i != len(r.Values) {
			t.Fatalf("%d of %d values came back", i, len(r.Values))
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	packed := Run{Values: [][]byte{[]byte("one"), []byte("two")}}.AppendPacked(nil)
	for count, b := range map[int][]byte{1: packed, 3: packed, 2: packed[:7], math.MaxInt: packed, 4: {0xff, 0xff, 0xff, 0xff, 0xff}} {
		if r, err := Unpack(b, 0, count); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%d entries in %x: %v, %v", count, b, r, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(Run{Values: [][]byte{[]byte("one"), {}}}.AppendPacked(nil), 2)
	f.Fuzz(func(t *testing.T, packed []byte, count int) {
		if r, err := Unpack(packed, 5, max(0, count)); err == nil && len(r.Values) != max(0, count) {
			t.Errorf("%d values", len(r.Values))
		}
	})
}

func TestSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Spans
		have := make(map[types.MessageIndex]bool)
		for range rapid.IntRange(0, 10).Draw(t, "spans") {
			x, more := span(t, "first"), false
			for i := x.First; i < x.End; i++ {
				more = more || !have[i]
				have[i] = true
			}
			if got := s.Add(x); got != more {
				t.Fatalf("Add %v to %v = %v", x, s, got)
			}
		}
		next, end := types.MessageIndex(0), types.MessageIndex(0)
		for have[next] {
			next++
		}
		for i := range have {
			end = max(end, i+1)
		}
		if s.Next() != next || s.End() != end {
			t.Fatalf("Next = %d, End = %d; want %d, %d", s.Next(), s.End(), next, end)
		}
		missing := end - types.MessageIndex(len(have))
		for _, gap := range s.Gaps() {
			for i := gap.First; i < gap.End; i++ {
				missing--
				if have[i] || i >= end {
					t.Fatalf("gap %v of %v", gap, s)
				}
			}
		}
		if missing != 0 {
			t.Fatalf("%d indices are in no gap of %v", missing, s)
		}
	})
}
