package daybook

import (
	"log/slog"
	"time"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// DefaultSpoolLimit is the default of Config.SpoolLimit.
	DefaultSpoolLimit = 4 << 30
	// DefaultMaxSize is the largest bundle, serialized and not compressed.
	DefaultMaxSize = 1 << 20
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
	// SpoolLimit is the most bytes in the spool; zero is DefaultSpoolLimit.
	SpoolLimit int64

	// OnRegistered is called once with the address of the pages that show the prefix, or an empty string, when the server has
	// accepted the registration.
	OnRegistered func(viewerURL string)
	// OnProblem is called once with the reason when the server refused for good. What was captured stays in the spool.
	OnProblem func(error)

	// Logger gets what goes wrong and is tried again. nil discards it.
	Logger *slog.Logger
}
