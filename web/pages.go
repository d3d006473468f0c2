package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// front serves the page of recent prefixes.
func (h *handler) front(w http.ResponseWriter, r *http.Request) error {
	return h.writeShell(w, r, http.StatusOK)
}

// page serves /logs/<project>/<prefix>, and /logs/<project>/<prefix>/+/<name> as a page or as raw bytes.
func (h *handler) page(w http.ResponseWriter, r *http.Request) error {
	project, path, _ := strings.Cut(strings.Trim(r.PathValue("path"), "/"), "/")
	prefix, sep, name := types.StreamPath(path).SplitParts()
	switch {
	case project == "":
		return redirect(w, r, &url.URL{Path: "/"})
	case path == "":
		return redirect(w, r, &url.URL{Path: "/", RawQuery: url.Values{"project": {project}}.Encode()})
	case sep && name == "":
		return redirect(w, r, &url.URL{Path: "/logs/" + project + "/" + string(prefix), RawQuery: r.URL.RawQuery})
	}
	if wantsRaw(r, sep) {
		return h.raw(w, r, project, path)
	}
	if err := h.lookUp(r.Context(), project, path, prefix, sep); err != nil {
		return err
	}
	return h.writeShell(w, r, http.StatusOK)
}

// lookUp asks whether a page has something to show, for the sake of its status: a page of nothing is served too, and waits for what
// may come, but programs are told.
func (h *handler) lookUp(ctx context.Context, project, path string, prefix types.StreamName, stream bool) error {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	if stream {
		_, err := h.findStream(ctx, project, path)
		return err
	}
	if err := types.Project(project).Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := prefix.Validate(); err != nil {
		return fault.New(fault.Invalid, "prefix: %w", err)
	}
	res, err := h.logs.ListPrefixes(ctx, &daybookv1.ListPrefixesRequest{Project: project, Pattern: string(prefix), PageSize: 1})
	if err != nil {
		return fault.FromGRPC(err)
	}
	if len(res.Prefixes) == 0 {
		return fault.New(fault.NotFound, "there is no prefix %s in project %s", prefix, project)
	}
	return nil
}

// wantsRaw tells whether a request for a stream or prefix asks for raw bytes: by saying so, or by coming from a program that shows no
// pages. Such a program gets raw streams without asking, but there are no raw bytes of a prefix.
func wantsRaw(r *http.Request, stream bool) bool {
	format := strings.ToLower(r.URL.Query().Get("format"))
	if format != "" || !stream {
		return format == "raw"
	}
	product, _, _ := strings.Cut(r.UserAgent(), "/")
	switch strings.ToLower(strings.TrimSpace(product)) {
	case "curl", "wget", "python-urllib":
		return true
	}
	return false
}

// redirectOldViewer leads the addresses of older link builders to the page of their first stream (spec coordinator 8.2).
func (h *handler) redirectOldViewer(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	stream := strings.Trim(query.Get("s"), "/")
	if stream == "" {
		return fault.New(fault.Invalid, "parameter s is missing; it names a stream as <project>/<prefix>/+/<name>")
	}
	query.Del("s")
	return redirect(w, r, &url.URL{Path: "/logs/" + stream, RawQuery: query.Encode()})
}

func redirect(w http.ResponseWriter, r *http.Request, to *url.URL) error {
	http.Redirect(w, r, to.String(), http.StatusFound)
	return nil
}

func unknownPage(_ http.ResponseWriter, r *http.Request) error {
	return fault.New(fault.NotFound, "there is no page %s; the front page is at /", r.URL.Path)
}

// pageError serves the shell with the status of the error; what to say of it, the script learns from the data API. Raw bytes and
// files are asked for by programs, which get a line of text.
func (h *handler) pageError(w http.ResponseWriter, r *http.Request, err error) {
	status := fault.HTTP(err)
	if status == http.StatusUnauthorized && h.login != nil && h.login() && isVisit(r) {
		toLogin(w, r)
		return
	}
	_, stream, _ := types.StreamPath(r.PathValue("path")).SplitParts()
	if strings.HasPrefix(r.URL.Path, "/static/") || strings.HasPrefix(r.URL.Path, "/logs/") && wantsRaw(r, stream) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		fmt.Fprintf(w, "ERROR: %s\n", publicMessage(err))
		return
	}
	_ = h.writeShell(w, r, status)
}

// writeShell sends the page, which is told whether there is a login, and whether the browser has one.
func (h *handler) writeShell(w http.ResponseWriter, r *http.Request, status int) error {
	login := ""
	switch {
	case h.login == nil || !h.login():
	case Token(r) != "":
		login = "in"
	default:
		login = "out"
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	_, err := w.Write(bytes.Replace(h.assets.shell, []byte("{{login}}"), []byte(login), 1))
	return clientGone(err)
}
