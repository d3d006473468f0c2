package client

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxTracked is how many journals have metrics of their own. A process that has more of them counts the rest together, as
	// restJournal: series are never given up, and would fill the memory of those who collect them.
	maxTracked  = 4096
	restJournal = "(others)"
)

// traffic counts the bytes of all readers and appenders of the process.
var traffic = newTraffic()

// Collector returns the metrics of all readers and appenders of the process, by journal. They count in any case; register it
// to publish them.
func Collector() prometheus.Collector { return traffic }

type trafficMetrics struct {
	appended, read                                           *prometheus.CounterVec // by journal, as the caller refers to it
	opened, openedBytes, openedLength, fragmentRead, skipped *prometheus.CounterVec // by journal and codec

	mu      sync.Mutex
	tracked map[string]struct{}
}

func newTraffic() *trafficMetrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"journal"}, labels...))
	}
	return &trafficMetrics{
		appended:     vec("gazette_append_bytes_total", "Bytes given to appends, including those that were rolled back or tried again."),
		read:         vec("gazette_read_bytes_total", "Bytes returned by readers."),
		opened:       vec("gazette_fragment_open_total", "Fragments fetched from their stores.", "codec"),
		openedBytes:  vec("gazette_fragment_open_bytes_total", "Bytes of content of the fragments fetched.", "codec"),
		openedLength: vec("gazette_fragment_open_content_length_total", "Bytes of the files of the fragments fetched, as far as stores tell.", "codec"),
		fragmentRead: vec("gazette_read_fragment_bytes_total", "Bytes of content read from fragments.", "codec"),
		skipped:      vec("gazette_discard_fragment_bytes_total", "Bytes of content of fragments that were read only to get to the wanted offset.", "codec"),
		tracked:      make(map[string]struct{}),
	}
}

func (t *trafficMetrics) vecs() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{t.appended, t.read, t.opened, t.openedBytes, t.openedLength, t.fragmentRead, t.skipped}
}

// Describe implements prometheus.Collector.
func (t *trafficMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, v := range t.vecs() {
		v.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (t *trafficMetrics) Collect(c chan<- prometheus.Metric) {
	for _, v := range t.vecs() {
		v.Collect(c)
	}
}

// label returns what stands for a journal.
func (t *trafficMetrics) label(journal string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.tracked[journal]; !ok {
		if len(t.tracked) >= maxTracked {
			return restJournal
		}
		t.tracked[journal] = struct{}{}
	}
	return journal
}

func (t *trafficMetrics) of(v *prometheus.CounterVec, journal string) prometheus.Counter {
	return v.WithLabelValues(t.label(journal))
}

// fetched counts a fragment, of which a store sends length bytes, or -1 if it does not tell.
func (t *trafficMetrics) fetched(f *pb.Fragment, length int64) {
	labels := []string{t.label(f.GetJournal()), f.GetCompressionCodec().String()}
	t.opened.WithLabelValues(labels...).Inc()
	t.openedBytes.WithLabelValues(labels...).Add(float64(f.ContentLength()))
	if length >= 0 {
		t.openedLength.WithLabelValues(labels...).Add(float64(length))
	}
}

// ofFragment returns the counters of what is read, and of what is discarded.
func (t *trafficMetrics) ofFragment(f *pb.Fragment) (read, skipped prometheus.Counter) {
	labels := []string{t.label(f.GetJournal()), f.GetCompressionCodec().String()}
	return t.fragmentRead.WithLabelValues(labels...), t.skipped.WithLabelValues(labels...)
}
