package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress what they send
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/collector"
	collectorcoordinator "github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/mux"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
	"github.com/daybook-dev/daybook/storage/pebble"
)

// archiveLimit is how long the end of a command waits for its streams to be archived, when the system is in its process.
const archiveLimit = 300 * time.Millisecond

// memoryLimit is what the garbage collector keeps the process below, if it can: the stores' caches take half of it at most.
const memoryLimit = 320 << 20

// archiveIndexes is how many indexes of archived streams are kept in memory.
const archiveIndexes = 64

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

// systemConfig is what a system needs.
type systemConfig struct {
	// Dir is held by the caller until the system is closed.
	Dir *datadir.Dir
	// Listener belongs to the system.
	Listener net.Listener
	Kind     datadir.Kind
	// Token authorizes the request to give way.
	Token string
	Log   *slog.Logger
}

// system is every role in one process, on the embedded engines. The roles talk to each other through the front door, as they do
// when each is a process of its own.
type system struct {
	systemConfig

	closers  []func(context.Context) error // in the order of opening
	log      engine.Engine
	conn     *grpc.ClientConn
	consumer *collector.Consumer
	archiver *archivist.Archivist
	journals *broker.Broker
	coord    *coordinator.Coordinator

	roles sync.WaitGroup
	ready atomic.Bool

	handover     chan struct{}
	handoverOnce sync.Once
	done         chan struct{}
	doneOnce     sync.Once
	failure      atomic.Pointer[error]
}

// openSystem opens the engines, starts the roles, and serves. It takes the listener in any case.
func openSystem(ctx context.Context, c systemConfig) (_ *system, err error) {
	s := &system{systemConfig: c, handover: make(chan struct{}), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Listener.Close(), s.Close(context.WithoutCancel(ctx)))
		}
	}()
	limitMemory(memoryLimit, 300) // our live memory is small for what passes through it
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), journalclient.Collector())

	log, err := disklog.Open(ctx, c.Dir.Join("journal"), disklog.Options{Logger: c.Log, Registerer: reg})
	if err != nil {
		return nil, fmt.Errorf("open the journals: %w", err)
	}
	s.log = log
	s.onClose(log.Close)
	for _, name := range []string{"fragments", "scratch"} {
		if err := os.MkdirAll(c.Dir.Join(name), 0o700); err != nil {
			return nil, fmt.Errorf("open the fragment stores: %w", err)
		}
	}
	stores := store.NewRegistry(store.Options{Root: c.Dir.Join("fragments"), Logger: c.Log, Registerer: reg})
	s.onClose(func(context.Context) error { return stores.Close() })
	s.journals, err = broker.New(ctx, broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "daybook"}, Endpoint: protocol.Endpoint("http://" + s.Address()),
		Stores: stores, Scratch: c.Dir.Join("scratch"), Logger: c.Log, Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("start the broker: %w", err)
	}
	entries, err := pebble.Open(c.Dir.Join("entries"), pebble.Options{Logger: c.Log, Registerer: reg})
	if err != nil {
		return nil, fmt.Errorf("open the recent entries: %w", err)
	}
	s.onClose(func(context.Context) error { return entries.Close() })
	archives, err := bucket.CreateDir(c.Dir.Join("archive"), "archive")
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	s.onClose(func(context.Context) error { return archives.Close() })
	archived, err := archive.NewReader(archives, archiveIndexes)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	store, err := sqlite.Open(ctx, c.Dir.Join("state.db"))
	if err != nil {
		return nil, fmt.Errorf("open the streams' state: %w", err)
	}
	s.onClose(func(context.Context) error { return store.Close() })
	// We hold the directory, so whoever had leased tasks is gone.
	if err := store.ReleaseLeases(ctx, time.Now()); err != nil {
		return nil, fmt.Errorf("open the streams' state: %w", err)
	}
	s.coord, err = coordinator.New(coordinator.Config{
		Store: store, Storage: entries, Archives: reader.FromArchive(archived), BaseURL: "http://" + s.Address(), Logger: c.Log, Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("start the coordinator: %w", err)
	}

	if err := s.serve(reg); err != nil {
		return nil, err
	}
	if err := s.startRoles(ctx, entries, archives, reg); err != nil {
		return nil, err
	}
	s.ready.Store(true)
	return s, nil
}

