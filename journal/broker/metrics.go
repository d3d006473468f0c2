package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/journal/protocol"
)

// metrics have the names that dashboards of other brokers know, where there is one.
type metrics struct {
	started       *prometheus.CounterVec
	completed     *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	commits       prometheus.Counter
	rollbacks     prometheus.Counter
	rolledBack    prometheus.Counter
	receiving     prometheus.Gauge
	committing    prometheus.Gauge
	delayed       prometheus.Counter
	stalled       prometheus.Counter
	appendedBytes prometheus.Counter
	readBytes     prometheus.Counter
	blockedReads  prometheus.Gauge

	stored          prometheus.Counter
	storedBytes     prometheus.Counter
	uploadFailures  prometheus.Counter
	listingFailures prometheus.Counter
	damaged         prometheus.Counter
}

// newMetrics returns metrics that are registered. backlog tells how many bytes wait to be stored, and since when in Unix
// seconds, or zero.
func newMetrics(r prometheus.Registerer, backlog func() (bytes, since int64)) *metrics {
	m := &metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_journal_server_started_totals", Help: "Calls that began, by operation.",
		}, []string{"operation"}),
		completed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gazette_journal_server_completed_totals", Help: "Calls that ended, by operation and status.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "daybook_journal_call_seconds", Help: "Duration of calls, by operation.", Buckets: prometheus.ExponentialBuckets(100e-6, 4, 10),
		}, []string{"operation"}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_commits_total", Help: "Appends committed with content.",
		}),
		rollbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_rollbacks_total", Help: "Appends of which content was dropped.",
		}),
		rolledBack: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_rollback_bytes_total", Help: "Bytes of appends that were dropped.",
		}),
		receiving: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "daybook_journal_appends_receiving", Help: "Appends whose content is being received.",
		}),
		committing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "daybook_journal_appends_committing", Help: "Appends that wait to be durable.",
		}),
		delayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_append_delayed_chunks_total", Help: "Messages of appends held back by the maximum rate.",
		}),
		stalled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_append_stalls_total", Help: "Appends cut off because their client was too slow.",
		}),
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_commit_bytes_total", Help: "Bytes of committed appends.",
		}),
		readBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_read_bytes_total", Help: "Bytes of content sent to readers.",
		}),
		blockedReads: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "daybook_journal_blocked_reads", Help: "Reads that wait for content.",
		}),
		stored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gazette_spool_persisted_total", Help: "Fragments that stores have.",
		}),
		storedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_stored_bytes_total", Help: "Bytes of content in fragments that were put into stores.",
		}),
		uploadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_store_failures_total", Help: "Attempts to store a fragment that failed.",
		}),
		listingFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_listing_failures_total", Help: "Attempts to list the stores of a journal that failed.",
		}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "daybook_journal_damaged_fragments_total", Help: "Fragments on the local disk that were found damaged.",
		}),
	}
	backlogBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "daybook_journal_unstored_bytes", Help: "Bytes in finished fragments that wait to be stored.",
	}, func() float64 {
		bytes, _ := backlog()
		return float64(bytes)
	})
	backlogAge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "daybook_journal_unstored_age_seconds", Help: "Age of the oldest byte that waits to be stored.",
	}, func() float64 {
		_, since := backlog()
		if since == 0 {
			return 0
		}
		return time.Since(time.Unix(since, 0)).Seconds()
	})
	if r != nil {
		r.MustRegister(m.started, m.completed, m.seconds, m.commits, m.appendedBytes, m.rollbacks, m.rolledBack,
			m.receiving, m.committing, m.delayed, m.stalled, m.readBytes, m.blockedReads,
			m.stored, m.storedBytes, m.uploadFailures, m.listingFailures, m.damaged, backlogBytes, backlogAge)
	}
	return m
}

// commit counts a committed append.
func (m *metrics) commit(size int64) {
	if size > 0 {
		m.commits.Inc()
		m.appendedBytes.Add(float64(size))
	}
}

// began counts a call.
func (m *metrics) began(operation string) { m.started.WithLabelValues(operation).Inc() }

// ended counts the outcome of a call.
func (m *metrics) ended(operation string, status protocol.Status, err error, took time.Duration) {
	outcome := "ok"
	switch {
	case err != nil:
		outcome = "<error>"
	case status != protocol.Status_OK:
		outcome = status.String()
	}
	m.completed.WithLabelValues(operation, outcome).Inc()
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
}
