package main

import (
	"cmp"
	"context"
	"expvar"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/web"
)

// handler returns everything that is served by HTTP: the pages, the journals, and what tells about the process. What other
// processes have is passed on to them.
//
// A path that is nobody else's is a journal's, since that is where the clients of other brokers look for it. Journals whose
// names begin like our paths are below /journals/ only, where all are. Below /prpc/, all is calls.
func (s *system) handler(calls http.Handler) http.Handler {
	if s.coord == nil {
		calls = s.relayHTTP(s.Coordinator)
	}
	calls = ownPages(calls, s.mayCall)
	var site http.Handler = http.HandlerFunc(s.noPages)
	if s.Roles.has(roleWeb) {
		site = web.Handler(web.Config{
			Logs: daybookv1.NewLogsClient(s.toCoordinator), Version: versionString(), Login: s.callers.rules.Apply, Logger: s.Log, Registerer: s.metrics,
		})
		s.check("web", func(ctx context.Context) error { return s.reach(ctx, s.toCoordinator, "coordinator") })
	}
	var journals, atRoot http.Handler
	if s.journals != nil {
		journals, atRoot = s.journals.Gateway(broker.GatewayConfig{}), s.journals.Gateway(broker.GatewayConfig{Prefix: "/"})
	} else {
		journals = s.relayHTTP(cmp.Or(s.Journals, s.Coordinator))
		atRoot = journals
	}
	journals = s.callers.anyOf(journals, access.Create, access.Services)
	atRoot = s.callers.anyOf(atRoot, access.Create, access.Services)
	metrics := s.callers.only(access.Services, promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))

	ours := http.NewServeMux()
	handle := func(pattern string, h http.Handler) {
		s.patterns = append(s.patterns, pattern)
		ours.Handle(pattern, h)
	}
	readers := s.callers.anyOf(site, access.List, access.Get, access.DeletePrefix)
	for _, path := range []string{"/{$}", "/logs/", "/v/", "/rpcexplorer/", "/api/"} {
		handle(path, readers)
	}
	handle("/static/", site)
	login := web.NewLogin(s.callers.holder)
	handle("/login", login)
	handle("/logout", login)
	handle("/v1/", journals)
	handle("GET /metrics", metrics)
	handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }))
	handle("GET /readyz", http.HandlerFunc(s.serveReady))
	handle("POST /handover", http.HandlerFunc(s.serveHandover))
	// Operators of other brokers know these.
	handle("/debug/", s.callers.only(access.Services, journals))
	handle("/debug/metrics", metrics)
	for path, handler := range map[string]http.Handler{
		"/debug/vars":          expvar.Handler(),
		"/debug/pprof/":        http.HandlerFunc(pprof.Index),
		"/debug/pprof/cmdline": http.HandlerFunc(pprof.Cmdline),
		"/debug/pprof/profile": http.HandlerFunc(pprof.Profile),
		"/debug/pprof/symbol":  http.HandlerFunc(pprof.Symbol),
		"/debug/pprof/trace":   http.HandlerFunc(pprof.Trace),
	} {
		handle(path, s.callers.only(access.Admin, handler))
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
			readers.ServeHTTP(w, r) // which has a page for people who went astray
		default:
			atRoot.ServeHTTP(w, r)
		}
	})
}

// noPages stands where the pages would be.
func (s *system) noPages(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "this process has the roles "+s.Roles.String()+"; pages are served by those with the role web", http.StatusNotFound)
}
