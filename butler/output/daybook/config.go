package daybook

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// DefaultSpoolLimit is the default of Config.SpoolLimit.
	DefaultSpoolLimit = 4 << 30
	// DefaultMaxSize is the largest bundle, serialized and not compressed, unless the spool is so small that it must be less.
	DefaultMaxSize = 1 << 20
	// MinSpoolLimit is the least SpoolLimit.
	MinSpoolLimit = 64 << 10
)

// Config is what an Output needs. The clients may lose their connection and find a server again, also another one; the
// output tries again until they have.
type Config struct {
	// Project and Prefix are where the streams will be. The prefix must be new.
	Project types.Project
	Prefix  types.StreamName

	// Journals takes the bundles.
	Journals protocol.RoutedJournalClient
	// Registration claims the prefix.
	Registration logdog.RegistrationClient
	// CoordinatorHost is what links to the streams begin with; it may be empty.
	CoordinatorHost string

	// SourceInfo is sent along with the registration: free text about who writes.
	SourceInfo []string
	// Realm and Expiration are passed to the registration; zero is the server's default.
	Realm      string
	Expiration time.Duration

	// SpoolDir is a directory of this output alone, which must not exist or be empty. It is removed when everything in it has
	// reached the server.
	SpoolDir string
	// SpoolLimit is the most bytes in the spool, at least MinSpoolLimit; zero is DefaultSpoolLimit.
	SpoolLimit int64

	// OnRegistered is called once with the address of the pages that show the prefix, or an empty string, when the server has
	// accepted the registration.
	OnRegistered func(viewerURL string)
	// OnProblem is called once with the reason when the server refused for good. What was captured until then stays in the
	// spool.
	OnProblem func(error)

	// Logger gets what goes wrong and is tried again. nil discards it.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if err := c.Project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := c.Prefix.Validate(); err != nil {
		return fault.New(fault.Invalid, "prefix: %w", err)
	}
	if c.Journals == nil || c.Registration == nil {
		return fault.New(fault.Invalid, "the clients of journals and registration are required")
	}
	if c.SpoolDir == "" {
		return fault.New(fault.Invalid, "a spool directory is required")
	}
	if c.SpoolLimit != 0 && c.SpoolLimit < MinSpoolLimit {
		return fault.New(fault.Invalid, "a spool of at most %d bytes is too small; at least %d are required", c.SpoolLimit, MinSpoolLimit)
	}
	return nil
}

// spoolLimit is SpoolLimit, or its default.
func (c *Config) spoolLimit() int64 { return cmp.Or(c.SpoolLimit, DefaultSpoolLimit) }

// maxSize is the largest bundle: several must fit into the spool.
func (c *Config) maxSize() int { return int(min(DefaultMaxSize, c.spoolLimit()/8)) }

// wrap says what failed on which prefix.
func (c *Config) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("daybook output: %s %s/%s: %w", what, c.Project, c.Prefix, err)
}
