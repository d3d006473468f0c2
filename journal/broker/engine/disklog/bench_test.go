package disklog

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// report reports quantiles of durations.
func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkRawSync is the baseline: a kilobyte into a file whose blocks have been written before, and a sync.
func BenchmarkRawSync(b *testing.B) {
	f, err := vfs.OS.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 20
	for at := int64(0); at < size; at += 1 << 20 {
		if _, err := f.WriteAt(make([]byte, 1<<20), at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1<<10)
	var took []time.Duration
	var at int64
	for b.Loop() {
		begin := time.Now()
		if _, err := f.WriteAt(p, at); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
		at = (at + int64(len(p))) % size
	}
	report(b, took)
}

// BenchmarkAppend is one appender of a kilobyte at a time.
func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	defer enginetest.Close(b, l)
	enginetest.Create(b, l, "test/a")
	content := string(make([]byte, 1<<10))
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		enginetest.Must(b, l, "test/a", enginetest.Append(content))
		took = append(took, time.Since(begin))
	}
	report(b, took)
}

// BenchmarkAppend64 is 64 appenders of 4 KiB at a time, to as many journals and to one.
func BenchmarkAppend64(b *testing.B) {
	for name, journals := range map[string]int{"journals=1": 1, "journals=64": 64} {
		b.Run(name, func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			defer enginetest.Close(b, l)
			names := make([]string, journals)
			for i := range names {
				names[i] = "test/" + string(rune('A'+i)) + "xx"
				enginetest.Create(b, l, protocol.Journal(names[i]))
			}
			content := string(make([]byte, 4<<10))
			b.SetBytes(int64(len(content)))
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range 64 {
				wg.Go(func() {
					for i := w; i < b.N; i += 64 {
						enginetest.Must(b, l, protocol.Journal(names[w%journals]), enginetest.Append(content))
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
		})
	}
}
