// Package web is Daybook's door for browsers and for programs that speak plain HTTP: the pages of the viewer, the raw bytes of
// a stream, the data API as JSON, JSON lines and server-sent events (docs/api.md), and a page for calling every service by hand.
//
// Handler knows the Coordinator only as a client of its gRPC API, so it serves equally well from the Coordinator's process and from a
// machine of its own. It keeps no state and buffers at most one message a request: a slow reader slows its own call down
// to the Coordinator and nothing else.
//
// The pages are built from the TypeScript sources beside this file (`npm run build`); the result, dist, is committed and
// embedded, so that neither a user nor `go build` needs Node.js.
//
// Requests that follow a stream last as long as the stream is open. A server that shuts down ends them by cancelling the
// context that it gives to its requests (http.Server.BaseContext).
package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Config is what a Handler needs.
type Config struct {
	// Logs answers all questions. Required.
	Logs daybookv1.LogsClient
	// Version is shown on the pages.
	Version string
	// Login reports whether callers need a token, so that people without one are led to the login. Nil is never.
	Login func() bool
	// Logger receives failures that are not the client's. Required.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means none are kept.
	Registerer prometheus.Registerer
}

// Handler returns the handler of all pages and of the data API. It answers every path, unknown ones with 404, so it is mounted at the
// root, below whatever else the listener serves.
func Handler(c Config) http.Handler {
	_, routes := newHandler(c)
	return routes
}

func newHandler(c Config) (*handler, http.Handler) {
	h := &handler{
		logs:      c.Logs,
		login:     c.Login,
		log:       c.Logger,
		metrics:   newMetrics(c.Registerer),
		heartbeat: 15 * time.Second,
		hold:      time.Second,
		assets:    loadAssets(c.Version),
	}
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request) error, onError errorWriter) {
		mux.Handle(pattern, h.route(pattern, reading, f, onError))
	}
	change := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		mux.Handle(pattern, h.route(pattern, changing, f, h.apiError))
	}
	handle("/{$}", h.front, h.pageError)
	handle("/logs/{path...}", h.page, h.pageError)
	handle("/v/{$}", h.redirectOldViewer, h.pageError)
	handle("/static/{file}", h.static, h.pageError)
	handle("/rpcexplorer/{file...}", h.explorer, h.pageError)
	handle("/api/v1/version", h.getVersion(c.Version), h.apiError)
	handle("/api/v1/projects", h.listProjects, h.apiError)
	handle("/api/v1/prefixes", h.listPrefixes, h.apiError)
	handle("/api/v1/folders", h.listFolders, h.apiError)
	handle("/api/v1/streams", h.findStreams, h.apiError)
	handle("/api/v1/usage", h.getUsage, h.apiError)
	handle("/api/v1/stream/{project}/{path...}", h.getStream, h.apiError)
	handle("/api/v1/entries/{project}/{path...}", h.entries, h.apiError)
	handle("/api/v1/follow/{project}/{path...}", h.follow, h.apiError)
	change("/api/v1/purge", h.purge)
	change("/api/v1/undelete", h.undelete)
	handle("/api/", unknownRoute, h.apiError)
	handle("/", unknownPage, h.pageError)
	return h, mux
}

type handler struct {
	logs      daybookv1.LogsClient
	login     func() bool
	log       *slog.Logger
	metrics   *metrics
	heartbeat time.Duration
	hold      time.Duration
	assets    *assets
}

// errorWriter answers a request that failed before anything was written.
type errorWriter func(w http.ResponseWriter, r *http.Request, err error)

// methods are those that a route takes.
type methods []string

var (
	reading  = methods{http.MethodGet, http.MethodHead}
	changing = methods{http.MethodPost}
)

// errGone is in the chain of the error of a failed write: nobody is left to be told.
var errGone = errors.New("the client went away")

// route is what all routes have in common: allowed methods, security headers, metrics, and what becomes of errors.
func (h *handler) route(name string, takes methods, f func(http.ResponseWriter, *http.Request) error, onError errorWriter) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &responseWriter{ResponseWriter: rw}
		defer func() { h.metrics.observe(name, w) }()
		secure(w.Header())
		if !slices.Contains(takes, r.Method) {
			w.Header().Set("Allow", strings.Join(takes, ", "))
			http.Error(w, "This is asked for with "+takes[0]+".", http.StatusMethodNotAllowed)
			return
		}
		err := f(w, r)
		if err == nil {
			return
		}
		gone := r.Context().Err() != nil || errors.Is(err, errGone)
		if !gone && fault.Is(err, fault.Internal) {
			h.log.Error("request failed", "path", r.URL.Path, "err", err)
		}
		if gone || w.status != 0 {
			// A response that looks complete and is not must not be left behind.
			panic(http.ErrAbortHandler)
		}
		onError(w, r, err)
	})
}

// secure sets the headers that keep what a producer wrote from acting in a reader's browser.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// publicMessage is what the client is told of err. Defects are for the log of the server alone.
func publicMessage(err error) string {
	if fault.Is(err, fault.Internal) {
		return "The server failed. Its log says why; try again, and tell whoever runs it if that does not help."
	}
	return err.Error()
}

// clientGone marks the error of a failed write.
func clientGone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// writeTimeout is how long a client may take for one write before it is taken for dead.
const writeTimeout = time.Minute

// extendWrite gives the next write its time, whatever limit the server has for whole responses.
func extendWrite(w http.ResponseWriter) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return clientGone(err)
	}
	return nil
}

// rpcTimeout bounds a call that has one answer.
const rpcTimeout = 30 * time.Second
