package collector

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	remote "github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/storage/memory"
)

// TestLateEntries brings entries of a stream that was archived without them, through the real Coordinator and Archivist. They are
// neither lost nor there twice.
func TestLateEntries(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	entries, bucket := memory.New(), bucket.NewMem("archive")
	places := archive.NewPlaces(bucket, nil)
	t.Cleanup(func() { _ = places.Close() })
	archived, err := archive.NewReader(places, 10)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	server, err := coordinator.New(coordinator.Config{
		Store: store, Storage: entries, Archives: reader.FromArchive(archived), Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := serve(t, server.Register)
	t.Cleanup(server.Close)
	services := logdog.NewServicesClient(conn)
	registered, err := logdog.NewRegistrationClient(conn).RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: "local", Prefix: "pre/fix"})
	if err != nil {
		t.Fatal(err)
	}
	send := func(e *logpb.ButlerLogBundle_Entry) {
		t.Helper()
		c := &Collector{Coordinator: remote.NewCoordinator(services), Storage: entries} // which knows nothing yet
		defer c.Close()
		b := bundleOf(e)
		b.Project, b.Secret = "local", registered.GetSecret()
		if err := c.Process(t.Context(), message(t, b)); err != nil {
			t.Fatal(err)
		}
	}
	archiveAll := func() {
		t.Helper()
		a, err := archivist.New(archivist.Config{Services: services, Storage: entries, Places: places, WaitForMissing: time.Nanosecond, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	}
	is := func(want daybookv1.StreamState, indices ...uint64) {
		t.Helper()
		s, err := daybookv1.NewLogsClient(conn).GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: "local", Path: string(path("a"))})
		if err != nil || s.GetState() != want {
			t.Errorf("state %v, %v; want %v", s.GetState(), err, want)
		}
		r, err := logdog.NewLogsClient(conn).Get(t.Context(), &logdog.GetRequest{Project: "local", Path: string(path("a")), NonContiguous: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, l := range r.GetLogs() {
			got = append(got, l.GetStreamIndex())
		}
		if diff := cmp.Diff(indices, got); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
	}

	send(entry("a", 0))
	send(ends(entry("a", 2, 3), 3))
	archiveAll()
	is(daybookv1.StreamState_INCOMPLETE, 0, 2, 3)

	for range 2 { // and once more, when it is complete
		send(entry("a", 1, 2))
		archiveAll()
		is(daybookv1.StreamState_COMPLETE, 0, 1, 2, 3)
	}
}

// serve serves what register adds to a server, and returns a connection. Both end with the test.
func serve(t *testing.T, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	register(server)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		served.Wait()
	})
	return conn
}
