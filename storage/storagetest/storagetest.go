// Package storagetest is the one test body that every store of entries is held to. It checks what package storage documents,
// and that any sequence of operations gives the same as on storage/memory.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// Engine is a kind of store under test.
type Engine struct {
	// Open returns a new, empty store. The test closes it.
	Open func(t testing.TB) storage.Storage
	// Reopen closes the store and opens it again; nil if nothing survives that.
	Reopen func(t testing.TB, s storage.Storage) storage.Storage
	// Crash ends the store without closing it and opens what is left; nil if nothing survives that.
	Crash func(t testing.TB, s storage.Storage) storage.Storage
	// Peer opens the same entries as another process does, watching for what s does; nil if only one process can. The test closes it.
	Peer func(t testing.TB, s storage.Storage) storage.Storage
	// Break makes everything fail that the store asks of what is below it, until mend is called. nil if there is nothing below.
	Break func(t testing.TB, s storage.Storage) (mend func())
}

// Streams that differ in one part each. The paths are as long as they can be, and one is a prefix of another.
var (
	streamA = storage.Stream{Project: "proj-a", Path: "prefix/+/name"}
	streamB = storage.Stream{Project: "proj-b", Path: "prefix/+/name"}
	streamC = storage.Stream{Project: "proj-a", Path: "prefix/+/name/more"}
)

// Run runs the tests.
func Run(t *testing.T, e Engine) {
	tests := []struct {
		name string
		run  func(*testing.T, Engine)
	}{
		{"GetSelects", testGetSelects},
		{"PutAgain", testPutAgain},
		{"PutRefuses", testPutRefuses},
		{"Tail", testTail},
		{"Expunge", testExpunge},
		{"Batch", testBatch},
		{"Watch", testWatch},
		{"CallbackMayUseStore", testCallbackMayUseStore},
		{"LargeValues", testLargeValues},
		{"ManyEntries", testManyEntries},
		{"Concurrent", testConcurrent},
		{"Canceled", testCanceled},
		{"Close", testClose},
		{"Reopen", testReopen},
		{"Crash", testCrash},
		{"Peers", testPeers},
		{"PeersWake", testPeersWake},
		{"PeersWriteTheSame", testPeersWriteTheSame},
		{"Failures", testFailures},
		{"Model", testModel},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, e) })
	}
}