// limitMemory makes the garbage collector work harder near a limit, and below it when the memory has grown by percent, unless the
// user has set either.
func limitMemory(bytes int64, percent int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

func (s *system) onClose(f func(context.Context) error) { s.closers = append(s.closers, f) }

// serve opens the doors: gRPC, and HTTP beside it.
func (s *system) serve(reg *prometheus.Registry) error {
	var err error
	if s.conn, err = client.Dial(s.Address()); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.conn.Close() })

	options := append(client.ServerOptions(), grpc.WaitForHandlers(true), grpc.MaxHeaderListSize(maxHeader), grpc.ConnectionTimeout(greetingLimit))
	var around interceptors
	metrics := newCallMetrics(reg)
	around.add(metrics.unary, metrics.stream) // first, so that it sees what becomes of panics
	around.add(panicsAreErrors(s.Log))
	grpcServer := grpc.NewServer(append(options, around.options()...)...)
	protocol.RegisterJournalServer(grpcServer, s.journals)
	protocol.RegisterPipelineServer(grpcServer, s.journals.Pipeline())
	s.coord.Register(grpcServer)
	prpcServer := prpc.NewServer(prpc.Config{Interceptors: around.unary, Logger: s.Log})
	s.coord.Register(prpcServer)

	requests, endRequests := context.WithCancel(context.Background())
	httpServer := &http.Server{
		Handler:           s.handler(reg, prpcServer),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelInfo),
	}

	doors := mux.New(s.Listener)
	s.roles.Go(func() { s.fail("accept connections", doors.Serve()) })
	s.roles.Go(func() { s.fail("serve gRPC", grpcServer.Serve(doors.GRPC())) })
	s.roles.Go(func() {
		if err := httpServer.Serve(doors.HTTP()); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.fail("serve HTTP", err)
		}
	})
	s.onClose(func(ctx context.Context) error {
		finish, cancel := context.WithTimeout(ctx, finishLimit)
		defer cancel()
		// No connection is taken any more. Calls that wait are ended by their services; what is under way may finish.
		stopped := make(chan struct{})
		s.roles.Go(func() { grpcServer.GracefulStop(); close(stopped) })
		s.coord.Close()
		_ = s.journals.Close(finish) // who takes too long is cut off below
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
		return errors.Join(err, s.journals.Close(ctx))
	})
	return nil
}

// startRoles starts the Collector and the Archivist. Their journal is made on the first start.
func (s *system) startRoles(ctx context.Context, entries *pebble.Storage, archives bucket.Bucket, reg *prometheus.Registry) error {
	journals := journalClient(s.conn)
	if err := ensureIngestJournal(ctx, journals); err != nil {
		return fmt.Errorf("create the journal %s: %w", ingest.DefaultJournal, err)
	}
	services := logdog.NewServicesClient(s.conn)
	roles, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.onClose(func(context.Context) error { stop(); return nil })
	s.consumer = collector.NewConsumer(collector.ConsumerConfig{
		Collector: &collector.Collector{
			Coordinator: collectorcoordinator.NewCache(collectorcoordinator.NewCoordinator(services), 0, 0),
			Storage:     entries,
			Logger:      s.Log,
			Metrics:     collector.NewMetrics(reg),
		},
		Journals: journals,
		Journal:  ingest.DefaultJournal,
		Durable: func(offset int64) {
			if err := s.journals.Trim(roles, ingest.DefaultJournal, protocol.Offset(offset)); err != nil && roles.Err() == nil {
				s.Log.Warn("trim the ingest journal", "below", offset, "error", err)
			}
		},
	})
	var err error
	s.archiver, err = archivist.New(archivist.Config{Services: services, Storage: entries, Bucket: archives, Logger: s.Log, Registerer: reg})
	if err != nil {
		return fmt.Errorf("start the archivist: %w", err)
	}
	var running sync.WaitGroup
	running.Go(func() { s.failRole(roles, "collect", s.consumer.Run(roles)) })
	running.Go(func() { s.failRole(roles, "archive", s.archiver.Run(roles)) })
	s.onClose(func(context.Context) error {
		stop()
		running.Wait()
		return nil
	})
	return nil
}

