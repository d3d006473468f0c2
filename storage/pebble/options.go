package pebble

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// tuned returns Pebble's options for entries: written in bulk, read soon after or not at all, deleted a stream at a time.
func tuned(dir string, o Options) *pebble.Options {
	p := &pebble.Options{
		FS:                 o.FS,
		FormatMajorVersion: pebble.FormatValueSeparation,
		Logger:             logger{o.Logger, dir},

		// Pebble takes the memtables out of the cache's size, so this bounds both together.
		CacheSize: 112 << 20,
		// Large memtables make few, large tables; the third lets writes go on while one is flushed.
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 3,

		// A backlog in level 0 costs readers little here, as they read one stream. Writers are held back only when
		// compaction is hopelessly behind.
		L0CompactionThreshold:      4,
		L0StopWritesThreshold:      24,
		LBaseMaxBytes:              256 << 20,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		MaxOpenFiles:               512,
		BytesPerSync:               1 << 20,
		WALBytesPerSync:            1 << 20,
	}
	p.TargetFileSizes[0] = 16 << 20
	p.Levels[0].BlockSize = 32 << 10
	// Fast on the way in; what stays long enough to reach the last levels is compressed well.
	p.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	// Values of some size lie apart from the keys: compaction moves keys only, and a scan for gaps reads keys only.
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           1 << 10,
			MaxBlobReferenceDepth: 10,
			TargetGarbageRatio:    0.3,
		}
	}
	return p
}

// logger passes Pebble's messages on.
type logger struct {
	log *slog.Logger
	dir string
}

func (l logger) Infof(format string, args ...any)  { l.write(slog.LevelDebug, format, args) }
func (l logger) Errorf(format string, args ...any) { l.write(slog.LevelError, format, args) }

// Fatalf is called when Pebble cannot go on without endangering what is stored, as after a sync that failed; it must not return. Whoever
// reads what is left of the process finds a line that says what to do, also when nothing is logged.
func (l logger) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "daybook: the entries in %s: %s: what became of the last writes is not known, so the process ends; "+
		"free space or mend the disk, and start it again: nothing that was acknowledged is lost\n", l.dir, fmt.Sprintf(format, args...))
	os.Exit(1)
}

func (l logger) write(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "pebble: "+fmt.Sprintf(format, args...))
	}
}

// metrics of the store.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	written, entries, repeated prometheus.Counter
}

// newMetrics registers the metrics, if there is a registerer.
func newMetrics(r prometheus.Registerer, s *Storage) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "daybook", Subsystem: "storage", Name: name, Help: help})
	}
	gauge := func(name, help string, get func(*pebble.Metrics) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "daybook", Subsystem: "storage", Name: name, Help: help}, func() float64 {
			done, err := s.use(context.Background())
			if err != nil {
				return 0
			}
			defer done()
			return get(s.db.Metrics())
		})
	}
	m := &metrics{
		registerer: r,
		written:    counter("written_bytes_total", "Bytes of entries stored."),
		entries:    counter("written_entries_total", "Entries stored."),
		repeated:   counter("repeated_entries_total", "Entries that came again and were left out."),
	}
	m.collectors = []prometheus.Collector{
		m.written, m.entries, m.repeated,
		gauge("disk_bytes", "Bytes on disk.", func(p *pebble.Metrics) float64 { return float64(p.DiskSpaceUsage()) }),
		gauge("compaction_debt_bytes", "Bytes that wait for compaction.", func(p *pebble.Metrics) float64 {
			return float64(p.Compact.EstimatedDebt)
		}),
		gauge("memtable_bytes", "Bytes of memory in memtables.", func(p *pebble.Metrics) float64 { return float64(p.MemTable.Size) }),
	}
	if r == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := r.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}