func open(t *testing.T, e Engine) storage.Storage {
	t.Helper()
	s := e.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// value is the content of an entry in these tests.
func value(s storage.Stream, index types.MessageIndex) []byte {
	return fmt.Appendf(nil, "%s#%d", s, index)
}

func put(t *testing.T, s storage.Storage, name storage.Stream, first, last types.MessageIndex) {
	t.Helper()
	if err := s.Put(t.Context(), run(name, first, last)); err != nil {
		t.Fatalf("Put %d..%d: %v", first, last, err)
	}
}

func run(name storage.Stream, first, last types.MessageIndex) storage.PutRequest {
	r := storage.PutRequest{Stream: name, Index: first}
	for i := first; i <= last; i++ {
		r.Values = append(r.Values, value(name, i))
	}
	return r
}

// get returns the indices that Get delivers, and checks the data.
func get(t *testing.T, s storage.Storage, r storage.GetRequest) []types.MessageIndex {
	t.Helper()
	var got []types.MessageIndex
	err := s.Get(t.Context(), r, func(e storage.Entry) bool {
		want := value(r.Stream, e.Index)
		if r.KeysOnly {
			want = nil
		}
		if !r.KeysOnly && !bytes.Equal(e.Data, want) {
			t.Errorf("entry %d of %s is %q, want %q", e.Index, r.Stream, e.Data, want)
		}
		got = append(got, e.Index)
		return true
	})
	if err != nil {
		t.Fatalf("Get %+v: %v", r, err)
	}
	return got
}

func wantIndices(t *testing.T, s storage.Storage, name storage.Stream, want ...types.MessageIndex) {
	t.Helper()
	if diff := cmp.Diff(want, get(t, s, storage.GetRequest{Stream: name})); diff != "" {
		t.Errorf("indices of %s (-want +got):\n%s", name, diff)
	}
}

// wantTail checks the tail; negative is none.
func wantTail(t *testing.T, s storage.Storage, name storage.Stream, want types.MessageIndex) {
	t.Helper()
	e, err := s.Tail(t.Context(), name)
	switch {
	case want < 0:
		if !errors.Is(err, storage.ErrDoesNotExist) || !fault.Is(err, fault.NotFound) {
			t.Errorf("Tail of %s = %d, %v; want ErrDoesNotExist", name, e.Index, err)
		}
	case err != nil:
		t.Errorf("Tail of %s: %v; want %d", name, err, want)
	case e.Index != want || !bytes.Equal(e.Data, value(name, want)):
		t.Errorf("Tail of %s = %d %q; want %d", name, e.Index, e.Data, want)
	}
}

func testGetSelects(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 2)
	put(t, s, streamA, 3, 4)
	put(t, s, streamB, 10, 10)
	put(t, s, streamB, 12, 13)
	put(t, s, streamC, 4, 4)
	put(t, s, streamC, 0, 2)

	type indices = []types.MessageIndex
	for _, c := range []struct {
		name  storage.Stream
		index types.MessageIndex
		limit int
		want  indices
	}{
		{streamA, 0, 0, indices{0, 1, 2, 3, 4}},
		{streamA, -1, -1, indices{0, 1, 2, 3, 4}},
		{streamA, 1, 0, indices{1, 2, 3, 4}},
		{streamA, 1, 2, indices{1, 2}},
		{streamA, 4, 7, indices{4}},
		{streamA, 5, 0, nil},
		{streamA, math.MaxInt64, 0, nil},
		{streamB, 0, 0, indices{10, 12, 13}},
		{streamB, 11, 1, indices{12}},
		{streamB, 13, 1, indices{13}},
		{streamC, 0, 0, indices{0, 1, 2, 4}},
		{streamC, 3, 0, indices{4}},
		{storage.Stream{Project: "proj-a", Path: "prefix/+/nam"}, 0, 0, nil},
	} {
		for _, keysOnly := range []bool{false, true} {
			r := storage.GetRequest{Stream: c.name, Index: c.index, Limit: c.limit, KeysOnly: keysOnly}
			if diff := cmp.Diff(c.want, get(t, s, r)); diff != "" {
				t.Errorf("Get %+v (-want +got):\n%s", r, diff)
			}
		}
	}

	// The callback ends the Get.
	calls := 0
	err := s.Get(t.Context(), storage.GetRequest{Stream: streamA}, func(storage.Entry) bool { calls++; return calls < 2 })
	if err != nil || calls != 2 {
		t.Errorf("Get called back %d times, error %v; want 2 and none", calls, err)
	}
}

