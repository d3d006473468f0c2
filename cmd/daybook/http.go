package main

import (
	"expvar"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/web"
)

// handler returns everything that is served by HTTP: the pages, the journals, and what tells about the process.
//
// A path that is nobody else's is a journal's, since that is where the clients of other brokers look for it. Journals whose
// names begin like our paths are below /journals/ only, where all are. Below /prpc/, all is calls.
func (s *system) handler(reg *prometheus.Registry, calls http.Handler) http.Handler {
	calls = ownPages(calls)
	site := web.Handler(web.Config{Logs: daybookv1.NewLogsClient(s.conn), Version: versionString(), Logger: s.Log, Registerer: reg})
	journals := s.journals.Gateway(broker.GatewayConfig{})
	atRoot := s.journals.Gateway(broker.GatewayConfig{Prefix: "/"})
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})

	ours := http.NewServeMux()
	for _, path := range []string{"/{$}", "/logs/", "/v/", "/static/", "/api/"} {
		ours.Handle(path, site)
	}
	ours.Handle("/v1/", journals)
	ours.Handle("GET /metrics", metrics)
	ours.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	ours.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.readiness(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	ours.HandleFunc("POST /handover", s.serveHandover)
	// Operators of other brokers know these. Only loopback reaches them.
	ours.Handle("/debug/", journals)
	ours.Handle("/debug/metrics", metrics)
	ours.Handle("/debug/vars", expvar.Handler())
	ours.HandleFunc("/debug/pprof/", pprof.Index)
	ours.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	ours.HandleFunc("/debug/pprof/profile", pprof.Profile)
	ours.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	ours.HandleFunc("/debug/pprof/trace", pprof.Trace)

	return ownHost(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Journals are told apart before the multiplexer would redirect a path to what it takes it for.
		_, pattern := ours.Handler(r)
		switch {
		case strings.HasPrefix(r.URL.Path, prpc.Prefix):
			calls.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/journals/"):
			journals.ServeHTTP(w, r)
		case pattern != "":
			ours.ServeHTTP(w, r)
		case strings.Contains(r.Header.Get("Accept"), "text/html"):
			site.ServeHTTP(w, r) // which has a page for people who went astray
		default:
			atRoot.ServeHTTP(w, r)
		}
	}))
}
