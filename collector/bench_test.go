package collector

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
	"github.com/daybook-dev/daybook/storage/pebble"
)

// The log text of the benchmarks: lines of 63 bytes, 50 an entry, 1 MiB a bundle.
const (
	benchLine    = "2024-01-02 03:04:05 compiling package example.org/some/module\n"
	linesEntry   = 50
	entryTextLen = linesEntry * len(benchLine)
	benchEntries = (1 << 20) / entryTextLen
)

// benchRecords returns journal bytes with n bundles of one stream.
func benchRecords(b *testing.B, c logpb.ButlerMetadata_Compression, n int) []byte {
	b.Helper()
	var out, msg []byte
	w := envelope.Writer{Compression: c}
	lines := slices.Repeat([]string{benchLine}, linesEntry)
	for k := range n {
		e := entry("bench")
		for i := range benchEntries {
			e.Logs = append(e.Logs, text(uint64(k*benchEntries+i), lines...))
		}
		var err error
		if msg, err = w.Append(msg[:0], bundleOf(e)); err != nil {
			b.Fatal(err)
		}
		if out, err = ingest.AppendHeader(out, len(msg)); err != nil {
			b.Fatal(err)
		}
		out = append(out, msg...)
	}
	return out
}

// nowhere is a storage that forgets.
type nowhere struct{ storage.Storage }

func (n nowhere) NewBatch() storage.Batch { return &nowhereBatch{n.Storage.NewBatch(), 0} }

type nowhereBatch struct {
	storage.Batch
	size int
}

func (b *nowhereBatch) Put(r storage.PutRequest) error { b.size += r.Size(); return nil }
func (b *nowhereBatch) Size() int                      { return b.size }
func (b *nowhereBatch) Commit(ctx context.Context) error {
	b.size = 0
	return b.Batch.Commit(ctx)
}

// BenchmarkConsumer measures log text from a journal into storage, over a connection in memory.
func BenchmarkConsumer(b *testing.B) {
	const bundles = 256
	for _, c := range []logpb.ButlerMetadata_Compression{envelope.None, envelope.Zstd} {
		records := benchRecords(b, c, bundles)
		for name, open := range map[string]func(*testing.B) storage.Storage{
			"nowhere": func(*testing.B) storage.Storage { return nowhere{memory.New()} },
			"pebble":  openPebble,
		} {
			b.Run(c.String()+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(bundles * benchEntries * entryTextLen))
				for b.Loop() {
					b.StopTimer()
					store := open(b)
					j := &fakeJournal{content: bytes.Clone(records)}
					f := &fixture{Collector: &Collector{Coordinator: new(fakeCoordinator), Storage: store}}
					ctx, cancel := context.WithCancel(b.Context())
					consumer := NewConsumer(ConsumerConfig{Collector: f.Collector, Journals: j.client(b), Journal: testJournal})
					done := make(chan error, 1)
					b.StartTimer()
					go func() { done <- consumer.Run(ctx) }()
					if err := consumer.WaitFor(ctx, int64(len(records))); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					cancel()
					if err := <-done; err != nil {
						b.Fatal(err)
					}
					if err := store.Close(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

func openPebble(b *testing.B) storage.Storage {
	s, err := pebble.Open(b.TempDir(), pebble.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkFollow measures the time from the append of a lone record to the wake-up of whoever watches its stream.
func BenchmarkFollow(b *testing.B) {
	store := openPebble(b)
	j := new(fakeJournal)
	c := &Collector{Coordinator: new(fakeCoordinator), Storage: store}
	consumer := NewConsumer(ConsumerConfig{Collector: c, Journals: j.client(b), Journal: testJournal})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	changed, stop := store.Watch(storage.Stream{Project: "proj", Path: path("a")})
	defer stop()
	var took []time.Duration
	var i uint64
	for b.Loop() {
		msg := message(b, bundleOf(entry("a", i)))
		i++
		begin := time.Now()
		j.append(b, msg)
		<-changed
		took = append(took, time.Since(begin))
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	c.Close()
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}
