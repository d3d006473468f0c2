package prpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

// Compression says which responses may be compressed, for clients that take it. Small ones never are.
type Compression int

const (
	// CompressNone compresses nothing: right where the network is faster than gzip.
	CompressNone Compression = iota
	// CompressAll compresses all responses.
	CompressAll
	// CompressExceptJSON compresses what browsers do not read: there, the size of what is compressed can tell of secrets in it.
	CompressExceptJSON
)

// Config configures a Server. Logger must be set.
type Config struct {
	// Interceptors go around each call, the first outermost, as those of a grpc.Server.
	Interceptors []grpc.UnaryServerInterceptor
	// CrossOrigin says what a page of an origin may do with a service. Without it, pages of other origins get no permission.
	// Browsers let them call all the same, without showing them the answer; who does not check callers in each method has
	// to refuse such calls before they come here, for instance with http.CrossOriginProtection.
	CrossOrigin func(service, origin string) Access
	Compression Compression
	// Logger is told the messages that are not sent: those of failures that are the server's fault.
	Logger *slog.Logger
}

// Access is what pages of an origin may do.
type Access struct {
	// Allow lets them call and read the answer.
	Allow bool
	// Credentials lets their browser send cookies.
	Credentials bool
	// Headers are names of headers that they may send beside those of the protocol.
	Headers []string
}

// Server serves the services that are registered with it, and discovery.Discovery about them. Only unary methods can be called.
type Server struct {
	config     Config
	services   map[string]*service
	maxRequest int64
}

// service is a service and the methods that can be called.
type service struct {
	impl    any
	methods map[string]grpc.MethodDesc
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// NewServer returns a Server that knows no service but discovery.
func NewServer(c Config) *Server {
	s := &Server{config: c, services: make(map[string]*service), maxRequest: maxRequestSize}
	prpcpb.RegisterDiscoveryServer(s, &directory{services: s.services})
	return s
}

// RegisterService adds a service, before the first request. It panics if impl lacks methods, or the service is there already.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("prpc: %T is no %v", impl, want))
	}
	if _, ok := s.services[desc.ServiceName]; ok {
		panic("prpc: a second service " + desc.ServiceName)
	}
	svc := &service{impl: impl, methods: make(map[string]grpc.MethodDesc, len(desc.Methods))}
	for _, m := range desc.Methods {
		svc.methods[m.MethodName] = m
	}
	s.services[desc.ServiceName] = svc
}

// ServeHTTP answers requests below Prefix.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, Prefix)
	service, method, both := strings.Cut(path, "/")
	if !ok || !both || service == "" || method == "" || strings.Contains(method, "/") {
		http.Error(w, "calls are below "+Prefix+"<service>/<method>", http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodPost:
		w.Header()["Date"] = nil
		s.allow(w.Header(), r, service, false)
		s.serveCall(w, r, service, method)
	case http.MethodOptions:
		s.allow(w.Header(), r, service, true)
	default:
		w.Header().Set("Allow", "OPTIONS, POST")
		http.Error(w, "calls are made with POST", http.StatusMethodNotAllowed)
	}
}

// Refuse answers a request below Prefix that must not come to ServeHTTP, because of who makes it, with a failure of the protocol. A page
// that may call from another origin can read why.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	path := strings.TrimPrefix(r.URL.Path, Prefix)
	service, _, _ := strings.Cut(path, "/")
	c := &call{server: s, w: w, r: r, name: "/" + path}
	w.Header()["Date"] = nil
	s.allow(w.Header(), r, service, false)
	c.limitUnread()
	c.fail(err)
}

// allow tells a browser what a page of another origin may do.
func (s *Server) allow(h http.Header, r *http.Request, service string, preflight bool) {
	origin := r.Header.Get("Origin")
	if origin == "" || s.config.CrossOrigin == nil {
		return
	}
	access := s.config.CrossOrigin(service, origin)
	if !access.Allow {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Vary", "Origin")
	if access.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		h.Set("Access-Control-Expose-Headers", headerCode+", "+headerDetails)
		return
	}
	headers := append(access.Headers[:len(access.Headers):len(access.Headers)],
		"Origin", "Content-Type", "Accept", "Authorization", headerTimeout, headerMaxResponseSize)
	h.Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	h.Set("Access-Control-Allow-Methods", "OPTIONS, POST")
	h.Set("Access-Control-Max-Age", "600")
}

// serveCall answers a POST.
func (s *Server) serveCall(w http.ResponseWriter, r *http.Request, service, method string) {
	c := &call{server: s, w: w, r: r, name: "/" + service + "/" + method}
	c.limitUnread()
	resp, err := c.serve(service, method)
	if err != nil {
		c.fail(err)
		return
	}
	c.succeed(resp)
}

// limitUnread sees to it that a body which nobody reads, because the call fails before, does not keep the connection longer than one that
// is read.
func (c *call) limitUnread() {
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(bodyGrace))
}

// run calls the method, through the interceptors. decode fills the request.
func (s *Server) run(ctx context.Context, service, method string, decode func(any) error) (proto.Message, error) {
	svc := s.services[service]
	if svc == nil {
		return nil, refuse(codes.Unimplemented, 0, "there is no service %q here", service)
	}
	m, ok := svc.methods[method]
	if !ok {
		return nil, refuse(codes.Unimplemented, 0, "service %s has no unary method %q", service, method)
	}
	resp, err := m.Handler(svc.impl, ctx, decode, s.intercept)
	if err != nil {
		return nil, err
	}
	return resp.(proto.Message), nil
}

// intercept is the interceptors as one.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	for i := len(s.config.Interceptors) - 1; i >= 0; i-- {
		outer, inner := s.config.Interceptors[i], handler
		handler = func(ctx context.Context, req any) (any, error) { return outer(ctx, req, info, inner) }
	}
	return handler(ctx, req)
}

// callContext returns what a method may ask of its context: metadata, the caller's address, and a place for headers to send.
func callContext(r *http.Request, stream *headerStream) (context.Context, error) {
	md, err := metadataOf(r.Header)
	if err != nil {
		return nil, refuse(codes.InvalidArgument, 0, "%v", err)
	}
	md["host"], md[":authority"] = []string{r.Host}, []string{r.Host}
	ctx := metadata.NewIncomingContext(r.Context(), md)
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		ctx = peer.NewContext(ctx, &peer.Peer{Addr: net.TCPAddrFromAddrPort(from)})
	}
	return grpc.NewContextWithServerTransportStream(ctx, stream), nil
}
