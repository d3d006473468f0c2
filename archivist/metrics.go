package archivist

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/archive"
)

// metrics follow spec archive 6.9. Histograms carry the totals as their sums.
type metrics struct {
	leased      prometheus.Counter
	tasks       *prometheus.CounterVec
	taskSeconds prometheus.Histogram
	archives    *prometheus.CounterVec
	bytes       *prometheus.HistogramVec
	entries     *prometheus.HistogramVec
	incomplete  *prometheus.CounterVec
	unreadable  prometheus.Counter
	unordered   prometheus.Counter
	beyond      prometheus.Counter
}

// newMetrics registers the metrics, if there is a registerer.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "daybook", Subsystem: "archivist", Name: name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "daybook", Subsystem: "archivist", Name: name, Help: help, Buckets: buckets}
	}
	m := &metrics{
		leased: prometheus.NewCounter(counter("tasks_leased_total", "Tasks leased.")),
		tasks: prometheus.NewCounterVec(counter("tasks_total", "Tasks worked on, by what became of them."),
			[]string{"outcome"}),
		taskSeconds: prometheus.NewHistogram(histogram("task_seconds", "Time of work on a task.", prometheus.ExponentialBuckets(0.001, 4, 10))),
		archives: prometheus.NewCounterVec(counter("archives_total", "Streams archived, or given up."),
			[]string{"project", "successful"}),
		bytes: prometheus.NewHistogramVec(histogram("archive_bytes", "Size of archives as stored.", prometheus.ExponentialBuckets(256, 8, 10)),
			[]string{"project", "archive", "stream"}),
		entries: prometheus.NewHistogramVec(histogram("archive_entries", "Entries of archives.", prometheus.ExponentialBuckets(1, 8, 10)),
			[]string{"project", "stream"}),
		incomplete: prometheus.NewCounterVec(counter("incomplete_archives_total", "Streams archived without all their entries."),
			[]string{"project"}),
		unreadable: prometheus.NewCounter(counter("unreadable_entries_total", "Entries in storage that could not be parsed.")),
		unordered:  prometheus.NewCounter(counter("unordered_entries_total", "Entries whose numbers went back and were raised.")),
		beyond:     prometheus.NewCounter(counter("beyond_entries_total", "Entries behind the end of their stream, which were removed.")),
	}
	if r == nil {
		return m, nil
	}
	all := []prometheus.Collector{m.leased, m.tasks, m.taskSeconds, m.archives, m.bytes, m.entries, m.incomplete, m.unreadable, m.unordered, m.beyond}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// archived counts a successful archive.
func (m *metrics) archived(s *stream, manifest *archive.Manifest) {
	project, kind := s.task.GetProject(), s.desc.GetStreamType().String()
	m.archives.WithLabelValues(project, "true").Inc()
	m.bytes.WithLabelValues(project, "entries", kind).Observe(float64(manifest.StreamSize))
	m.bytes.WithLabelValues(project, "index", kind).Observe(float64(manifest.IndexSize))
	m.entries.WithLabelValues(project, kind).Observe(float64(manifest.EntryCount))
	if len(manifest.Missing) > 0 {
		m.incomplete.WithLabelValues(project).Inc()
	}
	m.unreadable.Add(float64(manifest.Unreadable))
	m.unordered.Add(float64(manifest.Unordered))
}