func testPutAgain(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 2, 4)
	put(t, s, streamA, 2, 4)
	put(t, s, streamA, 0, 2)
	put(t, s, streamA, 3, 3)
	put(t, s, streamA, 1, 6)
	wantIndices(t, s, streamA, 0, 1, 2, 3, 4, 5, 6)
	wantTail(t, s, streamA, 6)

	// The first value stays, also against another one, alone and in one batch with it.
	other := storage.PutRequest{Stream: streamA, Index: 5, Values: [][]byte{[]byte("x"), []byte("x")}}
	if err := s.Put(t.Context(), other); err != nil {
		t.Fatalf("Put: %v", err)
	}
	b := s.NewBatch()
	defer b.Close()
	other.Index = 7
	for _, r := range []storage.PutRequest{run(streamA, 7, 7), other, run(streamB, 0, 0), {Stream: streamB, Values: [][]byte{{1}}}} {
		if err := b.Put(r); err != nil {
			t.Fatalf("Batch.Put: %v", err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	got := map[types.MessageIndex]string{}
	err := s.Get(t.Context(), storage.GetRequest{Stream: streamA, Index: 5}, func(e storage.Entry) bool {
		got[e.Index] = string(e.Data)
		return true
	})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	want := map[types.MessageIndex]string{8: "x"}
	for i := types.MessageIndex(5); i <= 7; i++ {
		want[i] = string(value(streamA, i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	wantIndices(t, s, streamB, 0)
}

func testPutRefuses(t *testing.T, e Engine) {
	s := open(t, e)
	large := make([]byte, storage.MaxEntrySize+1)
	for _, r := range []storage.PutRequest{
		{Stream: streamA, Index: -1, Values: [][]byte{{1}}},
		{Stream: streamA, Index: math.MaxInt64, Values: [][]byte{{1}}},
		{Stream: streamA, Index: 0, Values: [][]byte{{1}, large}},
	} {
		if err := s.Put(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("Put at %d: %v; want Invalid", r.Index, err)
		}
		b := s.NewBatch()
		if err := b.Put(r); !fault.Is(err, fault.Invalid) {
			t.Errorf("Batch.Put at %d: %v; want Invalid", r.Index, err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Batch.Close: %v", err)
		}
	}
	if err := s.Put(t.Context(), storage.PutRequest{Stream: streamA}); err != nil {
		t.Errorf("empty Put: %v", err)
	}
	wantIndices(t, s, streamA)
	wantTail(t, s, streamA, -1)
}

func testTail(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 2)
	put(t, s, streamA, 3, 4)
	put(t, s, streamB, 1, 3)
	put(t, s, streamC, 0, 2)
	put(t, s, streamC, 4, 6)
	wantTail(t, s, streamA, 4)
	wantTail(t, s, streamB, -1)
	wantTail(t, s, streamC, 2)
	put(t, s, streamC, 3, 3) // late
	wantTail(t, s, streamC, 6)
	put(t, s, streamC, 0, 8) // overlapping
	wantTail(t, s, streamC, 8)
	put(t, s, streamB, 0, 0)
	wantTail(t, s, streamB, 3)
	wantTail(t, s, storage.Stream{Project: "none", Path: "a/+/b"}, -1)
}

func testExpunge(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 9)
	put(t, s, streamB, 0, 1)
	put(t, s, streamC, 0, 1)
	wantTail(t, s, streamA, 9)
	for range 2 {
		if err := s.Expunge(t.Context(), streamA); err != nil {
			t.Fatalf("Expunge: %v", err)
		}
		wantIndices(t, s, streamA)
		wantTail(t, s, streamA, -1)
		wantIndices(t, s, streamB, 0, 1)
		wantIndices(t, s, streamC, 0, 1)
	}
	put(t, s, streamA, 5, 6)
	wantIndices(t, s, streamA, 5, 6)
	wantTail(t, s, streamA, -1)
	put(t, s, streamA, 0, 0)
	wantTail(t, s, streamA, 0)
}

func wantCheckpoint(t *testing.T, s storage.Storage, reader string, want int64) {
	t.Helper()
	if got, err := s.Checkpoint(t.Context(), reader); err != nil || got != want {
		t.Errorf("Checkpoint of %q = %d, %v; want %d", reader, got, err, want)
	}
}

func testBatch(t *testing.T, e Engine) {
	s := open(t, e)
	wantCheckpoint(t, s, "r", 0)
	b := s.NewBatch()
	defer b.Close()
	for _, r := range []storage.PutRequest{run(streamA, 0, 1), run(streamB, 0, 0), run(streamA, 2, 3)} {
		if err := b.Put(r); err != nil {
			t.Fatalf("Batch.Put: %v", err)
		}
	}
	b.SetCheckpoint("r", 17)
	b.SetCheckpoint("other", 4)
	b.SetCheckpoint("r", 18)
	if want := 4*len(value(streamA, 0)) + len(value(streamB, 0)); b.Size() != want {
		t.Errorf("Size = %d, want %d", b.Size(), want)
	}
	wantIndices(t, s, streamA)
	wantCheckpoint(t, s, "r", 0)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	wantIndices(t, s, streamA, 0, 1, 2, 3)
	wantIndices(t, s, streamB, 0)
	wantTail(t, s, streamA, 3)
	wantCheckpoint(t, s, "r", 18)
	wantCheckpoint(t, s, "other", 4)

	// It is empty, and can be used again; checkpoints do not move back.
	if b.Size() != 0 {
		t.Errorf("Size after Commit = %d", b.Size())
	}
	b.SetCheckpoint("r", 5)
	b.SetCheckpoint("other", 5)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	wantCheckpoint(t, s, "r", 18)
	wantCheckpoint(t, s, "other", 5)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("empty Commit: %v", err)
	}

	// Closed without Commit, nothing happens.
	dropped := s.NewBatch()
	if err := dropped.Put(run(streamA, 4, 4)); err != nil {
		t.Fatalf("Batch.Put: %v", err)
	}
	dropped.SetCheckpoint("r", 99)
	if err := dropped.Close(); err != nil {
		t.Fatalf("Batch.Close: %v", err)
	}
	wantIndices(t, s, streamA, 0, 1, 2, 3)
	wantCheckpoint(t, s, "r", 18)
}

func testWatch(t *testing.T, e Engine) {
	s := open(t, e)
	changed, stop := s.Watch(streamA)
	defer stop()
	woken := func() {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatal("not woken")
		}
	}
	put(t, s, streamA, 0, 0)
	woken()
	wantTail(t, s, streamA, 0)
	b := s.NewBatch()
	defer b.Close()
	for i := range types.MessageIndex(3) {
		if err := b.Put(run(streamA, 1+i, 1+i)); err != nil {
			t.Fatalf("Batch.Put: %v", err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	woken()
	wantTail(t, s, streamA, 3)
	put(t, s, streamB, 0, 0)
	select {
	case <-changed:
		t.Error("woken by another stream, or twice by one batch")
	default:
	}
}

func testCallbackMayUseStore(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 99)
	err := s.Get(t.Context(), storage.GetRequest{Stream: streamA}, func(e storage.Entry) bool {
		put(t, s, streamB, e.Index, e.Index)
		return true
	})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	wantTail(t, s, streamB, 99)
	err = s.Get(t.Context(), storage.GetRequest{Stream: streamA}, func(storage.Entry) bool {
		if err := s.Expunge(t.Context(), streamA); err != nil {
			t.Errorf("Expunge: %v", err)
		}
		return true
	})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
}

func testLargeValues(t *testing.T, e Engine) {
	s := open(t, e)
	values := [][]byte{bytes.Repeat([]byte("x"), storage.MaxEntrySize), {}, bytes.Repeat([]byte("y"), storage.MaxEntrySize-1)}
	if err := s.Put(t.Context(), storage.PutRequest{Stream: streamA, Values: values}); err != nil {
		t.Fatalf("Put: %v", err)
	}
	n := 0
	err := s.Get(t.Context(), storage.GetRequest{Stream: streamA}, func(e storage.Entry) bool {
		if !bytes.Equal(e.Data, values[n]) {
			t.Errorf("entry %d has %d bytes, or others than put", e.Index, len(e.Data))
		}
		n++
		return true
	})
	if err != nil || n != len(values) {
		t.Errorf("Get gave %d entries, error %v", n, err)
	}
	tail, err := s.Tail(t.Context(), streamA)
	if err != nil || !bytes.Equal(tail.Data, values[2]) {
		t.Errorf("Tail = entry %d with %d bytes, %v", tail.Index, len(tail.Data), err)
	}
}

func testManyEntries(t *testing.T, e Engine) {
	s := open(t, e)
	const n = 20_000
	for first := types.MessageIndex(0); first < n; first += 1000 {
		put(t, s, streamA, first, first+999)
	}
	next := types.MessageIndex(0)
	for _, index := range get(t, s, storage.GetRequest{Stream: streamA}) {
		if index != next {
			t.Fatalf("index %d follows %d", index, next-1)
		}
		next++
	}
	if next != n {
		t.Errorf("Get gave %d entries, want %d", next, n)
	}
	wantTail(t, s, streamA, n-1)
}

func testConcurrent(t *testing.T, e Engine) {
	s := open(t, e)
	const writers, runs, length = 4, 50, 10
	var wg sync.WaitGroup
	defer wg.Wait()
	for range writers { // all write the same, in their own order of events
		wg.Go(func() {
			for i := range types.MessageIndex(runs) {
				if err := s.Put(t.Context(), run(streamA, i*length, i*length+length-1)); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
			}
		})
	}
	// A reader woken by Watch sees every entry once and in order.
	changed, stop := s.Watch(streamA)
	defer stop()
	next := types.MessageIndex(0)
	for next < runs*length {
		for _, index := range get(t, s, storage.GetRequest{Stream: streamA, Index: next}) {
			if index != next {
				t.Fatalf("index %d follows %d", index, next-1)
			}
			next++
		}
		if next == 0 {
			continue
		}
		if e, err := s.Tail(t.Context(), streamA); err != nil || e.Index < next-1 {
			t.Fatalf("Tail = %d, %v; %d was seen", e.Index, err, next-1)
		}
		if next < runs*length {
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatalf("not woken behind %d", next)
			}
		}
	}
}

func testCanceled(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range everyOperation(ctx, s) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want context.Canceled", name, err)
		}
	}
	wantIndices(t, s, streamA, 0)
}

func testClose(t *testing.T, e Engine) {
	s := open(t, e)
	put(t, s, streamA, 0, 0)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for name, err := range everyOperation(t.Context(), s) {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s after Close: %v; want ErrClosed", name, err)
		}
	}
}

