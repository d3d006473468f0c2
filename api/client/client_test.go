package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers with what its path says.
type server struct {
	daybookv1.UnimplementedLogsServer
}

func (server) GetStream(_ context.Context, r *daybookv1.GetStreamRequest) (*daybookv1.Stream, error) {
	if r.GetPath() == "large" {
		return &daybookv1.Stream{Path: strings.Repeat("x", 20<<20)}, nil
	}
	return nil, fault.GRPC(fault.New(fault.Exists, "no"))
}

func (server) Follow(r *daybookv1.FollowRequest, s grpc.ServerStreamingServer[daybookv1.FollowResponse]) error {
	if err := s.Send(&daybookv1.FollowResponse{}); err != nil {
		return err
	}
	if r.GetPath() == "end" {
		return nil
	}
	return fault.GRPC(fault.New(fault.DataLoss, "torn"))
}

// serve serves on an address until stop is called.
func serve(t *testing.T, addr string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(ServerOptions()...)
	daybookv1.RegisterLogsServer(s, server{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	return l.Addr().String(), func() {
		s.Stop()
		wg.Wait()
	}
}

func dial(t *testing.T, addr string) daybookv1.LogsClient {
	t.Helper()
	conn, err := Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return daybookv1.NewLogsClient(conn)
}

func TestErrorsHaveKinds(t *testing.T) {
	addr, stop := serve(t, "127.0.0.1:0")
	defer stop()
	c := dial(t, addr)
	if _, err := c.GetStream(t.Context(), &daybookv1.GetStreamRequest{}); !fault.Is(err, fault.Exists) || err.Error() != "no" {
		t.Errorf("unary: %v", err)
	}
	if s, err := c.GetStream(t.Context(), &daybookv1.GetStreamRequest{Path: "large"}); err != nil || len(s.GetPath()) != 20<<20 {
		t.Errorf("large response: %v", err)
	}
	for path, want := range map[string]func(error) bool{
		"end":  func(err error) bool { return errors.Is(err, io.EOF) },
		"torn": func(err error) bool { return fault.Is(err, fault.DataLoss) },
	} {
		s, err := c.Follow(t.Context(), &daybookv1.FollowRequest{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); !want(err) {
			t.Errorf("stream %s: %v", path, err)
		}
	}
}

// A client comes back soon after its server does, however long it was away.
func TestReconnect(t *testing.T) {
	addr, stop := serve(t, "127.0.0.1:0")
	c := dial(t, addr)
	call := func(opts ...grpc.CallOption) error {
		_, err := c.GetStream(t.Context(), &daybookv1.GetStreamRequest{}, opts...)
		return err
	}
	if err := call(); !fault.Is(err, fault.Exists) {
		t.Fatal(err)
	}
	stop()
	if err := call(); !fault.IsTransient(err) {
		t.Errorf("without a server: %v", err)
	}
	_, stop = serve(t, addr)
	defer stop()
	begin := time.Now()
	if err := call(grpc.WaitForReady(true)); !fault.Is(err, fault.Exists) {
		t.Error(err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("came back after %v", d)
	}
}

// That there is no connection is told in words that say what to look at.
func TestNoConnection(t *testing.T) {
	addr, stop := serve(t, "127.0.0.1:0")
	encrypted := httptest.NewUnstartedServer(nil)
	encrypted.EnableHTTP2 = true
	encrypted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	encrypted.StartTLS()
	defer encrypted.Close()
	tlsAddr := encrypted.Listener.Addr().String()
	withTLS := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}))
	check := func(what, addr, want string, opts ...grpc.DialOption) {
		t.Helper()
		conn, err := Dial(addr, opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = daybookv1.NewLogsClient(conn).GetStream(t.Context(), &daybookv1.GetStreamRequest{})
		if !fault.Is(err, fault.Transient) || !strings.HasPrefix(err.Error(), "no connection: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	check("TLS where there is none", addr, "begins with http://", withTLS)
	check("no TLS where there is one", tlsAddr, "begins with https://")
	check("another authority", tlsAddr, "--tls-ca", withTLS)
	stop()
	check("nobody", addr, "dial tcp "+addr+": connect: connection refused; is a server running there?")
}

// What would take many times its size is not decoded.
func TestTooManyFields(t *testing.T) {
	addr, stop := serve(t, "127.0.0.1:0")
	defer stop()
	conn, err := Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	find := func(fields int) error {
		states := protowire.AppendVarint(protowire.AppendTag(nil, 6, protowire.VarintType), 1)
		r := new(emptypb.Empty) // which keeps what it does not know
		r.ProtoReflect().SetUnknown(bytes.Repeat(states, fields))
		return conn.Invoke(t.Context(), "/daybook.v1.Logs/FindStreams", r, new(emptypb.Empty))
	}
	if err := find(1000); !fault.Is(err, fault.Unimplemented) {
		t.Errorf("some fields: %v", err)
	}
	if err := find(wire.MaxFields + 1); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many fields: %v", err)
	}
}
