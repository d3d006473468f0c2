package collector

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Metrics counts what Collectors do. One value serves any number of them.
type Metrics struct {
	bundles         prometheus.Counter
	bundleBytes     prometheus.Histogram
	bundleEntries   prometheus.Histogram
	entries         *prometheus.CounterVec // by type of stream
	entrySeconds    *prometheus.HistogramVec
	logs            prometheus.Counter
	dropped         *prometheus.CounterVec // by reason
	lost            prometheus.Counter
	messages        *prometheus.CounterVec // by result
	messageSeconds  prometheus.Histogram
	retries         *prometheus.CounterVec // by operation
	skippedBytes    prometheus.Counter
	missingBytes    prometheus.Counter
	position        *prometheus.GaugeVec // by journal
	durablePosition *prometheus.GaugeVec
	lag             *prometheus.GaugeVec
}

// NewMetrics registers the metrics of Collectors with reg; with nil they are counted and not shown.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "daybook_collector_" + name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "daybook_collector_" + name, Help: help, Buckets: buckets}
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return auto.NewGaugeVec(prometheus.GaugeOpts{Name: "daybook_collector_" + name, Help: help}, []string{"journal"})
	}
	seconds := prometheus.ExponentialBuckets(50e-6, 4, 10)
	return &Metrics{
		bundles: auto.NewCounter(counter("bundles_total", "Messages received.")),
		bundleBytes: auto.NewHistogram(histogram("bundle_bytes", "Size of messages as received.",
			prometheus.ExponentialBuckets(256, 4, 9))),
		bundleEntries: auto.NewHistogram(histogram("bundle_entries", "Streams that a bundle mentions.",
			prometheus.ExponentialBuckets(1, 4, 8))),
		entries:        auto.NewCounterVec(counter("entries_total", "Streams that bundles mentioned, by type."), []string{"stream"}),
		entrySeconds:   auto.NewHistogramVec(histogram("entry_seconds", "Time to register the stream of a bundle's entry, store what it says, and report its end.", seconds), []string{"stream"}),
		logs:           auto.NewCounter(counter("logs_total", "Log entries stored, those that were there already included.")),
		dropped:        auto.NewCounterVec(counter("dropped_total", "Messages and bundle entries not stored, by reason."), []string{"reason"}),
		lost:           auto.NewCounter(counter("unkept_total", "Messages that were refused and could not be put into the quarantine.")),
		messages:       auto.NewCounterVec(counter("messages_total", "Messages processed, by result."), []string{"result"}),
		messageSeconds: auto.NewHistogram(histogram("message_seconds", "Time from a message's arrival until it is stored.", seconds)),
		retries:        auto.NewCounterVec(counter("retries_total", "Operations that failed for a passing reason, by operation."), []string{"operation"}),
		skippedBytes:   auto.NewCounter(counter("journal_skipped_bytes_total", "Bytes in journals that belong to no record.")),
		missingBytes:   auto.NewCounter(counter("journal_missing_bytes_total", "Bytes that were gone from journals before they were read.")),

		position:        gauge("journal_position", "Journal offset below which everything is stored."),
		durablePosition: gauge("journal_durable_position", "Journal offset below which everything is on stable storage."),
		lag:             gauge("journal_lag_bytes", "Bytes between the position and the end of the journal as last heard of."),
	}
}

// handled counts a bundle's entry.
func (m *Metrics) handled(r *run, started time.Time) {
	label := r.streamType()
	m.entries.WithLabelValues(label).Inc()
	m.entrySeconds.WithLabelValues(label).Observe(time.Since(started).Seconds())
}

// forget drops what is said of a journal that is not collected any more.
func (m *Metrics) forget(journal pb.Journal) {
	for _, g := range []*prometheus.GaugeVec{m.position, m.durablePosition, m.lag} {
		g.DeleteLabelValues(string(journal))
	}
}

// Why messages and bundle entries are dropped.
const (
	dropMalformed = "malformed" // the message cannot be decoded
	dropVersion   = "version"   // the message is of another version
	dropRefused   = "refused"   // by us or by the Coordinator
	dropSecret    = "secret"    // the stream belongs to another secret
	dropLate      = "late"      // the stream is archived or purged
)

// Results of messages.
const (
	resultSuccess   = "success"
	resultFailure   = "failure"
	resultTransient = "transient_failure"
)