// everyOperation returns the error of each operation.
func everyOperation(ctx context.Context, s storage.Storage) map[string]error {
	b := s.NewBatch()
	defer b.Close()
	errs := map[string]error{
		"Put":       s.Put(ctx, run(streamA, 1, 1)),
		"Get":       s.Get(ctx, storage.GetRequest{Stream: streamA}, func(storage.Entry) bool { return true }),
		"Expunge":   s.Expunge(ctx, streamA),
		"Sync":      s.Sync(ctx),
		"Batch.Put": errors.Join(b.Put(run(streamA, 1, 1)), b.Commit(ctx)),
	}
	_, errs["Tail"] = s.Tail(ctx, streamA)
	_, errs["Checkpoint"] = s.Checkpoint(ctx, "r")
	return errs
}

func testReopen(t *testing.T, e Engine) {
	if e.Reopen == nil {
		return
	}
	s := open(t, e)
	put(t, s, streamA, 0, 4)
	put(t, s, streamA, 6, 7)
	put(t, s, streamB, 0, 4)
	commitWithCheckpoint(t, s, run(streamC, 0, 0), 42)
	if err := s.Expunge(t.Context(), streamB); err != nil {
		t.Fatalf("Expunge: %v", err)
	}
	s = e.Reopen(t, s)
	t.Cleanup(func() { s.Close() })
	wantTail(t, s, streamA, 4)
	wantIndices(t, s, streamA, 0, 1, 2, 3, 4, 6, 7)
	wantIndices(t, s, streamB)
	wantIndices(t, s, streamC, 0)
	wantCheckpoint(t, s, "r", 42)
	if err := s.Put(t.Context(), storage.PutRequest{Stream: streamA, Index: 4, Values: [][]byte{{1}}}); err != nil {
		t.Fatalf("Put: %v", err)
	}
	put(t, s, streamA, 5, 5)
	wantTail(t, s, streamA, 7)
	wantIndices(t, s, streamA, 0, 1, 2, 3, 4, 5, 6, 7)
}

