package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress what they send

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
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
	around.add(s.callers.unary, s.callers.stream)

	options := append(client.ServerOptions(), grpc.WaitForHandlers(true), grpc.MaxHeaderListSize(maxHeader), grpc.ConnectionTimeout(greetingLimit),
		grpc.UnknownServiceHandler(s.relay))
	grpcServer := grpc.NewServer(append(options, around.options()...)...)
	s.grpcServer = grpcServer
	prpcServer := prpc.NewServer(prpc.Config{Interceptors: around.unary, CrossOrigin: s.crossOrigin, Logger: s.Log})
	services := early{grpcServer}
	if s.journals != nil {
		s.callers.broker = true
		protocol.RegisterJournalServer(services, s.journals)
		protocol.RegisterPipelineServer(services, s.journals.Pipeline())
		protocol.RegisterTrimServer(services, s.journals.Trimming())
	}
	stopPublishing := func() {}
	if s.coord != nil {
		s.coord.Register(services)
		s.coord.Register(prpcServer)
		stopPublishing = s.servePubSub(services)
	}

	if s.quarantine != nil {
		daybookv1.RegisterQuarantineServer(services, s.quarantine)
		daybookv1.RegisterQuarantineServer(prpcServer, s.quarantine)
	}

	requests, endRequests := context.WithCancel(context.Background())
	handler := s.callers.http(s.handler(prpcServer), prpcServer)
	var doors []*entrance
	open := func(m *mux.Mux, handler http.Handler) {
		d := &entrance{m, &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxHeader,
			BaseContext:       func(net.Listener) context.Context { return requests },
			ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelInfo),
		}}
		doors = append(doors, d)
		s.serving.Go(func() { s.fail("accept connections", d.mux.Serve()) })
		s.serving.Go(func() { s.fail("serve gRPC", grpcServer.Serve(d.mux.GRPC())) })
		s.serving.Go(func() { s.fail("serve HTTP", d.serveHTTP()) })
	}
	if s.TLS != nil {
		open(mux.NewTLS(s.Listener, s.TLS), handler)
	} else {
		open(mux.New(s.Listener), ownHost(handler, s.advertisedName(), onLoopback(s.Listener)))
	}
	if s.Local != nil {
		open(mux.New(s.Local), ownHost(handler, "", true))
	}
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
		for _, d := range doors {
			_ = d.http.Shutdown(answered)
		}
		select {
		case <-stopped:
		case <-answered.Done():
		}
		grpcServer.Stop()
		var err error
		for _, d := range doors {
			err = errors.Join(err, d.http.Close())
			d.mux.Close()
		}
		s.callers.guard.Wait()
		if s.journals != nil {
			err = errors.Join(err, s.journals.Close(ctx))
		}
		return err
	})
	return nil
}

// entrance is a listener that is served.
type entrance struct {
	mux  *mux.Mux
	http *http.Server
}

// serveHTTP serves until the entrance is closed.
func (d *entrance) serveHTTP() error {
	err := d.http.Serve(d.mux.HTTP())
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func onLoopback(l net.Listener) bool {
	host, _, err := net.SplitHostPort(l.Addr().String())
	return err == nil && isLoopback(host)
}

// advertisedName returns the name of this host in the URL by which others find us; empty if there is none.
func (s *system) advertisedName() string {
	u, err := url.Parse(s.Advertise)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
