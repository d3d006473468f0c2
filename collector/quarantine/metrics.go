package quarantine

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of one Store.
type metrics struct {
	messages, bytes                   prometheus.Gauge
	kept, repeated, evicted, tooLarge prometheus.Counter
}

// newMetrics registers the metrics with reg, if there is one.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: "daybook_quarantine_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "daybook_quarantine_" + name, Help: help})
	}
	return &metrics{
		messages: gauge("messages", "Messages in the quarantine."),
		bytes:    gauge("bytes", "Bytes that the quarantine's messages take."),
		kept:     counter("kept_total", "Messages put into the quarantine."),
		repeated: counter("repeated_total", "Messages that arrived again while they were in the quarantine."),
		evicted:  counter("evicted_total", "Messages that newer ones pushed out of the quarantine."),
		tooLarge: counter("too_large_total", "Messages that do not fit into the quarantine."),
	}
}
