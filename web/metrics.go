package web

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec
	bytes     prometheus.Counter
	followers prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "daybook_web_requests_total",
			Help: "HTTP requests answered, by route and status.",
		}, []string{"route", "code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_web_sent_bytes_total",
			Help: "Bytes of HTTP bodies sent.",
		}),
		followers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "daybook_web_followers",
			Help: "Requests that follow a stream now.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.bytes, m.followers)
	}
	return m
}

func (m *metrics) observe(route string, w *responseWriter) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.bytes.Add(float64(w.written))
}

// responseWriter remembers what became of a response.
type responseWriter struct {
	http.ResponseWriter
	status  int
	written int64
}

func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// Unwrap makes flushing and deadlines available to http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
