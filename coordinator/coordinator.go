// Package coordinator is the authority of a Daybook installation: it hands out prefixes, keeps the state of every stream from its
// registration to its archive, gives out archive tasks, and serves logs to readers (spec coordinator).
//
// It is one set of gRPC services over a state store, the storage of recent entries, and the archives:
//
//	logdog.Registration   Butlers claim prefixes (package registration)
//	logdog.Services       Collectors and Archivists move streams through their lives (packages services and backend)
//	logdog.Logs           readers get, tail and find logs, as existing tools do (package reader)
//	daybook.v1.Logs       readers follow and find streams (package reader)
//	daybook.v1.Leases     processes share out work (package leases)
//	daybook.v1.Access     who callers are, and their tokens (package access)
//
// Any number of Coordinators may share one store. All methods are safe for concurrent use.
package coordinator

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/leases"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/coordinator/registration"
	"github.com/daybook-dev/daybook/coordinator/services"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/tasks"
	"github.com/daybook-dev/daybook/storage"
)

// Config configures a Coordinator. Store, Storage, Archives, Logger and Registerer must be set; their owner closes them after the
// Coordinator.
type Config struct {
	Store    state.Store
	Storage  storage.Storage
	Archives reader.Archives
	// Access decides what callers may do; nil allows everything.
	Access access.Checker
	// Tokens are those by which callers are known; nil are those of Store.
	Tokens *access.Tokens
	// Settings are those of the service and its projects; nil are the defaults.
	Settings *config.Authority
	// BaseURL is the address of the pages, without a trailing slash; empty if there are none.
	BaseURL string
	// IngestJournals are the journals that Butlers are told to append to; nil or none is the default one.
	IngestJournals func() []string
	// Policy says when streams are archived and removed from storage.
	Policy     backend.Policy
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Coordinator serves the services over its stores.
type Coordinator struct {
	backend      *backend.Backend
	registration *registration.Service
	services     *services.Service
	reader       *reader.Reader
	leases       *leases.Service
	access       *access.Service
	tasks        *tasks.Service
}

// New returns a Coordinator.
func New(c Config) (*Coordinator, error) {
	if c.Access == nil {
		c.Access = access.Open()
	}
	if c.Settings == nil {
		c.Settings = config.Default()
	}
	if c.Tokens == nil {
		c.Tokens = access.NewTokens(c.Store)
	}
	b, err := backend.New(c.Store, c.Policy, c.Settings, c.Logger, c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Coordinator{
		backend:      b,
		registration: registration.New(c.Store, registration.Config{BaseURL: c.BaseURL, Access: c.Access, Settings: c.Settings, IngestJournals: c.IngestJournals}),
		services:     services.New(c.Store, b),
		reader:       reader.New(reader.Config{Store: c.Store, Storage: c.Storage, Archives: c.Archives, Access: c.Access, Settings: c.Settings, Backend: b}),
		leases:       leases.New(c.Store, c.Access),
		access:       access.NewService(c.Tokens, c.Access, c.Logger),
		tasks:        tasks.New(c.Store, c.Access),
	}, nil
}

// Register adds the services to a gRPC server.
func (c *Coordinator) Register(s grpc.ServiceRegistrar) {
	logdog.RegisterRegistrationServer(s, c.Registration())
	logdog.RegisterServicesServer(s, c.Services())
	logdog.RegisterLogsServer(s, c.reader.LogDog())
	daybookv1.RegisterLogsServer(s, c.Logs())
	daybookv1.RegisterLeasesServer(s, c.leases)
	daybookv1.RegisterAccessServer(s, c.access)
	daybookv1.RegisterTasksServer(s, c.tasks)
}

// Registration is the door of Butlers. It, Services and Logs serve callers within the process; their errors are statuses, as those
// of the wire.
func (c *Coordinator) Registration() logdog.RegistrationServer { return c.registration }

// Services is the door of Collectors and Archivists.
func (c *Coordinator) Services() logdog.ServicesServer { return c.services }

// Logs is the door of readers.
func (c *Coordinator) Logs() daybookv1.LogsServer { return c.reader.Daybook() }

// DueTasks counts the tasks that can be leased now or are leased: the work that a process which is about to end may want to see done.
// Tasks that wait for a time to come do not count.
func (c *Coordinator) DueTasks(ctx context.Context) (int, error) { return c.backend.Pending(ctx) }

// Run removes what has come to its end by time alone, as the settings of projects say. It returns when ctx ends.
func (c *Coordinator) Run(ctx context.Context) { c.backend.Run(ctx) }

// Close ends the calls that wait: followers and long polls get an error of kind Transient. It returns at once.
func (c *Coordinator) Close() {
	c.services.Close()
	c.reader.Close()
}
