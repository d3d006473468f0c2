package archive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

type vectorCase struct {
	Name       string
	Descriptor []byte `json:"descriptor_b64"`
	Entries    []struct {
		Proto []byte `json:"proto_b64"`
	}
	File     []byte `json:"logstream_entries_b64"`
	Index    []byte `json:"logstream_index_b64"`
	Manifest struct {
		Project     types.Project
		ByteRange   int64 `json:"byte_range"`
		PrefixRange int64 `json:"prefix_index_range"`
		StreamRange int64 `json:"stream_index_range"`
	}
	Reads []struct {
		Index   types.MessageIndex
		Limit   int
		Indices []types.MessageIndex `json:"stream_indices"`
	}
	Tail struct {
		StreamIndex types.MessageIndex `json:"stream_index"`
		Error       string
	}
	Raw []byte `json:"rendered_raw_b64"`
}

func vectors(t *testing.T) []vectorCase {
	t.Helper()
	data, err := os.ReadFile("testdata/archive.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Cases []vectorCase }
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v.Cases
}

// source gives serialized entries under the indices that they carry.
func source(t testing.TB, entries ...[]byte) iter.Seq2[archive.Entry, error] {
	return func(yield func(archive.Entry, error) bool) {
		for _, data := range entries {
			e := new(logpb.LogEntry)
			if err := proto.Unmarshal(data, e); err != nil {
				t.Fatal(err)
			}
			if !yield(archive.Entry{Index: types.MessageIndex(e.GetStreamIndex()), Data: data}, nil) {
				return
			}
		}
	}
}

// mustWrite writes an archive, verifies it, and returns the manifest and the keys of the objects.
func mustWrite(t testing.TB, b *bucket.Mem, p archive.Params, src iter.Seq2[archive.Entry, error]) (m *archive.Manifest, entries, index string) {
	t.Helper()
	m, err := archive.Write(context.Background(), b, p, src)
	if err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := archive.Verify(context.Background(), b, m); err != nil {
		t.Fatalf("Verify: %v", err)
	}
	entries, err = b.KeyOf(m.StreamURL)
	if err != nil {
		t.Fatal(err)
	}
	index, err = b.KeyOf(m.IndexURL)
	if err != nil {
		t.Fatal(err)
	}
	return m, entries, index
}

func decompress(t testing.TB, data []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plain, err := io.ReadAll(d)
	if err != nil {
		t.Fatalf("decompress: %v", err)
	}
	return plain
}

func collect(t testing.TB, s *archive.Stream, index types.MessageIndex, limit int) (indices []types.MessageIndex, data [][]byte) {
	t.Helper()
	err := s.Get(context.Background(), index, limit, func(e archive.Entry) bool {
		indices = append(indices, e.Index)
		data = append(data, e.Data)
		return true
	})
	if err != nil {
		t.Fatalf("Get %d, %d: %v", index, limit, err)
	}
	return indices, data
}

func TestVectors(t *testing.T) {
	for _, c := range vectors(t) {
		t.Run(c.Name, func(t *testing.T) {
			desc := new(logpb.LogStreamDescriptor)
			if err := proto.Unmarshal(c.Descriptor, desc); err != nil {
				t.Fatal(err)
			}
			var entries [][]byte
			for _, e := range c.Entries {
				entries = append(entries, e.Proto)
			}
			b := bucket.NewMem("b")
			m, entriesKey, indexKey := mustWrite(t, b, archive.Params{
				Project: c.Manifest.Project, Desc: desc, TerminalIndex: -1,
				Density: archive.Density{StreamRange: c.Manifest.StreamRange, PrefixRange: c.Manifest.PrefixRange, ByteRange: c.Manifest.ByteRange},
			}, source(t, entries...))
			if diff := cmp.Diff(c.File, decompress(t, b.Bytes(entriesKey))); diff != "" {
				t.Errorf("entries file (-want +got):\n%s", diff)
			}

			want := new(logpb.LogIndex)
			if err := proto.Unmarshal(c.Index, want); err != nil {
				t.Fatal(err)
			}
			for _, damage := range []func(){
				func() {},
				func() { b.SetBytes(indexKey, b.Bytes(indexKey)[1:]) },
				func() { _ = b.Delete(t.Context(), indexKey) },
			} {
				damage()
				s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
				if err != nil {
					t.Fatalf("Open: %v", err)
				}
				if s.Rebuilt() == nil {
					opts := []cmp.Option{protocmp.Transform(), protocmp.IgnoreFields(&logpb.LogIndex{}, "blocks", "content_size", "lines", "missing", "checksum")}
					if diff := cmp.Diff(want, s.Index(), opts...); diff != "" {
						t.Errorf("index (-want +got):\n%s", diff)
					}
				}
				checkReads(t, &c, s)
			}
		})
	}
}

func checkReads(t *testing.T, c *vectorCase, s *archive.Stream) {
	t.Helper()
	for _, r := range c.Reads {
		want := r.Indices
		if strings.Contains(c.Name, "gap at stream index 3") && r.Index == 3 || strings.Contains(c.Name, "entry 2 dropped") && r.Index < 3 && r.Limit == 2 {
			// The reference bounds a read by indices, not by entries, and so stops in gaps.
			want = nil
			for _, all := range c.Reads[0].Indices {
				if all >= r.Index && len(want) < r.Limit {
					want = append(want, all)
				}
			}
		}
		got, _ := collect(t, s, r.Index, r.Limit)
		if len(got)+len(want) > 0 {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Get %d, %d (-want +got):\n%s", r.Index, r.Limit, diff)
			}
		}
	}
	tail, err := s.Tail(t.Context())
	if c.Tail.Error != "" {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("Tail = %d, %v; want NotFound", tail.Index, err)
		}
	} else if err != nil || tail.Index != c.Tail.StreamIndex {
		t.Errorf("Tail = %d, %v; want %d", tail.Index, err, c.Tail.StreamIndex)
	}
	if !strings.Contains(c.Name, "dropped") { // the golden rendering is of the source
		var content bytes.Buffer
		if err := s.WriteContent(t.Context(), &content); err != nil || !bytes.Equal(content.Bytes(), c.Raw) {
			t.Errorf("content is %q, %v; want %q", content.Bytes(), err, c.Raw)
		}
	}
}

