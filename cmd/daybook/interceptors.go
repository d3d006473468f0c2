package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
)

// interceptors go around every call, the first outermost, however it comes.
type interceptors struct {
	unary  []grpc.UnaryServerInterceptor
	stream []grpc.StreamServerInterceptor
}

func (i *interceptors) add(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) {
	i.unary = append(i.unary, unary)
	i.stream = append(i.stream, stream)
}

func (i *interceptors) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(i.unary...), grpc.ChainStreamInterceptor(i.stream...)}
}

// early registers services whose interceptors go around the receipt of a request, too. Otherwise whoever is refused in the end could
// first have megabytes decoded, which take many times as much memory.
type early struct{ *grpc.Server }

func (e early) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		info := &grpc.UnaryServerInfo{Server: impl, FullMethod: "/" + desc.ServiceName + "/" + m.MethodName}
		d.Methods[i].Handler = func(srv any, ctx context.Context, receive func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			return around(ctx, nil, info, func(ctx context.Context, _ any) (any, error) {
				return m.Handler(srv, ctx, receive, nil)
			})
		}
	}
	e.Server.RegisterService(&d, impl)
}

// panicsAreErrors keeps a defect in one call from taking the process, and with it everybody's calls, down.
func panicsAreErrors(log *slog.Logger) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	caught := func(method string, err *error) {
		if r := recover(); r != nil {
			log.Error("panic in a call", "method", method, "panic", r, "stack", string(debug.Stack()))
			*err = fault.GRPC(fault.New(fault.Internal, "%s failed because of a defect; the server's log has the details", method))
		}
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
			defer caught(info.FullMethod, &err)
			return handler(ctx, req)
		}, func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer caught(info.FullMethod, &err)
			return handler(srv, ss)
		}
}
