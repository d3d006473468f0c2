package storagetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// openPeers opens a store twice, as two processes do.
func openPeers(t *testing.T, e Engine) (here, there storage.Storage) {
	t.Helper()
	here = open(t, e)
	there = e.Peer(t, here)
	t.Cleanup(func() {
		if err := there.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return here, there
}

// testPeers checks that what one process does is there for the other one as soon as it has returned.
func testPeers(t *testing.T, e Engine) {
	if e.Peer == nil {
		return
	}
	here, there := openPeers(t, e)
	put(t, here, streamA, 0, 4)
	wantIndices(t, there, streamA, 0, 1, 2, 3, 4)
	wantTail(t, there, streamA, 4)
	put(t, there, streamA, 3, 7)
	put(t, there, streamB, 0, 2)
	wantTail(t, here, streamA, 7)
	wantTail(t, here, streamB, 2)

	// The first value stays, whoever comes with another one.
	if err := here.Put(t.Context(), storage.PutRequest{Stream: streamB, Index: 2, Values: [][]byte{{1}, {2}}}); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if e, err := there.Tail(t.Context(), streamB); err != nil || e.Index != 3 {
		t.Errorf("Tail = %d, %v", e.Index, err)
	}
	if diff := cmp.Diff([]types.MessageIndex{2}, get(t, there, storage.GetRequest{Stream: streamB, Index: 2, Limit: 1})); diff != "" {
		t.Errorf("index 2 (-want +got):\n%s", diff)
	}

	// Positions do not get taken back.
	commitWithCheckpoint(t, here, run(streamC, 0, 0), 10)
	wantCheckpoint(t, there, "r", 10)
	commitWithCheckpoint(t, there, run(streamC, 0, 1), 20)
	commitWithCheckpoint(t, here, run(streamC, 0, 0), 15)
	wantCheckpoint(t, here, "r", 20)
	wantTail(t, here, streamC, 1)

	// What is remembered of a stream here does not outlive it there.
	if err := there.Expunge(t.Context(), streamA); err != nil {
		t.Fatalf("Expunge: %v", err)
	}
	wantTail(t, here, streamA, -1)
	wantIndices(t, here, streamA)
	put(t, there, streamA, 7, 8)
	wantTail(t, here, streamA, -1)
	put(t, here, streamA, 0, 1)
	put(t, here, streamA, 8, 9)
	wantTail(t, there, streamA, 1)
	wantIndices(t, there, streamA, 0, 1, 7, 8, 9)
}

// testPeersWake checks that who waits in one process is woken by what another one does.
func testPeersWake(t *testing.T, e Engine) {
	if e.Peer == nil {
		return
	}
	here, there := openPeers(t, e)
	changed, stop := there.Watch(streamA)
	defer stop()
	other, stopOther := there.Watch(streamB)
	defer stopOther()
	await := func(index types.MessageIndex) time.Duration {
		t.Helper()
		start := time.Now()
		patience := time.After(testkit.Patience)
		for len(get(t, there, storage.GetRequest{Stream: streamA, Index: index, Limit: 1})) == 0 {
			select {
			case <-changed:
			case <-patience:
				t.Fatalf("nobody is woken by entry %d", index)
			}
		}
		return time.Since(start)
	}
	quickest := time.Hour
	for _, index := range []types.MessageIndex{0, 1, 2, 5, 4, 3, 6, 9, 8, 7} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := here.Put(t.Context(), run(streamA, index, index)); err != nil {
				t.Errorf("Put: %v", err)
			}
		}()
		quickest = min(quickest, await(index))
		<-done
	}
	// A machine may be busy, but not each time.
	if quickest > 100*time.Millisecond {
		t.Errorf("it took %v at least", quickest)
	}

	// A stream that was expunged and begins again is another one.
	if err := here.Expunge(t.Context(), streamA); err != nil {
		t.Fatalf("Expunge: %v", err)
	}
	put(t, here, streamA, 0, 0)
	await(0)
	// Who subscribes when everything is there already is not woken for nothing for ever.
	select {
	case <-other: // once, maybe, because nobody knows what happened in between
	default:
	}
	select {
	case <-other:
		t.Error("woken by another stream")
	default:
	}
}

// testPeersWriteTheSame checks that processes may store the same entries at the same time, however they are cut.
func testPeersWriteTheSame(t *testing.T, e Engine) {
	if e.Peer == nil {
		return
	}
	here, there := openPeers(t, e)
	const n = 240
	var wg sync.WaitGroup
	for i, s := range []storage.Storage{here, there, here, there} {
		wg.Go(func() {
			b := s.NewBatch()
			defer b.Close()
			length := types.MessageIndex(3 + 2*i)
			for first := types.MessageIndex(0); first < n; first += length {
				last := min(first+length, n) - 1
				if err := errors.Join(b.Put(run(streamA, first, last)), b.Put(run(streamB, n-1-last, n-1-first))); err != nil {
					t.Errorf("Batch.Put: %v", err)
				}
				b.SetCheckpoint("r", int64(last+1))
				if err := b.Commit(t.Context()); err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	all := make([]types.MessageIndex, n)
	for i := range all {
		all[i] = types.MessageIndex(i)
	}
	for _, s := range []storage.Storage{here, there} {
		for _, name := range []storage.Stream{streamA, streamB} {
			wantIndices(t, s, name, all...)
			wantTail(t, s, name, n-1)
			if diff := cmp.Diff(all[100:110], get(t, s, storage.GetRequest{Stream: name, Index: 100, Limit: 10})); diff != "" {
				t.Errorf("indices from 100 (-want +got):\n%s", diff)
			}
		}
		wantCheckpoint(t, s, "r", n)
	}
}

// testFailures checks that a store that cannot be read is not taken for one that is empty, and that nothing is lost.
func testFailures(t *testing.T, e Engine) {
	if e.Break == nil {
		return
	}
	s := open(t, e)
	put(t, s, streamA, 0, 4)
	wantTail(t, s, streamA, 4)
	commitWithCheckpoint(t, s, run(streamB, 0, 0), 7)
	changed, stop := s.Watch(streamA)
	defer stop()
	b := s.NewBatch()
	defer b.Close()
	if err := b.Put(run(streamA, 3, 6)); err != nil {
		t.Fatalf("Batch.Put: %v", err)
	}
	b.SetCheckpoint("r", 8)

	mend := e.Break(t, s)
	for name, err := range everyOperation(t.Context(), s) {
		if name == "Sync" && err == nil {
			continue // there may be nothing left to sync
		}
		if !fault.Is(err, fault.Transient) {
			t.Errorf("%s on what is broken: %v, of kind %v; want Transient", name, err, fault.KindOf(err))
		}
	}
	if err := b.Commit(t.Context()); !fault.Is(err, fault.Transient) {
		t.Errorf("Commit on what is broken: %v; want Transient", err)
	}
	mend()

	wantCheckpoint(t, s, "r", 7)
	wantIndices(t, s, streamA, 0, 1, 2, 3, 4)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatalf("Commit again: %v", err)
	}
	select {
	case <-changed:
	case <-time.After(testkit.Patience):
		t.Error("nobody is woken")
	}
	wantCheckpoint(t, s, "r", 8)
	wantIndices(t, s, streamA, 0, 1, 2, 3, 4, 5, 6)
	wantTail(t, s, streamA, 6)
	wantTail(t, s, streamB, 0)
}
