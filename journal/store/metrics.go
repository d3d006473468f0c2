package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// allMetrics are those of all stores, by provider. They have the names that dashboards of other brokers know.
type allMetrics struct {
	operations *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	bytes      *prometheus.CounterVec
	items      *prometheus.HistogramVec
	checks     *prometheus.CounterVec
	active     prometheus.Gauge
}

// metrics are those of a provider.
type metrics struct {
	all      *allMetrics
	provider string
	bytes    prometheus.Counter
	items    prometheus.Observer
}

func newMetrics(r prometheus.Registerer) *allMetrics {
	m := &allMetrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_requests_total", Help: "Operations of fragment stores, by provider, operation and status.",
		}, []string{"provider", "operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gazette_store_request_seconds", Help: "Durations of operations of fragment stores.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 6),
		}, []string{"provider", "operation"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_persisted_bytes_total", Help: "Bytes of files that were put into fragment stores.",
		}, []string{"provider"}),
		items: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gazette_store_list_items", Help: "Objects in listings of a journal.",
			Buckets: prometheus.ExponentialBuckets(1, 10, 6),
		}, []string{"provider"}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_health_checks_total", Help: "Health checks of fragment stores, by provider and result.",
		}, []string{"provider", "status"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gazette_store_active_clients", Help: "Fragment stores in use.",
		}),
	}
	if r != nil {
		r.MustRegister(m.operations, m.seconds, m.bytes, m.items, m.checks, m.active)
	}
	return m
}

func (m *allMetrics) of(provider string) *metrics {
	return &metrics{all: m, provider: provider, bytes: m.bytes.WithLabelValues(provider), items: m.items.WithLabelValues(provider)}
}

func statusOf(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// observe is deferred around an operation. It tells the metrics, and the store's health.
func (s *Store) observe(operation string, begin time.Time, err *error) {
	m := s.metrics
	m.all.operations.WithLabelValues(m.provider, operation, statusOf(*err)).Inc()
	m.all.seconds.WithLabelValues(m.provider, operation).Observe(time.Since(begin).Seconds())
	s.health.observe(operation, *err)
}
