package client

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of an AppendService. nil counts nothing.
type metrics struct {
	appends prometheus.Counter
	bytes   prometheus.Counter
	retries prometheus.Counter
	failed  prometheus.Counter
}

// WithMetrics registers the service's metrics.
func WithMetrics(reg prometheus.Registerer) AppendServiceOption {
	return func(s *AppendService) {
		m := &metrics{
			appends: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "daybook_append_service_appends_total", Help: "Append RPCs that were acknowledged.",
			}),
			bytes: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "daybook_append_service_bytes_total", Help: "Bytes of content that were acknowledged.",
			}),
			retries: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "daybook_append_service_retries_total", Help: "Append RPCs that failed and are tried again.",
			}),
			failed: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "daybook_append_service_failures_total", Help: "Batches that failed for good.",
			}),
		}
		reg.MustRegister(m.appends, m.bytes, m.retries, m.failed,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "daybook_append_service_pending_bytes", Help: "Bytes that were released and not acknowledged yet.",
			}, func() float64 { n, _ := s.Pending(); return float64(n) }))
		s.metrics = m
	}
}

func (m *metrics) retry() {
	if m != nil {
		m.retries.Inc()
	}
}

func (m *metrics) finished(bytes int64, err error) {
	switch {
	case m == nil:
	case err == nil:
		m.appends.Inc()
		m.bytes.Add(float64(bytes))
	case !isContextError(err):
		m.failed.Inc()
	}
}
