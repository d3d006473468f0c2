package config

import "github.com/prometheus/client_golang/prometheus"

var (
	infoDesc = prometheus.NewDesc("daybook_config_info",
		"The version of the configuration that applies, as a label.", []string{"version"}, nil)
	successDesc = prometheus.NewDesc("daybook_config_last_reload_successful",
		"1 if the configuration's file was good when it was last read, or there is none; 0 if an older version applies instead of it.", nil, nil)
	takenDesc = prometheus.NewDesc("daybook_config_last_reload_success_timestamp_seconds",
		"When the configuration's file was last taken.", nil, nil)
)

// Describe implements prometheus.Collector: an Authority is registered as its own metrics.
func (a *Authority) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{infoDesc, successDesc, takenDesc} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Authority) Collect(c chan<- prometheus.Metric) {
	a.mu.Lock()
	version, taken, success := a.current.Version, a.taken, 1.0
	if a.failed {
		success = 0
	}
	a.mu.Unlock()
	c <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1, version)
	c <- prometheus.MustNewConstMetric(successDesc, prometheus.GaugeValue, success)
	c <- prometheus.MustNewConstMetric(takenDesc, prometheus.GaugeValue, float64(taken.UnixNano())/1e9)
}
