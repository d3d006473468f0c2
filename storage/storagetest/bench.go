package storagetest

import (
	"fmt"
	"testing"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// What a Collector that is busy puts at a time: 512 KiB of log text for some streams.
const benchStreams, benchPuts, benchEntrySize = 16, 32, 16 << 10

// Bench measures a store, which must be empty.
func Bench(b *testing.B, open func(b *testing.B) storage.Storage) {
	for name, run := range map[string]func(*testing.B, storage.Storage){
		"Ingest": benchIngest, "PutOne": benchPutOne, "Get": benchGet, "Tail": benchTail,
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b)
			defer func() {
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			}()
			run(b, s)
		})
	}
}

func benchStream(n int) storage.Stream {
	return storage.Stream{Project: "p", Path: types.StreamPath(fmt.Sprintf("bench/+/%d", n))}
}

// feed commits batches as a Collector does: entries of log text of some streams, with a checkpoint.
type feed struct {
	text []byte
	at   int
	next [benchStreams]types.MessageIndex
	n    int
}

func newFeed() *feed {
	f := &feed{text: make([]byte, 0, 9<<20)}
	for i := 0; len(f.text) < 8<<20; i++ {
		f.text = fmt.Appendf(f.text, "2026-01-02T03:04:05.%06dZ worker-%d: compiled package %x in %d ms\n", i%1000000, i%7, i*7919, i%977)
	}
	return f
}

func (f *feed) commit(b *testing.B, s storage.Storage) {
	batch := s.NewBatch()
	for k := range benchPuts {
		n := (f.n + k) % benchStreams
		if f.at+benchEntrySize > len(f.text) {
			f.at = 0
		}
		if err := batch.Put(storage.PutRequest{Stream: benchStream(n), Index: f.next[n], Values: [][]byte{f.text[f.at : f.at+benchEntrySize]}}); err != nil {
			b.Fatal(err)
		}
		f.next[n]++
		f.at += benchEntrySize
	}
	f.n++
	batch.SetCheckpoint("r", int64(f.n))
	if err := batch.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func benchIngest(b *testing.B, s storage.Storage) {
	f := newFeed()
	b.SetBytes(benchPuts * benchEntrySize)
	for b.Loop() {
		f.commit(b, s)
	}
	if err := s.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// benchPutOne puts a line at a time, as a quiet stream does.
func benchPutOne(b *testing.B, s storage.Storage) {
	line := newFeed().text[:100]
	for i := types.MessageIndex(0); b.Loop(); i++ {
		if err := s.Put(b.Context(), storage.PutRequest{Stream: benchStream(0), Index: i, Values: [][]byte{line}}); err != nil {
			b.Fatal(err)
		}
	}
}

// benchGet reads streams from their beginning to their end.
func benchGet(b *testing.B, s storage.Storage) {
	f := newFeed()
	for range 128 {
		f.commit(b, s)
	}
	b.SetBytes(int64(f.next[0]) * benchEntrySize)
	for i := 0; b.Loop(); i++ {
		got := types.MessageIndex(0)
		err := s.Get(b.Context(), storage.GetRequest{Stream: benchStream(i % benchStreams)}, func(e storage.Entry) bool {
			got += types.MessageIndex(len(e.Data) / benchEntrySize)
			return true
		})
		if err != nil || got != f.next[0] {
			b.Fatalf("%d entries, %v", got, err)
		}
	}
}

func benchTail(b *testing.B, s storage.Storage) {
	f := newFeed()
	for range 128 {
		f.commit(b, s)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := s.Tail(b.Context(), benchStream(i%benchStreams)); err != nil {
			b.Fatal(err)
		}
	}
}
