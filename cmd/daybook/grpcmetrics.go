package main

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// callMetrics counts the calls of all services under the names that every dashboard of gRPC servers knows.
type callMetrics struct {
	started, handled *prometheus.CounterVec
}

func newCallMetrics(r prometheus.Registerer) *callMetrics {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	m := &callMetrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_started_total", Help: "Calls that began.",
		}, labels),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_handled_total", Help: "Calls that ended, by code.",
		}, append(labels, "grpc_code")),
	}
	r.MustRegister(m.started, m.handled)
	return m
}

// begin counts a call that begins. The function that it returns counts its end.
func (m *callMetrics) begin(kind, fullMethod string) (end func(error)) {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	m.started.WithLabelValues(kind, service, method).Inc()
	return func(err error) {
		m.handled.WithLabelValues(kind, service, method, status.Code(err).String()).Inc()
	}
}

func (m *callMetrics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	end := m.begin("unary", info.FullMethod)
	resp, err := handler(ctx, req)
	end(err)
	return resp, err
}

func (m *callMetrics) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	end := m.begin(streamKind(info), info.FullMethod)
	err := handler(srv, ss)
	end(err)
	return err
}

func streamKind(info *grpc.StreamServerInfo) string {
	switch {
	case info.IsClientStream && info.IsServerStream:
		return "bidi_stream"
	case info.IsClientStream:
		return "client_stream"
	}
	return "server_stream"
}
