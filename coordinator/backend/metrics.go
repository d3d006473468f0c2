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
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "daybook", Subsystem: "coordinator_tasks", Name: name, Help: help})
	}
	m := &metrics{
		leased:   counter("leased_total", "Leases of tasks given out."),
		finished: counter("finished_total", "Tasks deleted by their holders."),
		back:     counter("handed_back_total", "Tasks handed back by their holders, to be leased again."),
		dead:     counter("dead_total", "Tasks given up."),
	}
	for _, c := range []prometheus.Collector{m.leased, m.finished, m.back, m.dead} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the coordinator: %w", err)
		}
	}
	return m, nil
}
