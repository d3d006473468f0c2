package butler

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/streamproto"
)

const (
	// DefaultMaxBufferAge is the default amount of time that a log entry may be buffered before being dispatched.
	DefaultMaxBufferAge = 5 * time.Second

	// MinOutputSize is the least MaxSize of an output that a Butler works with.
	MinOutputSize = 4 << 10
)

// Config is the set of Butler configuration parameters.
type Config struct {
	// Output is the output instance to use for log dispatch. The Butler does not close it.
	Output output.Output

	// GlobalTags are a set of global log stream tags to apply to individual streams on registration. Individual stream tags
	// will override tags with the same key.
	GlobalTags streamproto.TagMap

	// BufferLogs, if true, instructs the butler to buffer collected log data before sending it to Output. Otherwise data is
	// sent as soon as the output is free to take it.
	BufferLogs bool

	// MaxBufferAge is, when buffering logs, the maximum amount of time that a log will be buffered before being marked for
	// dispatch. If this is zero or less, DefaultMaxBufferAge will be used.
	MaxBufferAge time.Duration

	// Redact is what is masked in all streams before anything else is done with their data; nil is nothing. Values may be
	// added to it at any time.
	Redact *redact.Set

	// WhenFull says what becomes of data while the output takes nothing and the memory is full. Empty is Block.
	WhenFull WhenFull

	// Logger gets what goes wrong with single streams, which ends nothing else. nil discards it.
	Logger *slog.Logger
}

// Validate validates that the configuration is sufficient to instantiate a Butler instance.
func (c *Config) Validate() error {
	if c.Output == nil {
		return errors.New("butler: an output is required")
	}
	if size := c.Output.MaxSize(); size > 0 && size < MinOutputSize {
		return fmt.Errorf("butler: the output takes bundles of at most %d bytes; at least %d are required", size, MinOutputSize)
	}
	if c.WhenFull != "" && c.WhenFull != Block && c.WhenFull != Drop {
		return fmt.Errorf("butler: %q is no policy for a full output; there are %q and %q", c.WhenFull, Block, Drop)
	}
	if err := c.GlobalTags.Validate(); err != nil {
		return fmt.Errorf("butler: global tags: %w", err)
	}
	return nil
}

// StreamServer is where streams come from that programs open themselves. Package streamserver has implementations.
type StreamServer interface {
	// Next blocks until there is a new stream and returns it, or nil when the server was closed and has no more.
	Next() (io.ReadCloser, *logpb.LogStreamDescriptor)
	// Close makes Next return nil once the streams opened before were returned.
	Close()
}
