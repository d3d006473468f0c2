package broker

import "github.com/prometheus/client_golang/prometheus"

// metrics have the names that dashboards of other brokers know, where there is one.
type metrics struct {
	started       *prometheus.CounterVec
	completed     *prometheus.CounterVec
	appendedBytes prometheus.Counter
	readBytes     prometheus.Counter
	blockedReads  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_journal_server_started_totals", Help: "Calls that began, by operation.",
		}, []string{"operation"}),
		completed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_journal_server_completed_totals", Help: "Calls that ended, by operation and status.",
		}, []string{"operation", "status"}),
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_commit_bytes_total", Help: "Bytes of committed appends.",
		}),
		readBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_read_bytes_total", Help: "Bytes of content sent to readers.",
		}),
		blockedReads: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "daybook_journal_blocked_reads", Help: "Reads that wait for content.",
		}),
	}
	if r != nil {
		r.MustRegister(m.started, m.completed, m.appendedBytes, m.readBytes, m.blockedReads)
	}
	return m
}

// call counts a call; the result is to be deferred with the call's error.
func (m *metrics) call(operation string, status func() string) func(*error) {
	m.started.WithLabelValues(operation).Inc()
	return func(err *error) {
		outcome := "<error>"
		if *err == nil {
			if outcome = status(); outcome == "OK" {
				outcome = "ok"
			}
		}
		m.completed.WithLabelValues(operation, outcome).Inc()
	}
}
