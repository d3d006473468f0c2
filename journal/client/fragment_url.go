package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// fragmentClient fetches fragments from their stores.
var fragmentClient atomic.Pointer[http.Client]

func init() {
	// One connection of HTTP/2 would carry many fetches, and its end would be the end of all of them.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	fragmentClient.Store(newFragmentClient(&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		Protocols:             &protocols,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}))
}

func newFragmentClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		// A store must not send its readers to files of theirs.
		if s := req.URL.Scheme; s != "http" && s != "https" {
			return fault.New(fault.Denied, "redirected to the scheme %q", s)
		}
		if len(via) >= 10 {
			return errors.New("redirected too often")
		}
		return nil
	}}
}

// OpenFragmentURL fetches a fragment from its store, and returns a reader of its content from an offset of the journal on. The
// URL is usually signed, so it is a secret, and errors leave its query out.
//
// Of a fragment that is not compressed, only what is wanted is fetched; of others all that comes before it, too.
func OpenFragmentURL(ctx context.Context, f *pb.Fragment, offset int64, fragmentURL string) (*FragmentReader, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fragmentURL, nil)
	if err != nil {
		// The error of net/http repeats the whole URL.
		return nil, fault.New(fault.Invalid, "fetch fragment %s: its URL is not valid", f.ContentPath())
	}
	first := f.GetBegin()
	switch f.GetCompressionCodec() {
	case pb.CompressionCodec_NONE:
		if offset > f.GetBegin() && offset < f.GetEnd() {
			first = offset
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", first-f.GetBegin()))
		}
	case pb.CompressionCodec_GZIP:
		// Asking for gzip keeps the HTTP client from decompressing by itself, and a store from doing so.
		req.Header.Set("Accept-Encoding", "gzip")
	case pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION:
		req.Header.Set("Accept-Encoding", "identity")
	}
	resp, err := fragmentClient.Load().Do(req)
	if err != nil {
		return nil, fetchFailed(ctx, req.URL, err)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		first = f.GetBegin() // A store may ignore the range.
	case resp.StatusCode == http.StatusPartialContent && req.Header.Get("Range") != "" && beginsAt(resp, first-f.GetBegin()):
	default:
		_ = resp.Body.Close()
		return nil, refusedFetch(req.URL, resp)
	}
	if f.GetCompressionCodec() == pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		// This store does not decompress.
		f = proto.CloneOf(f)
		f.CompressionCodec = pb.CompressionCodec_GZIP
	}
	traffic.fetched(f, resp.ContentLength)
	return newFragmentReader(body{resp.Body, req.URL}, f, first, offset)
}

// body is a file on its way from a store. That it does not arrive says nothing about the file.
type body struct {
	io.ReadCloser
	from *url.URL
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.New(fault.Transient, "fetch %s: %w", publicURL(b.from), err)
	}
	return n, err
}

// beginsAt reports whether a partial response begins where it was asked to.
func beginsAt(resp *http.Response, begin int64) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", begin))
}

// publicURL returns the URL without what is secret of it.
func publicURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func fetchFailed(ctx context.Context, u *url.URL, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The error of net/http repeats the whole URL.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	kind := fault.Transient
	if k := fault.KindOf(err); k != fault.Internal {
		kind = k
	}
	return fault.New(kind, "fetch %s: %w", publicURL(u), err)
}

func refusedFetch(u *url.URL, resp *http.Response) error {
	kind := fault.Internal
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound, code == http.StatusGone:
		kind = fault.NotFound
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		kind = fault.Denied
	case code == http.StatusRequestedRangeNotSatisfiable:
		kind = fault.DataLoss // The offset lies within the fragment, so its file is too short.
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		kind = fault.Transient
	}
	return fault.New(kind, "fetch %s: the store answers %s", publicURL(u), resp.Status)
}

// storeError marks what failed in reading a fragment from its store, rather than in the RPC.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// ofStore marks an error other than the fragment's regular end.
func ofStore(ctx context.Context, err error) error {
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // Only the plain one is an end.
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &storeError{err}
}
