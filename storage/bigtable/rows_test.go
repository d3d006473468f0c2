package bigtable

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigtable/apiv2/bigtablepb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

var (
	stream = storage.Stream{Project: "p", Path: "a/+/b"}
	other  = storage.Stream{Project: "p", Path: "a/+/c"}
)

func value(index types.MessageIndex) []byte { return fmt.Appendf(nil, "entry %d", index) }

// packed is the value of a row with those entries.
func packed(row runs.Span) []byte {
	r := runs.Run{First: row.First}
	for i := row.First; i < row.End; i++ {
		r.Values = append(r.Values, value(i))
	}
	return r.AppendPacked(nil)
}

// insert adds a row as some other program does, without looking what is there.
func insert(t testing.TB, s *Storage, key, column string, value []byte) {
	t.Helper()
	if err := s.table.mutate(t.Context(), []*mutation{{RowKey: []byte(key), Mutations: set(column, serverTime, value)}}); err != nil {
		t.Fatal(err)
	}
}

// collect returns what Get gives.
func collect(t testing.TB, s *Storage, r storage.GetRequest) (indices []types.MessageIndex, err error) {
	t.Helper()
	err = s.Get(t.Context(), r, func(e storage.Entry) bool {
		if !r.KeysOnly && !bytes.Equal(e.Data, value(e.Index)) {
			t.Errorf("entry %d is %q", e.Index, e.Data)
		}
		indices = append(indices, e.Index)
		return true
	})
	return indices, err
}

// Whatever rows there are, a read gives every entry once.
func TestOverlappingRows(t *testing.T) {
	service := newService(t)
	address := service.table(t)
	s := service.open(t, address, never)
	defer func() { _ = s.Close() }()
	name := 0
	rapid.Check(t, func(rt *rapid.T) {
		name++
		stream := storage.Stream{Project: "p", Path: types.StreamPath(fmt.Sprint("a/+/", name))}
		there := make(map[types.MessageIndex]bool)
		for range rapid.IntRange(1, 8).Draw(rt, "rows") {
			first := types.MessageIndex(rapid.IntRange(0, 20).Draw(rt, "first"))
			row := runs.Span{First: first, End: first + types.MessageIndex(rapid.IntRange(1, 8).Draw(rt, "count"))}
			insert(t, s, idOf(stream).key(row), dataColumn, packed(row))
			for i := row.First; i < row.End; i++ {
				there[i] = true
			}
		}
		check := func() {
			rt.Helper()
			r := storage.GetRequest{
				Stream: stream, Index: types.MessageIndex(rapid.IntRange(0, 30).Draw(rt, "index")),
				Limit: rapid.IntRange(0, 10).Draw(rt, "limit"), KeysOnly: rapid.Bool().Draw(rt, "keysOnly"),
			}
			var want []types.MessageIndex
			for i := r.Index; i < 60 && (r.Limit == 0 || len(want) < r.Limit); i++ {
				if there[i] {
					want = append(want, i)
				}
			}
			got, err := collect(t, s, r)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				rt.Fatalf("Get %+v: %v (-want +got):\n%s", r, err, diff)
			}
			tail := types.MessageIndex(-1)
			for there[tail+1] {
				tail++
			}
			e, err := s.Tail(t.Context(), stream)
			if tail < 0 && !errors.Is(err, storage.ErrDoesNotExist) || tail >= 0 && (err != nil || e.Index != tail || !bytes.Equal(e.Data, value(tail))) {
				rt.Fatalf("Tail = %d %q, %v; want %d", e.Index, e.Data, err, tail)
			}
		}
		check()
		check() // with what is remembered
		first := types.MessageIndex(rapid.IntRange(0, 25).Draw(rt, "put"))
		p := storage.PutRequest{Stream: stream, Index: first, Values: [][]byte{value(first), value(first + 1), value(first + 2)}}
		if err := s.Put(t.Context(), p); err != nil {
			rt.Fatal(err)
		}
		there[first], there[first+1], there[first+2] = true, true, true
		check()
	})
}

