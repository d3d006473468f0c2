package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// InstallFileTransport makes OpenFragmentURL, and with it readers whose request has DoNotProxy set, read URLs of the scheme file:
// their paths are those of files below root. It is for clients that share a file system with the brokers.
//
// It applies to the whole process. The returned function undoes it; calls nest, and are undone in reverse order.
func InstallFileTransport(root string) (remove func()) {
	before := fragmentClient.Load()
	fragmentClient.Store(newFragmentClient(&fileTransport{root: root, others: before.Transport}))
	return func() { fragmentClient.Store(before) }
}

// fileTransport serves files below root, and nothing outside of it, as a store would.
type fileTransport struct {
	root   string
	others http.RoundTripper
}

func (t *fileTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "file" {
		return t.others.RoundTrip(req)
	}
	resp := &http.Response{
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, Request: req,
	}
	f, size, err := t.open(req.URL.Path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return withStatus(resp, http.StatusForbidden), nil
	case err != nil:
		return withStatus(resp, http.StatusNotFound), nil
	}
	begin, ranged := int64(0), false
	if r, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes="); ok {
		if begin, err = strconv.ParseInt(strings.TrimSuffix(r, "-"), 10, 64); err != nil || begin >= size {
			_ = f.Close()
			return withStatus(resp, http.StatusRequestedRangeNotSatisfiable), nil
		}
		ranged = true
	}
	if _, err := f.Seek(begin, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, err
	}
	resp.Body, resp.ContentLength = f, size-begin
	if ranged {
		resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, size-1, size))
		return withStatus(resp, http.StatusPartialContent), nil
	}
	return withStatus(resp, http.StatusOK), nil
}

func (t *fileTransport) open(urlPath string) (*os.File, int64, error) {
	name, err := filepath.Localize(strings.TrimPrefix(urlPath, "/"))
	if err != nil {
		return nil, 0, err
	}
	f, err := os.OpenInRoot(t.root, name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func withStatus(resp *http.Response, code int) *http.Response {
	resp.StatusCode, resp.Status = code, fmt.Sprintf("%d %s", code, http.StatusText(code))
	return resp
}
