// Package reader serves logs: the service logdog.Logs as existing tools know it (spec coordinator 7), and daybook.v1.Logs with
// following and finding.
//
// A stream is read from storage until it is archived, and from its archive then; the reader cannot tell. Where to read from is
// decided anew whenever the stream's state has changed, so a stream that is archived and expunged while it is being read or
// followed goes on without a gap and without a repeat. Readers that wait are woken by storage and by changes of state; nothing is
// polled.
//
// The services are safe for concurrent use.
package reader

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// Archives opens archived streams. It is safe for concurrent use.
type Archives interface {
	// Open returns the archive at these addresses, as ArchiveStream recorded them.
	Open(ctx context.Context, streamURL, indexURL string) (Archive, error)
	// SignedURL returns an address from which anybody can get an archive's object for a time. The error is of kind Unimplemented
	// where that is not possible.
	SignedURL(ctx context.Context, url string, ttl time.Duration) (string, error)
}

// Archive is an archived stream, open for reading. It is safe for concurrent use.
type Archive interface {
	// Get and Tail are as those of storage.Storage, except that Tail returns the last entry, gaps or not. Entries' data
	// is valid during the callback.
	Get(ctx context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error
	Tail(ctx context.Context) (storage.Entry, error)
}

// Config is what a Reader needs; all of it is required.
type Config struct {
	Store    state.Store
	Storage  storage.Storage
	Archives Archives
	// Access decides what callers may see.
	Access access.Checker
	// Settings name the realms that have rules of their own.
	Settings *config.Authority
	// Backend takes away what callers want to be rid of.
	Backend *backend.Backend
}

// Reader reads streams wherever they are.
type Reader struct {
	store    state.Store
	storage  storage.Storage
	archives Archives
	access   access.Checker
	settings *config.Authority
	backend  *backend.Backend
	feeds    feeds
	// held has an element for each call that is held.
	held chan struct{}
	// closing ends when Close is called.
	closing context.Context
	close   context.CancelFunc
}

// New returns a Reader.
func New(c Config) *Reader {
	r := &Reader{
		store: c.Store, storage: c.Storage, archives: c.Archives, access: c.Access, settings: c.Settings, backend: c.Backend,
		held: make(chan struct{}, maxHeld),
	}
	r.closing, r.close = context.WithCancel(context.Background())
	return r
}

// Close ends the calls that wait.
func (r *Reader) Close() { r.close() }

// LogDog returns the service that existing tools use.
func (r *Reader) LogDog() logdog.LogsServer { return &logdogLogs{reader: r} }

// Daybook returns the service for following and finding.
func (r *Reader) Daybook() daybookv1.LogsServer { return &daybookLogs{reader: r} }
