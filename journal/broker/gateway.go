package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// GatewayConfig adjusts a Gateway.
type GatewayConfig struct {
	// Prefix is the path that journals are below; empty is "/journals/". With "/" they are where clients of other brokers
	// look for them, and nothing else can be served there.
	Prefix string
	// AllowOrigins are the web origins (scheme, host and port) whose pages may use the JSON gateway.
	AllowOrigins []string
}

// Gateway returns a handler that serves journals by HTTP (spec protocol 11). Every request is checked as the RPC that it stands
// for, by the token of its own Authorization header.
//
//	GET, HEAD, PUT  <prefix><journal>           reads, and appends
//	POST            /v1/journals/list, …/read   the RPCs List and Read in JSON
//	GET             /debug/ready                whether appends are possible
//
// A GET takes ?offset= and ?block=, or a Range of bytes. A PUT is one append, which is committed only if its body has been read
// to the end. A browser that asks for the page of another origin is refused whatever is not a plain GET: where nobody needs a
// token, any page could append otherwise.
func (b *Broker) Gateway(c GatewayConfig) http.Handler {
	prefix := c.Prefix
	if prefix == "" {
		prefix = "/journals/"
	}
	g := &gateway{broker: b, prefix: prefix, origins: slices.Clone(c.AllowOrigins), crossOrigin: http.NewCrossOriginProtection()}
	for _, origin := range g.origins {
		if err := g.crossOrigin.AddTrustedOrigin(origin); err != nil {
			b.logger.Warn("pages of this origin are not allowed, since it is none", "origin", origin, "error", err)
		}
	}
	return http.HandlerFunc(g.serve)
}

type gateway struct {
	broker      *Broker
	prefix      string
	origins     []string
	crossOrigin *http.CrossOriginProtection
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	if err := g.crossOrigin.Check(r); err != nil {
		http.Error(w, "pages of other origins may not do this", http.StatusForbidden)
		return
	}
	switch path := r.URL.Path; {
	case path == "/v1/journals/list":
		g.serveJSON(w, r, g.list)
	case path == "/v1/journals/read":
		g.serveJSON(w, r, g.read)
	case path == "/debug/ready":
		g.ready(w)
	case strings.HasPrefix(path, "/v1/"), strings.HasPrefix(path, "/debug/"), !strings.HasPrefix(path, g.prefix):
		http.NotFound(w, r)
	default:
		g.serveJournal(w, r, protocol.Journal(strings.TrimPrefix(path, g.prefix)))
	}
}

func (g *gateway) ready(w http.ResponseWriter) {
	if err := g.broker.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

func (g *gateway) serveJournal(w http.ResponseWriter, r *http.Request, journal protocol.Journal) {
	// What a journal holds is somebody else's. No browser is to take it for a page of ours.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	if err := journal.Validate(); err != nil {
		badRequest(w, err)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		req, err := readRequest(r, journal)
		if err != nil {
			badRequest(w, err)
			return
		}
		g.get(w, r, req)
	case http.MethodPut:
		if r.URL.RawQuery != "" { // also one that cannot be parsed
			badRequest(w, errors.New("an append takes no arguments"))
			return
		}
		g.put(w, r, journal)
	default:
		badRequest(w, fmt.Errorf("the method %s is not one of GET, HEAD and PUT", r.Method))
	}
}

