// Package coordinator is the Collector's view of the Coordinator: two operations, and a cache for them. It is the boundary
// between the Coordinator's service and the Collector's logic (seed 000).
//
// The two operations are called for each entry of each bundle, so a Collector wraps the real Coordinator in a Cache, which
// coalesces concurrent requests for one stream into one and remembers the answers.
//
// All methods are safe for concurrent use and return errors with a kind (package fault), by the status code of the call that
// failed: transient means that the message may be processed again, anything else that its data is refused.
package coordinator

import (
	"context"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Coordinator is the remote Coordinator.
type Coordinator interface {
	// RegisterStream registers a stream, or returns the state of one that is registered already. desc is the serialized
	// descriptor with its prefix.
	RegisterStream(ctx context.Context, s *LogStreamState, desc []byte) (*LogStreamState, error)
	// TerminateStream registers the terminal index of a stream.
	TerminateStream(ctx context.Context, r *TerminateRequest) error
}

// LogStreamState is what a Collector knows of a stream's state. Values returned by a Coordinator are shared: do not change them.
type LogStreamState struct {
	Project types.Project
	Path    types.StreamPath

	// ID is the stream's id; set by the Coordinator.
	ID string
	// ProtoVersion is the version of the bundle's messages.
	ProtoVersion string
	// Secret is the prefix secret.
	Secret types.PrefixSecret
	// TerminalIndex is the index of the last entry; less than zero when it is not known or there is none.
	TerminalIndex types.MessageIndex
	// TerminalEmpty says that the stream ended without a single entry; TerminalIndex is then less than zero.
	TerminalEmpty bool
	// Ended is how the stream ended, in a registration; nil if there is nothing to say.
	Ended *logpb.StreamEnd

	// Archived and Purged are set by the Coordinator: data that comes now is late.
	Archived bool
	Purged   bool
}

// Terminated reports whether the end of the stream is known.
func (s *LogStreamState) Terminated() bool { return s.TerminalIndex >= 0 || s.TerminalEmpty }

// TerminateRequest reports the end of a stream.
type TerminateRequest struct {
	Project types.Project
	// Path is needed to find the stream in the cache.
	Path types.StreamPath
	// ID is the stream's id, as returned by RegisterStream.
	ID string
	// TerminalIndex is the index of the last entry, at least zero unless TerminalEmpty is set.
	TerminalIndex types.MessageIndex
	TerminalEmpty bool
	// Ended is how the stream ended; nil if there is nothing to say.
	Ended *logpb.StreamEnd
	// Secret is the prefix secret.
	Secret types.PrefixSecret
}
