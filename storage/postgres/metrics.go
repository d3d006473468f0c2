package postgres

import "github.com/prometheus/client_golang/prometheus"

// metrics of the store.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	written, stored, entries, repeated prometheus.Counter
}

// newMetrics registers the metrics, if there is a registerer.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "daybook", Subsystem: "storage", Name: name, Help: help})
	}
	m := &metrics{
		registerer: r,
		written:    counter("written_bytes_total", "Bytes of entries stored."),
		stored:     counter("block_bytes_total", "Bytes of the blocks that hold them."),
		entries:    counter("written_entries_total", "Entries stored."),
		repeated:   counter("repeated_entries_total", "Entries that came again and were left out."),
	}
	m.collectors = []prometheus.Collector{m.written, m.stored, m.entries, m.repeated}
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
