package disklog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	syncSeconds     prometheus.Histogram
	appendsPerSync  prometheus.Histogram
	bytes           prometheus.Counter
	recoverySeconds prometheus.Gauge
	replayedBytes   prometheus.Counter
	tornTails       prometheus.Counter
	damages         prometheus.Counter
	checkpoints     prometheus.Counter
	queuedRecords   prometheus.Gauge
	heldBytes       prometheus.Gauge
	freeBytes       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	const namespace, subsystem = "daybook", "journal_log"
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	m := &metrics{
		queuedRecords:  gauge("queued_records", "Records that wait to be durable."),
		heldBytes:      gauge("held_bytes", "Disk space that fragments and staged content take."),
		freeBytes:      gauge("disk_free_bytes", "Free space of the log's file system, when it was last looked at."),
		syncSeconds:    histogram("sync_seconds", "Duration of a sync of the log.", prometheus.ExponentialBuckets(32e-6, 2, 16)),
		appendsPerSync: histogram("records_per_sync", "Records that became durable with one sync.", prometheus.ExponentialBuckets(1, 2, 12)),
		bytes:          counter("written_bytes_total", "Bytes written to the log."),
		recoverySeconds: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "recovery_seconds", Help: "Duration of the recovery at start.",
		}),
		replayedBytes: counter("replayed_bytes_total", "Bytes of the log that were replayed at start."),
		tornTails:     counter("torn_tails_total", "Torn tails that were cut at start."),
		damages:       counter("damages_total", "Damaged places found in the log, checkpoints and fragments."),
		checkpoints:   counter("checkpoints_total", "Checkpoints written."),
	}
	if r != nil {
		r.MustRegister(m.syncSeconds, m.appendsPerSync, m.bytes, m.recoverySeconds, m.replayedBytes, m.tornTails, m.damages, m.checkpoints,
			m.queuedRecords, m.heldBytes, m.freeBytes)
	}
	return m
}
