package reader

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// holdTime is how long a Get waits for an entry that may come soon.
	holdTime = 500 * time.Millisecond
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
	// What changed before we watched wakes nobody.
	if s, err = r.load(ctx, addressOf(s), r.administrator(ctx)); err != nil {
		return nil, nil, err
	}
	for {
		s, logs, wait, err = r.readNow(ctx, s, w)
		if err != nil || !wait {
			return s, logs, err
		}
		select {
		case <-entriesChanged:
		case <-stateChanged:
			if s, err = r.load(ctx, addressOf(s), r.administrator(ctx)); err != nil {
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
	if patient(ctx) {
		limit = patientHoldTime
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	return limit
}

func addressOf(s *state.Stream) address {
	return address{project: s.Prefix.Project, prefix: s.Prefix.Prefix, id: s.ID}
}

// patient reports whether the caller is the logdog tool.
func patient(ctx context.Context) bool {
	for _, agent := range metadata.ValueFromIncomingContext(ctx, "user-agent") {
		if strings.HasPrefix(agent, patientUserAgent) {
			return true
		}
	}
	return false
}

// letGo makes an answer without entries one that ends the logdog tool. That asks again until it has read the entry at the terminal index,
// which a stream without entries does not have, nor one whose end is missing from its archive. For an entry without content it writes
// nothing.
func letGo(s *state.Stream, index types.MessageIndex, resp *logdog.GetResponse) {
	if len(resp.Logs) > 0 || !s.Archived() && !(s.End.Known && s.End.Index < 0) {
		return
	}
	last := max(s.LastIndex(), 0)
	if resp.State != nil {
		resp.State.TerminalIndex = int64(last)
	}
	if index <= last {
		resp.Logs = []*logpb.LogEntry{{StreamIndex: uint64(last)}}
	}
}