// A row that LogDog wrote is read, and one of ours is as it would have written it.
func TestRowOfLogDog(t *testing.T) {
	l := readLogDog(t)
	service := newService(t)
	s := service.open(t, service.table(t), never)
	defer func() { _ = s.Close() }()
	theirs := storage.Stream{Project: l.Row.Project, Path: l.Row.Path}
	insert(t, s, l.Row.Key, dataColumn, l.Row.Value)
	var got [][]byte
	err := s.Get(t.Context(), storage.GetRequest{Stream: theirs}, func(e storage.Entry) bool {
		got = append(got, bytes.Clone(e.Data))
		return true
	})
	if diff := cmp.Diff(l.Row.Entries, got); err != nil || diff != "" {
		t.Errorf("entries: %v (-want +got):\n%s", err, diff)
	}

	if err := s.Expunge(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), storage.PutRequest{Stream: theirs, Values: l.Row.Entries}); err != nil {
		t.Fatal(err)
	}
	rows := 0
	all := &rowSet{RowRanges: []*bigtablepb.RowRange{rowRange("", "~")}}
	err = s.table.read(t.Context(), all, dataColumn, false, 0, func(c cell) (bool, error) {
		rows++
		if string(c.key) != l.Row.Key || !bytes.Equal(c.value, l.Row.Value) {
			t.Errorf("row %q is %x", c.key, c.value)
		}
		return true, nil
	})
	if err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestDamagedRows(t *testing.T) {
	service := newService(t)
	s := service.open(t, service.table(t), never)
	defer func() { _ = s.Close() }()
	id := string(idOf(stream))
	two := runs.Span{First: 0, End: 2}
	for name, row := range map[string]struct {
		key, column string
		value       []byte
	}{
		"key":            {id + "~8080~9", dataColumn, packed(two)},
		"column":         {id + "~8080~8180", "else", packed(two)},
		"no data":        {id + "~8080~8180", dataColumn, nil},
		"fewer entries":  {id + "~8080~8180", dataColumn, packed(runs.Span{First: 0, End: 1})},
		"more entries":   {id + "~8080~8180", dataColumn, packed(runs.Span{First: 0, End: 3})},
		"cut":            {id + "~8080~8180", dataColumn, packed(two)[:5]},
		"negative":       {id + "~8080~81c0", dataColumn, packed(runs.Span{First: 0, End: 3})},
		"a huge count":   {id + "~" + encodeInt(1<<40) + "~" + encodeInt(1<<40), dataColumn, packed(two)},
		"behind the gap": {id + "~" + encodeInt(100) + "~8180", dataColumn, packed(two)[:5]},
	} {
		insert(t, s, row.key, row.column, row.value)
		if got, err := collect(t, s, storage.GetRequest{Stream: stream}); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err := s.Expunge(t.Context(), stream); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := collect(t, s, storage.GetRequest{Stream: stream}); len(got) > 0 || err != nil {
			t.Errorf("%s: %v is left, %v", name, got, err)
		}
	}
	insert(t, s, checkpointPrefix+"r", positionColumn, []byte("x"))
	if _, err := s.Checkpoint(t.Context(), "r"); !fault.Is(err, fault.DataLoss) {
		t.Errorf("a damaged checkpoint: %v", err)
	}
}

// A failure of any one call is an error, and a checkpoint never passes entries that are not there.
func TestFailures(t *testing.T) {
	service := newService(t)
	s := service.open(t, service.table(t), never)
	defer func() { _ = s.Close() }()
	for i, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Unknown, codes.Aborted} {
		for _, method := range []string{"ReadRows", "MutateRows", "CheckAndMutateRow"} {
			mend := service.failing(func(called string) error {
				if strings.HasSuffix(called, "/"+method) {
					return status.Error(code, "broken")
				}
				return nil
			})
			b := s.NewBatch()
			if err := b.Put(storage.PutRequest{Stream: stream, Index: types.MessageIndex(i), Values: [][]byte{value(types.MessageIndex(i))}}); err != nil {
				t.Fatal(err)
			}
			b.SetCheckpoint("r", int64(i+1))
			err := b.Commit(t.Context())
			if !fault.Is(err, fault.Transient) {
				t.Errorf("%s fails with %s: %v", method, code, err)
			}
			if method == "ReadRows" {
				if _, err := s.Tail(t.Context(), stream); !fault.Is(err, fault.Transient) {
					t.Errorf("Tail fails with %s: %v", code, err)
				}
			}
			if method == "MutateRows" && i > 0 {
				if err := s.Expunge(t.Context(), stream); !fault.Is(err, fault.Transient) {
					t.Errorf("Expunge fails with %s: %v", code, err)
				}
			}
			mend()
			if position, err := s.Checkpoint(t.Context(), "r"); position != int64(i) || err != nil {
				t.Errorf("%s failed, and the checkpoint is %d, %v; want %d", method, position, err, i)
			}
			if method == "CheckAndMutateRow" {
				if err := b.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			_ = b.Close()
		}
	}
}

