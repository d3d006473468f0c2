package reader

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
)

const (
	// holdTime is how long a Get waits for an entry that may come soon.
	holdTime = time.Second
	// patientHoldTime is that of the logdog tool: it rests for five seconds after an answer without entries, and has no limit of
	// its own for a call, so the longer it is held the less is seen late.
	patientHoldTime  = 25 * time.Second
	patientUserAgent = "logdog CLI"
	// maxHeld is how many calls are held at once. Others are answered as they are.
	maxHeld = 4096
)

// readOrHold reads entries. When there is nothing at the end of a stream that goes on, it waits a moment for what comes. The state
// returned is the one in which it was read.
func (r *Reader) readOrHold(ctx context.Context, s *state.Stream, w wanted) (*state.Stream, []*logpb.LogEntry, error) {
	s, logs, wait, err := r.readNow(ctx, s, w)
	if err != nil || !wait {
		return s, logs, err
	}
	select {
	case r.held <- struct{}{}:
		defer func() { <-r.held }()
	default:
		return s, logs, nil
	}
	limit := time.NewTimer(holdLimit(ctx))
	defer limit.Stop()
	entriesChanged, stop := r.storage.Watch(storageKey(s))
	defer stop()
	stateChanged, stopState := r.store.WatchStream(s.Prefix.Project, s.ID)
	defer stopState()
	for {
		s, logs, wait, err = r.readNow(ctx, s, w)
		if err != nil || !wait {
			return s, logs, err
		}
		select {
		case <-entriesChanged:
		case <-stateChanged:
			if s, err = r.load(ctx, addressOf(s)); err != nil {
				return nil, nil, err
			}
		case <-limit.C:
			return s, logs, nil
		case <-r.closing.Done():
			return s, logs, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// readNow reads what is there, and reports whether it makes sense to wait for more.
func (r *Reader) readNow(ctx context.Context, s *state.Stream, w wanted) (_ *state.Stream, logs []*logpb.LogEntry, wait bool, err error) {
	s, err = r.look(ctx, s, func(s *state.Stream, entries Archive) error {
		var why stop
		var err error
		logs, why, err = read(ctx, s, entries, w)
		wait = len(logs) == 0 && why == atEnd && !s.Archived() && (!s.End.Known || w.index <= s.End.Index)
		return err
	})
	return s, logs, wait, err
}

// holdLimit is how long the caller may be held: not longer than half of the time it gave.
func holdLimit(ctx context.Context) time.Duration {
	limit := holdTime
	for _, agent := range metadata.ValueFromIncomingContext(ctx, "user-agent") {
		if strings.HasPrefix(agent, patientUserAgent) {
			limit = patientHoldTime
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	return limit
}

func addressOf(s *state.Stream) address {
	return address{project: s.Prefix.Project, prefix: s.Prefix.Prefix, id: s.ID}
}