func badRequest(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// rpcContext returns the context of an RPC that stands for a request: with the caller's token, and nobody else's.
func rpcContext(r *http.Request) context.Context {
	md := metadata.MD{}
	if tokens := r.Header.Values("Authorization"); len(tokens) != 0 {
		md.Set("authorization", tokens...)
	}
	return metadata.NewIncomingContext(r.Context(), md)
}

// readRequest returns the RPC's request for a GET.
func readRequest(r *http.Request, journal protocol.Journal) (*protocol.ReadRequest, error) {
	req := &protocol.ReadRequest{Journal: string(journal), MetadataOnly: r.Method == http.MethodHead, MaxContent: 128 << 10}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	for name, values := range query {
		if len(values) != 1 {
			return nil, fmt.Errorf("the argument %q is given %d times", name, len(values))
		}
		switch name {
		case "offset":
			req.Offset, err = strconv.ParseInt(values[0], 10, 64)
		case "block":
			req.Block, err = strconv.ParseBool(values[0])
		default:
			return nil, fmt.Errorf("the argument %q is not one of offset and block", name)
		}
		if err != nil {
			return nil, fmt.Errorf("the argument %s: %w", name, err)
		}
	}
	if text := r.Header.Get("Range"); text != "" {
		if query.Has("offset") {
			return nil, errors.New("there are both an offset and a Range")
		}
		if req.Offset, req.EndOffset, err = parseRange(text); err != nil {
			return nil, err
		}
	}
	if req.GetOffset() < int64(protocol.OffsetHead) && !query.Has("offset") {
		return req, nil // of the last bytes, whose offset is found out later
	}
	return req, req.Validate()
}

// parseRange returns the offsets of a Range of one run of bytes. One of the last n bytes is returned as -n-1, since -1 is
// the write head.
func parseRange(text string) (offset, end int64, err error) {
	malformed := fault.New(fault.Invalid, "the Range %q is not of the form bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH", text)
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	number := func(s string) int64 {
		n, parseErr := strconv.ParseUint(s, 10, 63)
		if parseErr != nil {
			err = malformed
		}
		return int64(n)
	}
	switch {
	case !ok || !strings.HasPrefix(text, "bytes="):
		return 0, 0, malformed
	case first == "":
		if offset = -number(last) - 1; offset == -1 {
			err = malformed
		}
		return offset, 0, err
	case last == "":
		return number(first), 0, err
	}
	offset, end = number(first), number(last)
	if end < offset {
		return 0, 0, malformed
	}
	if end == math.MaxInt64 {
		return offset, 0, err // which is how we say "to the end" ourselves
	}
	return offset, end + 1, err
}

// fromTail replaces a request for the last n bytes by one from their offset on.
func (g *gateway) fromTail(ctx context.Context, req *protocol.ReadRequest) error {
	var head int64
	look := &readStream{ctx: ctx, send: func(resp *protocol.ReadResponse) error {
		head = resp.GetWriteHead()
		return nil
	}}
	n := -(req.GetOffset() + 1)
	err := g.broker.Read(&protocol.ReadRequest{Journal: req.GetJournal(), Offset: int64(protocol.OffsetHead), MetadataOnly: true}, look)
	req.Offset = max(0, head-n)
	return err
}

// get answers a GET or HEAD with what a read sends.
func (g *gateway) get(w http.ResponseWriter, r *http.Request, req *protocol.ReadRequest) {
	ctx := rpcContext(r)
	out := &readWriter{w: w, flush: http.NewResponseController(w).Flush, request: r, read: req}
	var err error
	if req.GetOffset() < int64(protocol.OffsetHead) {
		err = g.fromTail(ctx, req)
	}
	if err == nil {
		err = g.broker.Read(req, &readStream{ctx: ctx, send: out.send})
	}
	out.end(err)
}

// readWriter writes the messages of a read to an HTTP response.
type readWriter struct {
	w       http.ResponseWriter
	flush   func() error
	request *http.Request
	read    *protocol.ReadRequest

	begun  bool
	next   int64  // the offset of the content that is due
	reason string // why the response ends
}

// errJump ends a read that would leave out content in the middle of a response, where nobody would notice.
var errJump = errors.New("the next content is not adjacent")

func (o *readWriter) send(resp *protocol.ReadResponse) error {
	switch {
	case len(resp.GetContent()) != 0:
		o.next += int64(len(resp.GetContent()))
		if _, err := o.w.Write(resp.GetContent()); err != nil {
			return err
		}
		return o.flush()
	case !o.begun:
		o.begin(resp)
	case resp.GetStatus() != protocol.Status_OK:
		o.reason = resp.GetStatus().String()
	case resp.GetOffset() != o.next:
		o.reason = fmt.Sprintf("the next content is at offset %d", resp.GetOffset())
		return errJump
	}
	return nil
}

// begin writes the headers.
func (o *readWriter) begin(resp *protocol.ReadResponse) {
	o.begun, o.next = true, resp.GetOffset()
	h := o.w.Header()
	routeHeaders(h, o.request, resp.GetHeader().GetRoute())
	if resp.GetWriteHead() != 0 {
		h.Set("X-Write-Head", strconv.FormatInt(resp.GetWriteHead(), 10))
	}
	if f := resp.GetFragment(); f != nil {
		h.Set("X-Fragment-Name", f.ContentName())
		if f.GetModTime() != 0 {
			h.Set("X-Fragment-Last-Modified", time.Unix(f.GetModTime(), 0).UTC().Format(http.TimeFormat))
		}
		if resp.GetFragmentUrl() != "" {
			h.Set("X-Fragment-Location", resp.GetFragmentUrl())
		}
	}
	if s := resp.GetStatus(); s != protocol.Status_OK {
		http.Error(o.w, s.String(), readStatus(s))
		return
	}
	last := int64(math.MaxInt64)
	if end := o.read.GetEndOffset(); end != 0 {
		last = max(end, o.next+1) - 1
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", o.next, last, int64(math.MaxInt64)))
	h.Set("Content-Type", "application/octet-stream")
	if !o.read.GetMetadataOnly() {
		h.Set("Trailer", closeError)
	}
	o.w.WriteHeader(http.StatusPartialContent)
	if !o.read.GetMetadataOnly() {
		_ = o.flush() // a client that is gone is noticed by the next write
	}
}

const closeError = "X-Close-Error"

// end ends the response.
func (o *readWriter) end(err error) {
	if !o.begun {
		switch {
		case o.request.Context().Err() != nil:
			http.Error(o.w, o.request.Context().Err().Error(), http.StatusRequestTimeout)
		case err == nil:
			http.Error(o.w, "the broker has ended the read", http.StatusServiceUnavailable)
		default:
			callError(o.w, err)
		}
		return
	}
	switch {
	case o.reason != "":
	case err != nil:
		o.reason = err.Error()
	case o.read.GetEndOffset() != 0 && o.next >= o.read.GetEndOffset():
		o.reason = "EOF"
	default:
		o.reason = "the broker has ended the read"
	}
	o.w.Header().Set(closeError, strings.Map(printable, o.reason))
}

func readStatus(s protocol.Status) int {
	switch s {
	case protocol.Status_JOURNAL_NOT_FOUND:
		return http.StatusNotFound
	case protocol.Status_INSUFFICIENT_JOURNAL_BROKERS:
		return http.StatusServiceUnavailable
	case protocol.Status_OFFSET_NOT_YET_AVAILABLE:
		return http.StatusRequestedRangeNotSatisfiable
	}
	return http.StatusInternalServerError
}

// callError answers with the error of an RPC.
func callError(w http.ResponseWriter, err error) {
	err = fault.FromGRPC(err)
	if fault.Is(err, fault.Unauthenticated) {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	http.Error(w, err.Error(), fault.HTTP(err))
}

// routeHeaders tells where the journal is.
func routeHeaders(h http.Header, r *http.Request, route *protocol.Route) {
	if len(route.GetMembers()) == 0 {
		return
	}
	// The text form has spaces of random number on purpose. Nothing in a route has a space.
	text := strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(route)), " ")
	h.Set("X-Route-Token", text)
	if p := route.GetPrimary(); p >= 0 && int(p) < len(route.GetEndpoints()) {
		if location, err := url.JoinPath(route.GetEndpoints()[p], r.URL.EscapedPath()); err == nil {
			h.Set("Location", location)
		}
	}
}

// printable replaces what has no place in a header.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return ' '
	}
	return r
}