var params = archive.Params{
	Project:       "proj",
	Desc:          &logpb.LogStreamDescriptor{Prefix: "a:b/c", Name: "stdout/x", ContentType: "text/plain", Tags: map[string]string{"a": "1", "b": "2"}},
	TerminalIndex: -1,
	Density:       archive.Density{ByteRange: 100_000},
}

// entry returns a serialized text entry whose content tells its index.
func entry(t testing.TB, index uint64, filler int) []byte {
	t.Helper()
	data, err := proto.Marshal(&logpb.LogEntry{
		TimeOffset: durationpb.New(time.Duration(index)), PrefixIndex: 2 * index, StreamIndex: index, Sequence: index,
		Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{
			{Value: fmt.Appendf(nil, "line %d %s", index, strings.Repeat(fmt.Sprint(index), filler)), Delimiter: "\n"},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestMissing(t *testing.T) {
	unreadable := archive.Entry{Index: 5, Data: []byte{0xff}}
	wrong := archive.Entry{Index: 6, Data: entry(t, 7, 0)}
	src := func(yield func(archive.Entry, error) bool) {
		for _, e := range []archive.Entry{{2, entry(t, 2, 0)}, {3, entry(t, 3, 0)}, unreadable, wrong, {7, entry(t, 7, 0)}, {9, entry(t, 9, 0)}} {
			if !yield(e, nil) {
				return
			}
		}
	}
	p := params
	p.TerminalIndex = 20
	b := bucket.NewMem("b")
	m, _, _ := mustWrite(t, b, p, src)
	want := []archive.Range{{First: 0, Last: 1}, {First: 4, Last: 4}, {5, 6, archive.ReasonUnreadable}, {First: 8, Last: 8}, {First: 10, Last: 20}}
	if diff := cmp.Diff(want, m.Missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if m.EntryCount != 4 || m.LastIndex != 9 || m.Unreadable != 2 || m.Lines != 4 {
		t.Errorf("manifest is %+v", m)
	}
	s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if diff := cmp.Diff(want, s.Missing()); diff != "" {
		t.Errorf("missing as read (-want +got):\n%s", diff)
	}

	// Nothing came of a stream that ended.
	m, _, _ = mustWrite(t, b, p, source(t))
	if diff := cmp.Diff([]archive.Range{{First: 0, Last: 20}}, m.Missing); diff != "" || m.LastIndex != -1 {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	// A stream that ended without entries misses none.
	p.TerminalIndex = -1
	if m, _, _ = mustWrite(t, b, p, source(t)); m.Missing != nil {
		t.Errorf("missing %v", m.Missing)
	}
	// An end that overflows if one goes behind it.
	p.TerminalIndex = math.MaxInt64
	if m, _, _ = mustWrite(t, b, p, source(t, entry(t, 0, 0))); !cmp.Equal(m.Missing, []archive.Range{{First: 1, Last: math.MaxInt64}}) {
		t.Errorf("missing %v", m.Missing)
	}
}

func TestManyMissing(t *testing.T) {
	var entries [][]byte
	for i := range uint64(archive.MaxMissing + 100) {
		entries = append(entries, entry(t, 2*i+1, 0))
	}
	m, _, _ := mustWrite(t, bucket.NewMem("b"), params, source(t, entries...))
	if n := len(m.Missing); n != archive.MaxMissing || m.Missing[n-1].Last != m.LastIndex-1 {
		t.Errorf("%d ranges, the last is %v; the last entry is %d", n, m.Missing[n-1], m.LastIndex)
	}
}

func TestKeepUnordered(t *testing.T) {
	back, err := proto.Marshal(&logpb.LogEntry{StreamIndex: 6, PrefixIndex: 1, Sequence: 2})
	if err != nil {
		t.Fatal(err)
	}
	p := params
	p.KeepUnordered = true
	b := bucket.NewMem("b")
	m, _, _ := mustWrite(t, b, p, source(t, entry(t, 5, 0), back, entry(t, 7, 0)))
	if m.EntryCount != 3 || m.Unordered != 1 {
		t.Errorf("manifest is %+v", m)
	}
	s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	_, data := collect(t, s, 6, 1)
	got := new(logpb.LogEntry)
	if err := proto.Unmarshal(data[0], got); err != nil {
		t.Fatal(err)
	}
	want := &logpb.LogEntry{StreamIndex: 6, PrefixIndex: 10, Sequence: 5, TimeOffset: durationpb.New(5)}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

// TestBlocks writes an archive of many blocks, one of them larger than all others, and checks that reads touch only what
// they need.
func TestBlocks(t *testing.T) {
	const n = 300
	var entries [][]byte
	var want bytes.Buffer
	for i := range uint64(n) {
		filler := 10_000
		if i == 100 {
			filler = 2 << 20
		}
		entries = append(entries, entry(t, i, filler))
		fmt.Fprintf(&want, "line %d %s\n", i, strings.Repeat(fmt.Sprint(i), filler))
	}
	b := bucket.NewMem("b")
	m, key, _ := mustWrite(t, b, params, source(t, entries...))
	if m.ContentSize != int64(want.Len()) || m.Lines != n || m.StreamSize != int64(len(b.Bytes(key))) {
		t.Errorf("manifest is %+v", m)
	}
	r, err := archive.NewReader(archive.NewPlaces(b, nil), 4)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Open(t.Context(), m.StreamURL, m.IndexURL)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if again, err := r.Open(t.Context(), m.StreamURL, m.IndexURL); err != nil || again != s {
		t.Errorf("a second Open gives another stream, error %v", err)
	}
	blocks := s.Index().GetBlocks()
	if len(blocks) < 5 {
		t.Fatalf("%d blocks", len(blocks))
	}
	var content bytes.Buffer
	if err := s.WriteContent(t.Context(), &content); err != nil || !bytes.Equal(content.Bytes(), want.Bytes()) {
		t.Errorf("content differs, error %v", err)
	}

	// Damage all blocks but one; that one can be read still.
	for k := range blocks {
		data := b.Bytes(key)
		for i, x := range blocks {
			if i != k {
				data[x.GetOffset()+x.GetSize()/2] ^= 1
			}
		}
		other := bucket.NewMem("b")
		other.SetBytes(key, data)
		indexKey, _ := b.KeyOf(m.IndexURL)
		other.SetBytes(indexKey, b.Bytes(indexKey))
		s, err := archive.Open(t.Context(), other, m.StreamURL, m.IndexURL)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		first := blocks[k].GetFirstStreamIndex()
		if got, _ := collect(t, s, types.MessageIndex(first), 1); len(got) != 1 || got[0] != types.MessageIndex(first) {
			t.Errorf("block %d gives %v; want %d", k, got, first)
		}
		bad := (k + 1) % len(blocks)
		err = s.Get(t.Context(), types.MessageIndex(blocks[bad].GetFirstStreamIndex()), 1, func(archive.Entry) bool { return true })
		if !fault.Is(err, fault.DataLoss) || !strings.Contains(err.Error(), fmt.Sprintf("block %d at byte %d", bad, blocks[bad].GetOffset())) {
			t.Errorf("Get from damaged block %d: %v", bad, err)
		}
	}
}

func TestEntriesGone(t *testing.T) {
	b := bucket.NewMem("b")
	m, key, indexKey := mustWrite(t, b, params, source(t, entry(t, 0, 0)))
	s, err := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if err := b.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	_, tailErr := s.Tail(t.Context())
	_, rebuildErr := archive.Rebuild(t.Context(), b, m.StreamURL)
	if err := b.Delete(t.Context(), indexKey); err != nil {
		t.Fatal(err)
	}
	_, openErr := archive.Open(t.Context(), b, m.StreamURL, m.IndexURL)
	for op, err := range map[string]error{"Tail": tailErr, "Rebuild": rebuildErr, "Open": openErr, "Verify": archive.Verify(t.Context(), b, m)} {
		if !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s without the entries: %v; want DataLoss", op, err)
		}
	}
	if _, err := archive.Open(t.Context(), b, "gs://elsewhere/x", ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("Open of another bucket's archive: %v; want Invalid", err)
	}
}

// TestWriteFails lets each operation of the bucket fail, and the source; nothing may be left behind, and the kind stays.
func TestWriteFails(t *testing.T) {
	broken := fault.New(fault.Transient, "broken")
	for _, op := range []bucket.Op{bucket.OpCreate, bucket.OpWrite, bucket.OpCommit} {
		for _, suffix := range []string{".zst", ".index"} {
			b := bucket.NewMem("b")
			b.SetFault(func(o bucket.Op, key string) error {
				if o == op && strings.HasSuffix(key, suffix) {
					return broken
				}
				return nil
			})
			_, err := archive.Write(t.Context(), b, params, source(t, entry(t, 0, 0)))
			if !errors.Is(err, broken) || !fault.IsTransient(err) {
				t.Errorf("%s of %s fails: %v", op, suffix, err)
			}
			if keys := b.Keys(); len(keys) > 0 {
				t.Errorf("%s of %s fails and leaves %v", op, suffix, keys)
			}
		}
	}
	b := bucket.NewMem("b")
	_, err := archive.Write(t.Context(), b, params, func(yield func(archive.Entry, error) bool) {
		if yield(archive.Entry{Index: 0, Data: entry(t, 0, 0)}, nil) {
			yield(archive.Entry{}, broken)
		}
	})
	if !errors.Is(err, broken) {
		t.Errorf("source fails: %v", err)
	}
	if _, err := archive.Write(t.Context(), b, params, source(t, entry(t, 3, 0), entry(t, 3, 0))); !fault.Is(err, fault.Internal) {
		t.Errorf("source out of order: %v; want Internal", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = archive.Write(ctx, b, params, func(yield func(archive.Entry, error) bool) {
		cancel()
		yield(archive.Entry{Index: 0, Data: entry(t, 0, 0)}, nil)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	for _, p := range []archive.Params{{Project: "UPPER", Desc: params.Desc}, {Project: "p", Desc: &logpb.LogStreamDescriptor{Prefix: "a"}}, {Project: "p"}} {
		if _, err := archive.Write(t.Context(), b, p, source(t)); !fault.Is(err, fault.Invalid) {
			t.Errorf("Write of %v: %v; want Invalid", p, err)
		}
	}
	if keys := b.Keys(); len(keys) > 0 {
		t.Errorf("left %v", keys)
	}
}

func BenchmarkWriteAndVerify(b *testing.B) {
	var entries [][]byte
	size := 0
	for i := range uint64(1000) {
		entries = append(entries, entry(b, i, 5000))
		size += len(entries[i])
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		mustWrite(b, bucket.NewMem("b"), params, source(b, entries...))
	}
}
