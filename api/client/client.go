// Package client opens connections to Daybook's server. The command line, Butlers, Collectors and Archivists share it.
//
// Errors of calls carry the kinds of package fault. A connection that breaks is made again within a second of the server's
// return; calls made meanwhile fail with kind Transient unless they ask for grpc.WaitForReady. A server is made with
// ServerOptions, so that both ends agree on sizes and keepalive.
package client

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// MaxMessageSize is the largest message either side takes. Responses hold up to 16 MiB of entries, and one entry more.
	MaxMessageSize = 64 << 20

	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
)

// Dial returns a connection to the server at target, a host and port or any other gRPC target. It does not wait for the
// server; the first call does. The connection is in plain text unless an option brings other credentials.
func Dial(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 5 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageSize), grpc.MaxCallSendMsgSize(MaxMessageSize)),
		grpc.WithChainUnaryInterceptor(unary),
		grpc.WithChainStreamInterceptor(stream),
	}, opts...)...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "connect to %s: %w", target, err)
	}
	return conn, nil
}

// ServerOptions returns the options of a server for these clients.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageSize),
		grpc.MaxSendMsgSize(MaxMessageSize),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
	}
}

func unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return received(invoke(ctx, method, req, reply, cc, opts...))
}

func stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, received(err)
	}
	return clientStream{s}, nil
}

// clientStream gives the errors of a stream their kinds. The end of the stream stays io.EOF.
type clientStream struct {
	grpc.ClientStream
}

func (s clientStream) RecvMsg(m any) error { return received(s.ClientStream.RecvMsg(m)) }
func (s clientStream) SendMsg(m any) error { return received(s.ClientStream.SendMsg(m)) }
func (s clientStream) CloseSend() error    { return received(s.ClientStream.CloseSend()) }

// received returns the error of a call with its kind. A connection that did not come about is told without gRPC's wrapping, and with what
// to look at.
func received(err error) error {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.Unavailable {
		return fault.FromGRPC(err)
	}
	quoted, ok := strings.CutPrefix(s.Message(), "connection error: desc = ")
	why, unquoteErr := strconv.Unquote(quoted)
	if !ok || unquoteErr != nil {
		return fault.FromGRPC(err)
	}
	why = strings.TrimPrefix(strings.TrimPrefix(why, "transport: "), "Error while dialing: ")
	hint := "is a server running there?"
	switch {
	case strings.Contains(why, "signed by unknown authority"):
		hint = "if the authority is yours, name its certificate with --tls-ca"
	case strings.Contains(why, "first record does not look like a TLS handshake"):
		hint = "the server there is without TLS, so its address begins with http://"
	case strings.Contains(why, "preface"):
		hint = "if the server there has TLS, its address begins with https://"
	}
	return fault.FromGRPC(status.Errorf(codes.Unavailable, "no connection: %s; %s", why, hint))
}
