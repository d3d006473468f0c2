package bigtable

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/storage/runs"
)

// metrics of the store.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	written, entries, repeated prometheus.Counter
}

// newMetrics registers the metrics, if there is a registerer.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "daybook", Subsystem: "storage", Name: name, Help: help})
	}
	m := &metrics{
		registerer: r,
		written:    counter("written_bytes_total", "Bytes of entries stored."),
		entries:    counter("written_entries_total", "Entries stored."),
		repeated:   counter("repeated_entries_total", "Entries that came again and were left out."),
	}
	m.collectors = []prometheus.Collector{m.written, m.entries, m.repeated}
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

// counts of a commit.
type counts struct{ entries, bytes, repeated int }

func (c *counts) add(put, missing []runs.Run) {
	for _, r := range put {
		c.repeated += len(r.Values)
	}
	for _, r := range missing {
		c.repeated -= len(r.Values)
		c.entries += len(r.Values)
		for _, v := range r.Values {
			c.bytes += len(v)
		}
	}
}

func (m *metrics) count(c counts) {
	m.entries.Add(float64(c.entries))
	m.written.Add(float64(c.bytes))
	m.repeated.Add(float64(c.repeated))
}