// ensureIngestJournal creates the journal that Butlers append to.
func ensureIngestJournal(ctx context.Context, journals protocol.JournalClient) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := journalclient.GetJournal(ctx, journals, ingest.DefaultJournal)
	if err == nil {
		return nil
	}
	_, err = journalclient.ApplyJournals(ctx, journals, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{
		ExpectModRevision: 0,
		Upsert: &protocol.JournalSpec{
			Name:        ingest.DefaultJournal,
			Replication: 1,
			Labels:      protocol.MustLabelSet(ingest.Label, "default"),
			Fragment: &protocol.JournalSpec_Fragment{
				Length:           64 << 20,
				CompressionCodec: protocol.CompressionCodec_NONE,
				RefreshInterval:  durationpb.New(time.Hour),
			},
		},
	}}})
	return err
}

// Address returns host:port of the listener.
func (s *system) Address() string { return s.Listener.Addr().String() }

// Conn returns a connection to the system.
func (s *system) Conn() *grpc.ClientConn { return s.conn }

// Handover is closed when a server asks us to give way.
func (s *system) Handover() <-chan struct{} { return s.handover }

// Done is closed when the system was closed, or cannot go on; Err tells why.
func (s *system) Done() <-chan struct{} { return s.done }

// Err returns why the system could not go on, or nil.
func (s *system) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *system) fail(what string, err error) {
	if err == nil {
		return
	}
	err = fmt.Errorf("%s: %w", what, err)
	if s.failure.CompareAndSwap(nil, &err) {
		s.doneOnce.Do(func() { close(s.done) })
	}
}

func (s *system) failRole(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.fail(what, err)
	}
}

func (s *system) readiness() error {
	if !s.ready.Load() {
		return errors.New("starting, or shutting down")
	}
	return s.log.Ready()
}

func (s *system) serveHandover(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.Token)) != 1 {
		http.Error(w, "the token of holder.json is required", http.StatusUnauthorized)
		return
	}
	if s.Kind != datadir.Command {
		http.Error(w, "a server does not give way; stop it first", http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	s.handoverOnce.Do(func() { close(s.handover) })
}

// Drain waits until what the journal holds now is stored, and what can be archived is archived, or ctx ends.
func (s *system) Drain(ctx context.Context) {
	if s.consumer == nil || s.archiver == nil {
		return
	}
	journal, err := s.log.Load(ctx, ingest.DefaultJournal)
	if err == nil {
		err = s.consumer.WaitFor(ctx, int64(journal.Head))
	}
	if err == nil {
		// What is archived only later can be read all the same.
		ctx, cancel := context.WithTimeout(ctx, archiveLimit)
		defer cancel()
		err = s.archiver.Drain(ctx)
	}
	if err != nil {
		// Nothing is lost: the next one to serve the directory goes on where we stopped.
		s.Log.Info("not everything is archived yet", "error", err)
	}
}

// Close shuts down in order: the roles that call others, the doors, the engines. ctx bounds the wait for calls under way.
func (s *system) Close(ctx context.Context) error {
	s.ready.Store(false)
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i](ctx))
	}
	s.closers = nil
	s.roles.Wait()
	s.doneOnce.Do(func() { close(s.done) })
	return err
}
