package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
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

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/collector"
	"github.com/daybook-dev/daybook/collector/quarantine"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/journal/broker"
	journalclient "github.com/daybook-dev/daybook/journal/client"
)

// archiveLimit is how long the end of a command waits for its streams to be archived, when the system is in its process.
const archiveLimit = 300 * time.Millisecond

// memoryLimit is what the garbage collector keeps the process below, if it can: the stores' caches take half of it at most.
const memoryLimit = 320 << 20

// systemConfig is what a system needs.
type systemConfig struct {
	layout
	// Dir is held by the caller until the system is closed.
	Dir *datadir.Dir
	// Listener belongs to the system.
	Listener net.Listener
	Kind     datadir.Kind
	// TLS is that of the listener; nil is plaintext.
	TLS *tls.Config
	// Local is where this process and others that may read the data directory find it; nil if that is Listener. It is in plaintext, on
	// loopback, and belongs to the system.
	Local net.Listener
	// DemandTokens says that callers need tokens even if the configuration has no access rules.
	DemandTokens bool
	// Peers is what other processes of the system are shown, and how they are trusted.
	Peers peerFlags
	// Token authorizes the request to give way, and whoever may read it, since they may read the data directory.
	Token string
	Log   *slog.Logger
}

// system is what one process has of a Daybook system: some roles or all, the engines under them, and the doors through which the
// roles talk to each other, whether they are in one process or not.
type system struct {
	systemConfig
	engines

	started  time.Time
	settings *config.Authority
	callers  *callers

	closers []func(context.Context) error // in the order of opening
	metrics *prometheus.Registry
	checks  []check

	// conn leads to our own doors, toCoordinator and toJournals to whoever has these.
	conn, toCoordinator, toJournals *grpc.ClientConn

	// What is served, for those who want to know all of it.
	grpcServer *grpc.Server
	patterns   []string // of HTTP

	// Each is nil without the role.
	journals *broker.Broker
	coord    *coordinator.Coordinator
	archiver *archivist.Archivist

	collector  *collector.Collector
	quarantine *quarantine.Service
	collecting *collector.Group
	// ingestJournals names those that take messages now, for a Coordinator and the doors beside it.
	ingestJournals func() []string

	working sync.WaitGroup // what calls others
	serving sync.WaitGroup // what is called
	ready   atomic.Bool

	handover     chan struct{}
	handoverOnce sync.Once
	done         chan struct{}
	doneOnce     sync.Once
	failure      atomic.Pointer[error]
}

// openSystem opens the engines, serves, and sets the roles to work. It takes the listener in any case.
func openSystem(ctx context.Context, c systemConfig) (_ *system, err error) {
	s := &system{
		systemConfig: c, started: time.Now().UTC(), callers: newCallers(), metrics: prometheus.NewRegistry(), handover: make(chan struct{}), done: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Listener.Close(), s.Close(context.WithoutCancel(ctx)))
			if c.Local != nil {
				err = errors.Join(err, c.Local.Close())
			}
		}
	}()
	limitMemory(memoryLimit, 300) // our live memory is small for what passes through it
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), journalclient.Collector())

	if err := s.connect(); err != nil {
		return nil, err
	}
	err = each(ctx, s.Roles, []part{
		{allRoles, s.openSettings},
		{roleBroker, s.openBroker},
		{allRoles, s.openEngines},
		{allRoles, s.openAccess},
		{roleCoordinator, s.openCoordinator},
		{roleCollector, s.openCollector},
		{allRoles, s.serve},
		{roleBroker, s.createIngestJournal},
	})
	if err != nil {
		return nil, err
	}
	// Those who call others stop before the doors close.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.onClose(func(context.Context) error {
		stop()
		s.working.Wait()
		return nil
	})
	err = each(work, s.Roles, []part{
		{allRoles, s.watchSettings},
		{roleCoordinator, s.startSweeping},
		{roleCollector, s.startCollector},
		{roleArchivist, s.startArchivist},
	})
	if err != nil {
		return nil, err
	}
	s.ready.Store(true)
	return s, nil
}

// part is what some of the roles need.
type part struct {
	of   roles
	open func(context.Context) error
}

func each(ctx context.Context, have roles, parts []part) error {
	for _, p := range parts {
		if !have.has(p.of) {
			continue
		}
		if err := p.open(ctx); err != nil {
			return err
		}
	}
	return nil
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

// connect opens the ways to ourselves and to the roles that are elsewhere. Nothing is dialled yet.
func (s *system) connect() error {
	dial := func(what, target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
		conn, err := client.Dial(target, options...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		s.onClose(func(context.Context) error { return conn.Close() })
		return conn, nil
	}
	peer := func(what, name string) (*grpc.ClientConn, error) {
		server, err := client.ParseServer(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		options, err := s.Peers.options(server, s.callers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		return dial(what, server.Host, options...)
	}
	var err error
	if s.conn, err = dial("listener", s.LocalAddress(), client.Bearer(s.callers.credential)); err != nil {
		return err
	}
	s.toCoordinator = s.conn
	if !s.Roles.has(roleCoordinator) && s.Coordinator != "" {
		if s.toCoordinator, err = peer("--coordinator", s.Coordinator); err != nil {
			return err
		}
	}
	s.toJournals = s.conn
	switch {
	case s.Roles.has(roleBroker):
	case s.Journals != "":
		if s.toJournals, err = peer("--journals", s.Journals); err != nil {
			return err
		}
	default:
		s.toJournals = s.toCoordinator // whose process passes it on
	}
	return nil
}

// Address returns host:port of the listener.
func (s *system) Address() string { return s.Listener.Addr().String() }

// LocalAddress returns host:port by which processes of this machine that may read the data directory find us.
func (s *system) LocalAddress() string {
	if s.Local != nil {
		return s.Local.Addr().String()
	}
	return s.Address()
}

// Holder returns what others need to know who may read the data directory.
func (s *system) Holder() datadir.Holder {
	return datadir.Holder{PID: os.Getpid(), Kind: s.Kind, Address: s.LocalAddress(), URL: s.URL(), Started: s.started, Token: s.Token}
}

// URL returns where others find us, without a trailing slash.
func (s *system) URL() string {
	if s.Advertise != "" {
		return s.Advertise
	}
	return client.Server{Host: reachable(s.Address()), TLS: s.TLS != nil}.URL()
}

// reachable puts this machine's name in place of an address that stands for all of its addresses.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return address
	}
	name, err := os.Hostname()
	if err != nil {
		return address
	}
	return net.JoinHostPort(name, port)
}

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

// work runs a role until ctx ends. If it ends before, the system cannot go on.
func (s *system) work(ctx context.Context, what string, run func(context.Context) error) {
	s.working.Go(func() {
		if err := run(ctx); ctx.Err() == nil {
			s.fail(what, err)
		}
	})
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

// Drain waits until what the ingest journals hold now is stored, and what can be archived is archived, or ctx ends.
func (s *system) Drain(ctx context.Context) {
	if s.collecting == nil || s.archiver == nil {
		return
	}
	err := s.collecting.Drain(ctx)
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
	s.serving.Wait()
	s.doneOnce.Do(func() { close(s.done) })
	return err
}
