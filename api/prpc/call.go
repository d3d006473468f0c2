package prpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

// refusal is an error of the protocol, not of a method. Its message is always sent.
type refusal struct {
	status *status.Status
	http   int // zero is that of the code
}

func (e *refusal) Error() string { return e.status.Message() }

// GRPCStatus lets interceptors see the code.
func (e *refusal) GRPCStatus() *status.Status { return e.status }

func refuse(code codes.Code, httpStatus int, format string, args ...any) error {
	return &refusal{status: status.Newf(code, "prpc: "+format, args...), http: httpStatus}
}

// call is one POST.
type call struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	name   string // as gRPC has it: /service/method

	accept   encoding
	maxSize  int64 // zero is no limit
	compress bool
	sent     headerStream
}

// serve reads the request, and calls the method.
func (c *call) serve(service, method string) (proto.Message, error) {
	h := c.r.Header
	contentType, ok := encodingOf(h.Get("Content-Type"))
	if !ok {
		return nil, refuse(codes.InvalidArgument, http.StatusUnsupportedMediaType,
			"Content-Type %q is none of application/prpc; encoding=binary, application/json, application/prpc; encoding=text", h.Get("Content-Type"))
	}
	var err error
	if c.accept, ok, err = accept(h["Accept"]); err != nil {
		return nil, refuse(codes.InvalidArgument, 0, "header Accept: %v", err)
	} else if !ok {
		return nil, refuse(codes.InvalidArgument, http.StatusNotAcceptable,
			"Accept %q has none of application/prpc; encoding=binary, application/json, application/prpc; encoding=text", h["Accept"])
	}
	zip, err := acceptsGzip(h["Accept-Encoding"])
	if err != nil {
		return nil, refuse(codes.InvalidArgument, 0, "header Accept-Encoding: %v", err)
	}
	policy := c.server.config.Compression
	c.compress = zip && (policy == CompressAll || policy == CompressExceptJSON && c.accept != json)
	if v := h.Get(headerMaxResponseSize); v != "" {
		if c.maxSize, err = strconv.ParseInt(v, 10, 64); err != nil || c.maxSize <= 0 {
			return nil, refuse(codes.InvalidArgument, 0, "header %s: %q is not a number above zero", headerMaxResponseSize, v)
		}
	}
	c.sent.method = c.name
	ctx, err := callContext(c.r, &c.sent)
	if err != nil {
		return nil, err
	}
	if v := h.Get(headerTimeout); v != "" {
		budget, err := decodeTimeout(v)
		if err != nil {
			return nil, refuse(codes.InvalidArgument, 0, "header %s: %v", headerTimeout, err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, budget)
		defer cancel()
	}
	// What is wrong with the body comes before what interceptors and the method say.
	resp, err := c.server.run(ctx, service, method, func(req any) error {
		body, err := c.body(ctx)
		if err != nil {
			return err
		}
		if err := contentType.unmarshal(body, req.(proto.Message)); err != nil {
			return refuse(codes.InvalidArgument, 0, "the body is not a request of %s: %v", c.name, err)
		}
		return ctx.Err()
	})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ctx.Err() // whatever came of it comes too late
	}
	return resp, err
}