// Rows of others are seen, wherever they are.
func TestWatchRowsOfOthers(t *testing.T) {
	service := newService(t)
	s := service.open(t, service.table(t), time.Millisecond)
	defer func() { _ = s.Close() }()
	changed, stop := s.Watch(stream)
	defer stop()
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(testkit.Patience):
			t.Fatalf("nobody is woken by %s", what)
		}
	}
	add := func(what string, rows ...runs.Span) {
		t.Helper()
		for _, row := range rows {
			insert(t, s, idOf(stream).key(row), dataColumn, packed(row))
		}
		await(what)
	}
	await("the first look")
	insert(t, s, idOf(other).key(runs.Span{First: 0, End: 1}), dataColumn, value(0))
	add("the first row", runs.Span{First: 0, End: 2})
	add("the next row", runs.Span{First: 2, End: 3})
	add("a row behind a gap", runs.Span{First: 10, End: 20})
	add("a row in the gap", runs.Span{First: 5, End: 6})
	add("a row that fills a gap and more", runs.Span{First: 3, End: 12})
	if got, err := collect(t, s, storage.GetRequest{Stream: stream}); len(got) != 20 || err != nil {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func TestRowsInChunks(t *testing.T) {
	chunk := func(key, family, column, value string, status any) *bigtablepb.ReadRowsResponse_CellChunk {
		c := &bigtablepb.ReadRowsResponse_CellChunk{RowKey: []byte(key), Value: []byte(value)}
		if family != "" {
			c.FamilyName = wrapperspb.String(family)
		}
		if column != "" {
			c.Qualifier = wrapperspb.Bytes([]byte(column))
		}
		switch status {
		case "commit":
			c.RowStatus = &bigtablepb.ReadRowsResponse_CellChunk_CommitRow{CommitRow: true}
		case "reset":
			c.RowStatus = &bigtablepb.ReadRowsResponse_CellChunk_ResetRow{ResetRow: true}
		}
		return c
	}
	for name, chunks := range map[string][]*bigtablepb.ReadRowsResponse_CellChunk{
		"one":          {chunk("k", family, dataColumn, "value", "commit")},
		"in parts":     {chunk("k", family, dataColumn, "va", nil), chunk("", "", "", "lu", nil), chunk("", "", "", "e", "commit")},
		"more columns": {chunk("k", family, "a", "x", nil), chunk("", "", dataColumn, "value", nil), chunk("", "", "z", "y", "commit")},
		"more families": {
			chunk("k", "a", dataColumn, "x", nil), chunk("", family, dataColumn, "value", nil), chunk("", "z", dataColumn, "y", "commit"),
		},
		"reset": {chunk("j", family, dataColumn, "x", nil), chunk("", "", "", "", "reset"), chunk("k", family, dataColumn, "value", "commit")},
	} {
		r := rowReader{column: dataColumn}
		for i, c := range chunks {
			if complete := r.add(c); complete != (i == len(chunks)-1) {
				t.Errorf("%s: complete with chunk %d: %v", name, i, complete)
			}
		}
		if string(r.key) != "k" || !r.found || string(r.value) != "value" {
			t.Errorf("%s: row %q, found %v: %q", name, r.key, r.found, r.value)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	service := newService(t)
	for address, kind := range map[string]fault.Kind{
		"bigtable://p/i":         fault.Invalid,
		"bigtable://p/i/t/x":     fault.Invalid,
		"bigtable:///i/t":        fault.Invalid,
		"http://p/i/t":           fault.Invalid,
		"%":                      fault.Invalid,
		"bigtable://p/i/nothing": fault.Precondition,
	} {
		if _, err := Open(t.Context(), address, Options{}); !fault.Is(err, kind) {
			t.Errorf("%s: %v, of kind %v; want %v", address, err, fault.KindOf(err), kind)
		}
	}
	mend := service.failing(func(string) error { return status.Error(codes.PermissionDenied, "no") })
	defer mend()
	if _, err := Open(t.Context(), "bigtable://p/i/t", Options{}); !fault.Is(err, fault.Denied) {
		t.Errorf("without permission: %v", err)
	}
}
