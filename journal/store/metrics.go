package store

import (
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// allMetrics are those of all stores, by store: its URL without arguments. They have the names that dashboards of other brokers
// know.
type allMetrics struct {
	operations *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	bytes      *prometheus.CounterVec // of puts, by encoding
	items      *prometheus.HistogramVec
	checks     *prometheus.CounterVec
	active     prometheus.Gauge
}

// metrics are those of a store.
type metrics struct {
	all   *allMetrics
	store string
	items prometheus.Observer
}

func newMetrics(r prometheus.Registerer) *allMetrics {
	m := &allMetrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_operation_total", Help: "Operations of fragment stores, by store, operation and status.",
		}, []string{"store", "operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gazette_store_operation_duration_seconds", Help: "Durations of operations of fragment stores.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 6),
		}, []string{"store", "operation", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_put_bytes_total", Help: "Bytes of files that were put into fragment stores, by store and content encoding.",
		}, []string{"store", "encoding"}),
		items: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gazette_store_list_items_count", Help: "Objects in listings of a journal.",
			Buckets: prometheus.ExponentialBuckets(1, 10, 6),
		}, []string{"store"}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_store_health_check_total", Help: "Health checks of fragment stores, by store and result.",
		}, []string{"store", "status"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gazette_store_active", Help: "Fragment stores in use.",
		}),
	}
	if r != nil {
		r.MustRegister(m.operations, m.seconds, m.bytes, m.items, m.checks, m.active)
	}
	return m
}

func (m *allMetrics) of(u *url.URL) *metrics {
	name := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	return &metrics{all: m, store: name, items: m.items.WithLabelValues(name)}
}

// put counts the bytes of a file that was put.
func (m *metrics) put(size int64, encoding string) {
	m.all.bytes.WithLabelValues(m.store, encoding).Add(float64(size))
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
	m.all.operations.WithLabelValues(m.store, operation, statusOf(*err)).Inc()
	m.all.seconds.WithLabelValues(m.store, operation, statusOf(*err)).Observe(time.Since(begin).Seconds())
	s.health.observe(operation, *err)
}