// body reads the body of the request, decompressed. Its memory grows with what has come, whatever the client announced.
func (c *call) body(ctx context.Context) ([]byte, error) {
	limit := c.server.maxRequest
	if c.r.ContentLength > limit {
		return nil, c.tooLarge()
	}
	connection := http.NewResponseController(c.w)
	limited := &io.LimitedReader{R: &patientReader{ctx: ctx, from: c.r.Body, deadline: connection.SetReadDeadline, began: time.Now()}, N: limit + 1}
	var from io.Reader = limited
	zipped := strings.EqualFold(strings.TrimSpace(c.r.Header.Get("Content-Encoding")), "gzip")
	if zipped {
		unzipped, err := gzip.NewReader(limited)
		if err != nil {
			return nil, c.unreadable(ctx, limited, err)
		}
		from = &io.LimitedReader{R: unzipped, N: limit + 1}
	}
	var b bytes.Buffer
	if !zipped && c.r.ContentLength > 0 {
		b.Grow(int(min(c.r.ContentLength, slowest)) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(from); err != nil {
		return nil, c.unreadable(ctx, limited, err)
	}
	if int64(b.Len()) > limit || limited.N <= 0 {
		return nil, c.tooLarge()
	}
	// From here on the server reads only to see whether the client goes away, and that may take as long as the method.
	_ = connection.SetReadDeadline(time.Time{})
	return b.Bytes(), nil
}

func (c *call) tooLarge() error {
	c.w.Header().Set("Connection", "close")
	return refuse(codes.Unavailable, 0, "the request is larger than %d bytes", c.server.maxRequest)
}

// unreadable says what an error means that occurred while the body was read.
func (c *call) unreadable(ctx context.Context, read *io.LimitedReader, err error) error {
	c.w.Header().Set("Connection", "close")
	switch {
	case read.N <= 0:
		return c.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The server cancels the request for it, so what ctx says now is of no use.
		if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
			return context.DeadlineExceeded
		}
		return refuse(codes.DeadlineExceeded, 0, "the body came slower than %d bytes a second", slowest)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(codes.Canceled, 0, "the body ended early")
	}
	return refuse(codes.InvalidArgument, 0, "read the body: %v", err)
}

// patientReader reads a body as long as it comes fast enough, and its call has time left.
type patientReader struct {
	ctx      context.Context
	from     io.Reader
	deadline func(time.Time) error
	began    time.Time
	got      time.Duration // bytes
}

func (p *patientReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	until := p.began.Add(bodyGrace + p.got*time.Second/slowest)
	if d, ok := p.ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	_ = p.deadline(until) // a connection that has none is its server's business
	n, err := p.from.Read(b)
	p.got += time.Duration(n)
	return n, err
}

// succeed sends a response.
func (c *call) succeed(resp proto.Message) {
	body, err := c.accept.body(resp)
	if err != nil {
		c.fail(fmt.Errorf("encode the response: %w", err))
		return
	}
	if c.maxSize > 0 && int64(len(body)) > c.maxSize {
		s, err := status.Newf(codes.Unavailable, "prpc: the response has %d bytes, and the client takes %d", len(body), c.maxSize).
			WithDetails(protoadapt.MessageV1Of(&prpcpb.ErrorDetails{Error: &prpcpb.ErrorDetails_ResponseTooBig{
				ResponseTooBig: &prpcpb.ResponseTooBig{ResponseSize: int64(len(body)), ResponseLimit: c.maxSize},
			}}))
		if err != nil {
			c.fail(err)
			return
		}
		c.fail(&refusal{status: s})
		return
	}
	h := c.w.Header()
	setMetadata(h, c.sent.take())
	h.Set("Content-Type", c.accept.mediaType())
	if c.compress && len(body) > compressAbove {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(body) // into memory
		_ = z.Close()
		h.Set("Content-Encoding", "gzip")
		body = zipped.Bytes()
	}
	c.send(http.StatusOK, codes.OK, body)
}

// fail sends what became of a call that failed.
func (c *call) fail(err error) {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	var ours *refusal
	if s.Code() == codes.OK {
		s = status.Newf(codes.Internal, "the method failed with a status that says success: %v", err)
	}
	httpStatus, said := outcome(s.Code())
	if errors.As(err, &ours) {
		said = ""
		if ours.http != 0 {
			httpStatus = ours.http
		}
	}
	h := c.w.Header()
	details, err := c.details(s)
	if err != nil {
		s = status.Newf(codes.Internal, "encode the details of %v: %v", s, err)
		httpStatus, said = outcome(codes.Internal)
		details = nil
	}
	if said != "" {
		level := slog.LevelWarn
		switch s.Code() {
		case codes.DeadlineExceeded, codes.Unimplemented, codes.Unavailable: // any caller can bring these about, at any rate
			level = slog.LevelInfo
		}
		c.server.config.Logger.Log(c.r.Context(), level, "a call by pRPC failed", "method", c.name, "code", s.Code(), "error", s.Message())
	} else {
		said = s.Message()
	}
	setMetadata(h, c.sent.take())
	h.Set("Content-Type", "text/plain; charset=utf-8")
	for _, d := range details {
		h.Add(headerDetails, d)
	}
	c.send(httpStatus, s.Code(), []byte(said+"\n"))
}

// details returns the details of a status, as headers have them.
func (c *call) details(s *status.Status) ([]string, error) {
	var out []string
	for _, d := range s.Proto().GetDetails() {
		b, err := c.accept.marshal(d)
		if err != nil {
			return nil, err
		}
		out = append(out, base64.StdEncoding.EncodeToString(b))
	}
	return out, nil
}

// send writes the answer, to a client that takes it fast enough.
func (c *call) send(httpStatus int, code codes.Code, body []byte) {
	h := c.w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(headerCode, strconv.Itoa(int(code)))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	connection := http.NewResponseController(c.w)
	_ = connection.SetWriteDeadline(time.Now().Add(bodyGrace + time.Duration(len(body))*time.Second/slowest))
	c.w.WriteHeader(httpStatus)
	_, err := c.w.Write(body)
	if err = errors.Join(err, connection.Flush()); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return // the client is gone; the deadline stays, and the server closes the connection
	}
	_ = connection.SetWriteDeadline(time.Time{})
}

// headerStream collects the headers that a method sets.
type headerStream struct {
	method string
	mu     sync.Mutex
	md     metadata.MD // guarded by mu
}

var _ grpc.ServerTransportStream = (*headerStream)(nil)

// Method returns the method, as gRPC has it.
func (s *headerStream) Method() string { return s.method }

// SetHeader adds metadata to what is sent with the answer.
func (s *headerStream) SetHeader(md metadata.MD) error {
	for key := range md {
		if reserved(strings.ToLower(key)) {
			return status.Errorf(codes.Internal, "prpc: header %s is the protocol's", key)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.md = metadata.Join(s.md, md)
	return nil
}

// SendHeader is SetHeader: all is sent at once, at the end.
func (s *headerStream) SendHeader(md metadata.MD) error { return s.SetHeader(md) }

// SetTrailer fails, since an answer has no trailer.
func (s *headerStream) SetTrailer(metadata.MD) error {
	return status.Error(codes.Unimplemented, "prpc: answers have no trailers")
}

func (s *headerStream) take() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.md
}
