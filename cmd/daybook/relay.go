package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// relayedHeader is in calls that were passed on, once for each process that did.
	relayedHeader = "daybook-relayed"
	// maxRelays ends what would go round for ever between processes that take each other for the one that answers.
	maxRelays = 3
)

// relay answers calls of services that this process does not have: it passes them on to the process that does. So each process is a
// door to the whole system, and a Butler or a reader needs one address.
func (s *system) relay(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	conn := s.elsewhere(method)
	if conn == nil {
		return status.Errorf(codes.Unimplemented, "there is no method %s in a process with the roles %s", method, s.Roles)
	}
	md, _ := metadata.FromIncomingContext(in.Context())
	if len(md.Get(relayedHeader)) >= maxRelays {
		return status.Errorf(codes.FailedPrecondition, "%s goes round between processes; look at their --coordinator and --journals", method)
	}
	md = md.Copy()
	delete(md, "authorization") // the connection knows whose call it is
	md.Append(relayedHeader, s.Roles.String())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(in.Context(), md))
	defer cancel()
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return original(err)
	}
	// A stream that waits for its client can be told to stop by nobody but the end of this call, so Close waits for the goroutine.
	s.serving.Go(func() {
		if err := pass(in.RecvMsg, out.SendMsg); err != nil {
			cancel()
			return
		}
		_ = out.CloseSend() // its failure is RecvMsg's, too
	})
	if header, err := out.Header(); err == nil {
		if err := in.SetHeader(header); err != nil {
			return err
		}
	}
	err = pass(out.RecvMsg, in.SendMsg)
	in.SetTrailer(out.Trailer())
	return original(err)
}

// pass passes messages on until there are no more. They are not looked into: what an empty message does not know, it keeps.
func pass(receive, send func(any) error) error {
	for {
		m := new(emptypb.Empty)
		if err := receive(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := send(m); errors.Is(err, io.EOF) {
			return nil // the other direction has the reason
		} else if err != nil {
			return err
		}
	}
}

// original returns the status that a server sent, as it was before the client gave it a kind.
func original(err error) error {
	sent := err
	for e := err; e != nil; e = errors.Unwrap(e) {
		if s, ok := e.(interface{ GRPCStatus() *status.Status }); ok {
			sent = s.GRPCStatus().Err()
		}
	}
	return sent
}

// elsewhere returns the way to the process that has a method, or nil if there is none, or it would be this one.
func (s *system) elsewhere(method string) *grpc.ClientConn {
	conn := s.toCoordinator
	for _, service := range []string{"/protocol.", "/daybook.journal."} {
		if strings.HasPrefix(method, service) {
			conn = s.toJournals
		}
	}
	if conn == s.conn {
		return nil
	}
	return conn
}

// relayHTTP is relay for HTTP: it passes requests on to the process that a flag names.
func (s *system) relayHTTP(address string) http.Handler {
	if address == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this process has the roles "+s.Roles.String()+"; ask another one", http.StatusNotFound)
		})
	}
	if !isURL(address) {
		address = "http://" + address
	}
	to, err := url.Parse(address)
	if err != nil {
		to = &url.URL{Scheme: "http", Host: address} // which fails, and says so
	}
	transport, err := s.Peers.transport()
	if err != nil {
		s.Log.Error("requests cannot be passed on", "to", to.Host, "error", err) // nor can calls, of which the start tells
	}
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // answers may be without end
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Authorization")
			if credential := s.callers.elsewhere(r.In.Context(), s.Peers.Token); credential != "" {
				r.Out.Header.Set("Authorization", "Bearer "+credential)
			}
			r.Out.Header[http.CanonicalHeaderKey(relayedHeader)] = append(r.In.Header.Values(relayedHeader), s.Roles.String())
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.Log.Warn("cannot pass on a request", "to", to.Host, "path", r.URL.Path, "error", err)
			http.Error(w, "the process that answers this cannot be reached", http.StatusBadGateway)
		},
	}
}
