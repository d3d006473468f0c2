package broker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxJSON is the longest request in JSON.
	maxJSON = 1 << 20
	// jsonTime is how long one may take to arrive.
	jsonTime = 10 * time.Second
)

// serveJSON serves an RPC of one request and many responses (spec protocol 11.2).
func (g *gateway) serveJSON(w http.ResponseWriter, r *http.Request, rpc func(ctx context.Context, body []byte, out *jsonWriter) error) {
	if origin := r.Header.Get("Origin"); origin != "" && slices.Contains(g.origins, origin) {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Methods", http.MethodPost)
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	}
	w.Header().Add("Vary", "Origin")
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		w.WriteHeader(http.StatusOK)
		return
	default:
		jsonError(w, http.StatusNotImplemented, fault.New(fault.Unimplemented, "the method %s is not POST", r.Method))
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(jsonTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSON))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		jsonError(w, http.StatusBadRequest, fault.New(fault.Invalid, "read the request: %w", err))
		return
	}
	out := &jsonWriter{w: w, flush: control.Flush}
	if err := rpc(rpcContext(r), body, out); err != nil {
		out.fail(err)
	}
}

// errBody is why a body is no request.
type errBody struct{ error }

func (g *gateway) list(ctx context.Context, body []byte, out *jsonWriter) error {
	req := new(protocol.ListRequest)
	if err := decodeJSON(body, req); err != nil {
		return err
	}
	return g.broker.List(req, &listStream{ctx: ctx, send: func(resp *protocol.ListResponse) error { return out.result(resp) }})
}

func (g *gateway) read(ctx context.Context, body []byte, out *jsonWriter) error {
	req := new(protocol.ReadRequest)
	if err := decodeJSON(body, req); err != nil {
		return err
	}
	return g.broker.Read(req, &readStream{ctx: ctx, send: func(resp *protocol.ReadResponse) error { return out.result(resp) }})
}

// decodeJSON decodes a request; no body is an empty one.
func decodeJSON(body []byte, req proto.Message) error {
	if len(body) == 0 {
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, req); err != nil {
		return errBody{fault.New(fault.Invalid, "decode the request: %w", err)}
	}
	return nil
}

// jsonWriter writes responses as lines.
type jsonWriter struct {
	w     http.ResponseWriter
	flush func() error
	begun bool
}

func (o *jsonWriter) result(m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/json")
	}
	for _, p := range [][]byte{[]byte(`{"result":`), data, []byte("}\n")} {
		if _, err := o.w.Write(p); err != nil {
			return err
		}
	}
	return o.flush()
}

// fail writes an error: as the response, or as its last line.
func (o *jsonWriter) fail(err error) {
	if bad := (errBody{}); errors.As(err, &bad) {
		jsonError(o.w, http.StatusBadRequest, bad.error)
		return
	}
	s := status.Convert(err)
	code := fault.HTTP(fault.FromGRPC(err))
	if !o.begun {
		o.w.Header().Set("Content-Type", "application/json")
		if code == http.StatusUnauthorized {
			o.w.Header().Set("WWW-Authenticate", "Bearer")
		}
		o.w.WriteHeader(code)
	}
	_ = json.NewEncoder(o.w).Encode(map[string]any{"error": map[string]any{
		"grpcCode": s.Code(), "httpCode": code, "message": s.Message(), "httpStatus": http.StatusText(code), "details": []any{},
	}})
}

// jsonError answers a request that never became an RPC.
func jsonError(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s := status.Convert(fault.GRPC(err))
	_ = json.NewEncoder(w).Encode(map[string]any{"code": s.Code(), "message": s.Message(), "details": []any{}})
}

// The streams below stand for those of gRPC where a call comes from elsewhere. Of grpc.ServerStream the broker uses no more
// than the context.

type readStream struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*protocol.ReadResponse) error
}

func (s *readStream) Context() context.Context               { return s.ctx }
func (s *readStream) Send(resp *protocol.ReadResponse) error { return s.send(resp) }

type listStream struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*protocol.ListResponse) error
}

func (s *listStream) Context() context.Context               { return s.ctx }
func (s *listStream) Send(resp *protocol.ListResponse) error { return s.send(resp) }

type appendStream struct {
	grpc.ServerStream
	ctx  context.Context
	recv func() (*protocol.AppendRequest, error)
	resp *protocol.AppendResponse
}

func (s *appendStream) Context() context.Context               { return s.ctx }
func (s *appendStream) Recv() (*protocol.AppendRequest, error) { return s.recv() }
func (s *appendStream) SendAndClose(resp *protocol.AppendResponse) error {
	s.resp = resp
	return nil
}
