package backend

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what happens to tasks.
type metrics struct {
	leased   prometheus.Counter
	finished prometheus.Counter
	back     prometheus.Counter
	dead     prometheus.Counter
	reopened prometheus.Counter
	expired  prometheus.Counter
	removed  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "daybook", Subsystem: "coordinator", Name: name, Help: help})
	}
	m := &metrics{
		leased:   counter("tasks_leased_total", "Leases of tasks given out."),
		finished: counter("tasks_finished_total", "Tasks deleted by their holders."),
		back:     counter("tasks_handed_back_total", "Tasks handed back by their holders, to be leased again."),
		dead:     counter("tasks_dead_total", "Tasks given up."),
		reopened: counter("streams_reopened_total", "Archived streams that got more entries."),
		expired:  counter("streams_expired_total", "Streams whose removal began because their retention was over."),
		removed:  counter("streams_removed_total", "Streams removed for good."),
	}
	for _, c := range []prometheus.Collector{m.leased, m.finished, m.back, m.dead, m.reopened, m.expired, m.removed} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the coordinator: %w", err)
		}
	}
	return m, nil
}
