package archive_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// TestReadsGiveWhatWasWritten writes random streams and compares random reads with the source, with the index, and
// with one that was rebuilt.
func TestReadsGiveWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var entries [][]byte
		var indices []types.MessageIndex
		next := uint64(0)
		for range rapid.IntRange(0, 30).Draw(rt, "entries") {
			next += rapid.SampledFrom([]uint64{0, 0, 0, 1, 7}).Draw(rt, "gap")
			entries = append(entries, entry(t, next, rapid.SampledFrom([]int{0, 10, 60_000}).Draw(rt, "filler")))
			indices = append(indices, types.MessageIndex(next))
			next++
		}
		p := params
		p.Density.StreamRange = rapid.Int64Range(0, 5).Draw(rt, "stream range")
		p.Density.ByteRange = rapid.SampledFrom([]int64{0, 1000, 1 << 20}).Draw(rt, "byte range")
		p.TerminalIndex = types.MessageIndex(next) + types.MessageIndex(rapid.IntRange(-1, 3).Draw(rt, "missing at the end"))
		b := bucket.NewMem("b")
		m, _, indexKey := mustWrite(t, b, p, source(t, entries...))

		// What is there and what is missing make up everything up to the end.
		var covered int64
		for _, r := range m.Missing {
			covered += int64(r.Last-r.First) + 1
		}
		if want := int64(max(p.TerminalIndex+1, types.MessageIndex(next))); covered+m.EntryCount != want {
			rt.Fatalf("%d entries and %v missing; the stream has %d", m.EntryCount, m.Missing, want)
		}

		for _, keepIndex := range []bool{true, false} {
			if !keepIndex {
				if err := b.Delete(t.Context(), indexKey); err != nil {
					rt.Fatal(err)
				}
			}
			s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
			if err != nil || keepIndex != (s.Rebuilt() == nil) {
				rt.Fatalf("Open: %v", err)
			}
			for range 5 {
				index := types.MessageIndex(rapid.IntRange(-1, int(next)+2).Draw(rt, "index"))
				limit := rapid.IntRange(0, 8).Draw(rt, "limit")
				var want []types.MessageIndex
				for _, i := range indices {
					if i >= index && (limit == 0 || len(want) < limit) {
						want = append(want, i)
					}
				}
				got, data := collect(t, s, index, limit)
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatalf("Get %d, %d (-want +got):\n%s", index, limit, diff)
				}
				for k, d := range data {
					if at := indexOf(indices, got[k]); !bytes.Equal(d, entries[at]) {
						rt.Fatalf("entry %d differs", got[k])
					}
				}
			}
		}
	})
}

func indexOf(indices []types.MessageIndex, index types.MessageIndex) int {
	for i, x := range indices {
		if x == index {
			return i
		}
	}
	return -1
}

// TestDamageIsFound changes, cuts or adds bytes of either object at random places. No read may give something else than what
// was written, and Verify must refuse.
func TestDamageIsFound(t *testing.T) {
	var entries [][]byte
	for i := range uint64(40) {
		entries = append(entries, entry(t, i, 20_000))
	}
	b := bucket.NewMem("b")
	m, key, indexKey := mustWrite(t, b, params, source(t, entries...))
	originals := map[string][]byte{key: b.Bytes(key), indexKey: b.Bytes(indexKey)}
	rapid.Check(t, func(rt *rapid.T) {
		victim := rapid.SampledFrom([]string{key, indexKey}).Draw(rt, "victim")
		data := bytes.Clone(originals[victim])
		at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		switch rapid.SampledFrom([]string{"flip", "cut", "add"}).Draw(rt, "damage") {
		case "flip":
			data[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		case "cut":
			data = data[:at]
		case "add":
			data = append(data, 0)
		}
		b.SetBytes(victim, data)
		defer b.SetBytes(victim, originals[victim])

		if err := archive.Verify(t.Context(), b, m); !fault.Is(err, fault.DataLoss) {
			rt.Errorf("Verify: %v; want DataLoss", err)
		}
		s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
		if err != nil {
			rt.Fatalf("Open: %v", err) // the entries are only read when the index is damaged
		}
		n := 0
		err = s.Get(t.Context(), 0, 0, func(e archive.Entry) bool {
			if int(e.Index) != n || !bytes.Equal(e.Data, entries[n]) {
				rt.Errorf("entry %d is not what was written", e.Index)
			}
			n++
			return true
		})
		switch {
		case err != nil && !fault.Is(err, fault.DataLoss):
			rt.Errorf("Get: %v; want DataLoss", err)
		case err == nil && n != len(entries):
			rt.Errorf("Get gave %d entries and no error", n)
		case err != nil && victim == indexKey:
			rt.Errorf("Get with a damaged index: %v", err)
		}
	})
}

// FuzzOpen reads objects of arbitrary bytes: errors are fine, panics and endless memory are not.
func FuzzOpen(f *testing.F) {
	b := bucket.NewMem("b")
	_, key, indexKey := mustWrite(f, b, params, source(f, entry(f, 0, 10), entry(f, 2, 10)))
	f.Add(b.Bytes(key), b.Bytes(indexKey))
	f.Add(b.Bytes(key), []byte{})
	f.Add([]byte{}, b.Bytes(indexKey))
	f.Add([]byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"), []byte{})
	f.Fuzz(func(t *testing.T, entries, index []byte) {
		b := bucket.NewMem("b")
		b.SetBytes("p/e", entries)
		b.SetBytes("p/i", index)
		s, err := archive.Open(context.Background(), b, b.URL("p/e"), b.URL("p/i"))
		if err != nil {
			return
		}
		err = s.Get(context.Background(), 0, 0, func(e archive.Entry) bool {
			_ = proto.Unmarshal(e.Data, new(logpb.LogEntry))
			return true
		})
		if err != nil && !fault.Is(err, fault.DataLoss) {
			t.Errorf("Get: %v; want DataLoss", err)
		}
	})
}