func commitWithCheckpoint(t *testing.T, s storage.Storage, r storage.PutRequest, checkpoint int64) {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	if err := b.Put(r); err != nil {
		t.Fatalf("Batch.Put: %v", err)
	}
	b.SetCheckpoint("r", checkpoint)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// testCrash checks that a crash leaves what was synced, and of the rest whole batches in their order, with the checkpoint
// of the last of them.
func testCrash(t *testing.T, e Engine) {
	if e.Crash == nil {
		return
	}
	for round := range 5 {
		s := open(t, e)
		synced := types.MessageIndex(2 * round)
		const length = 3
		for i := range types.MessageIndex(20) {
			commitWithCheckpoint(t, s, run(streamA, i*length, i*length+length-1), int64(i+1))
			if i == synced {
				if err := s.Sync(t.Context()); err != nil {
					t.Fatalf("Sync: %v", err)
				}
			}
		}
		s = e.Crash(t, s)
		t.Cleanup(func() { s.Close() })
		checkpoint, err := s.Checkpoint(t.Context(), "r")
		if err != nil || checkpoint < int64(synced)+1 {
			t.Fatalf("Checkpoint = %d, %v; %d was synced", checkpoint, err, synced+1)
		}
		if got := len(get(t, s, storage.GetRequest{Stream: streamA})); got != int(checkpoint)*length {
			t.Errorf("%d entries survived with checkpoint %d", got, checkpoint)
		}
		wantTail(t, s, streamA, types.MessageIndex(checkpoint)*length-1)

		// What Expunge removed does not come back.
		if err := s.Expunge(t.Context(), streamA); err != nil {
			t.Fatalf("Expunge: %v", err)
		}
		again := e.Crash(t, s)
		t.Cleanup(func() { again.Close() })
		wantIndices(t, again, streamA)
	}
}
