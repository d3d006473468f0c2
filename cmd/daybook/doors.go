package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress what they send

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/internal/mux"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// finishLimit is how long appends that are under way at the end may take. Clients that are too slow are cut off, as are
	// readers that take nothing of what they are sent.
	finishLimit = 8 * time.Second
	// greetingLimit is how long a gRPC client may take to say that it is one; the end waits for that.
	greetingLimit = 5 * time.Second
	// maxHeader is the most that the headers of a request may take. Tokens are the largest of them.
	maxHeader = 64 << 10
	// answerLimit is how long answers may take after that.
	answerLimit = 2 * time.Second
)

// serve opens the doors: gRPC, and HTTP with pRPC beside it.
func (s *system) serve(context.Context) error {
	var around interceptors
	metrics := newCallMetrics(s.metrics)
	around.add(metrics.unary, metrics.stream) // first, so that it sees what becomes of panics
	around.add(panicsAreErrors(s.Log))

	options := append(client.ServerOptions(), grpc.WaitForHandlers(true), grpc.MaxHeaderListSize(maxHeader), grpc.ConnectionTimeout(greetingLimit),
		grpc.UnknownServiceHandler(s.relay))
	grpcServer := grpc.NewServer(append(options, around.options()...)...)
	prpcServer := prpc.NewServer(prpc.Config{Interceptors: around.unary, CrossOrigin: s.crossOrigin, Logger: s.Log})
	if s.journals != nil {
		protocol.RegisterJournalServer(grpcServer, s.journals)
		protocol.RegisterPipelineServer(grpcServer, s.journals.Pipeline())
		protocol.RegisterTrimServer(grpcServer, s.journals.Trimming())
	}
	stopPublishing := func() {}
	if s.coord != nil {
		s.coord.Register(grpcServer)
		s.coord.Register(prpcServer)
		stopPublishing = s.servePubSub(grpcServer)
	}

	requests, endRequests := context.WithCancel(context.Background())
	httpServer := &http.Server{
		Handler:           s.handler(prpcServer),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelInfo),
	}

	doors := mux.New(s.Listener)
	s.serving.Go(func() { s.fail("accept connections", doors.Serve()) })
	s.serving.Go(func() { s.fail("serve gRPC", grpcServer.Serve(doors.GRPC())) })
	s.serving.Go(func() {
		if err := httpServer.Serve(doors.HTTP()); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.fail("serve HTTP", err)
		}
	})
	s.onClose(func(ctx context.Context) error {
		finish, cancel := context.WithTimeout(ctx, finishLimit)
		defer cancel()
		// No connection is taken any more. Calls that wait are ended by their services; what is under way may finish.
		stopped := make(chan struct{})
		s.serving.Go(func() { grpcServer.GracefulStop(); close(stopped) })
		if s.coord != nil {
			s.coord.Close()
		}
		if s.journals != nil {
			_ = s.journals.Close(finish) // who takes too long is cut off below
		}
		stopPublishing()
		endRequests()
		answered, cancel := context.WithTimeout(ctx, answerLimit)
		defer cancel()
		_ = httpServer.Shutdown(answered)
		select {
		case <-stopped:
		case <-answered.Done():
		}
		grpcServer.Stop()
		err := httpServer.Close()
		doors.Close()
		if s.journals != nil {
			err = errors.Join(err, s.journals.Close(ctx))
		}
		return err
	})
	return nil
}
