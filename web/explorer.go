package web

import (
	"embed"
	"net/http"
	"path"
	"strconv"

	"github.com/daybook-dev/daybook/internal/fault"
)

// explorerFiles are the page that calls services by hand. It learns from discovery.Discovery what there is, and calls by pRPC.
//
//go:embed explorer
var explorerFiles embed.FS

// explorer serves the page of the RPC explorer and its files.
func (h *handler) explorer(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	data, err := explorerFiles.ReadFile("explorer/" + name)
	if err != nil {
		return fault.New(fault.NotFound, "there is no %s; the explorer is at /rpcexplorer/", r.URL.Path)
	}
	contentType := contentTypes[path.Ext(name)]
	if contentType == "" {
		contentType = "text/html; charset=utf-8"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache") // the names do not change with the content
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, err = w.Write(data)
	return clientGone(err)
}
