package reader

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// The first response is small, so that it is there at once; those of a long backlog grow.
const (
	firstResponseBytes = 32 << 10
	maxResponseBytes   = 1 << 20
)

// Follow sends what there is of a stream and then what comes, until the stream ends.
func (l *daybookLogs) Follow(r *daybookv1.FollowRequest, out grpc.ServerStreamingServer[daybookv1.FollowResponse]) error {
	ctx, cancel := context.WithCancelCause(out.Context())
	defer cancel(nil)
	defer context.AfterFunc(l.reader.closing, func() { cancel(fault.New(fault.Transient, "coordinator is closing")) })()
	err := l.follow(ctx, r, func(m proto.Message) error { return out.SendMsg(m) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return l.reader.tell(ctx, r.GetProject(), access.Get, err)
}

func (l *daybookLogs) follow(ctx context.Context, r *daybookv1.FollowRequest, send func(proto.Message) error) error {
	a, err := parseAddress(r.GetProject(), r.GetPath())
	if err != nil {
		return err
	}
	if r.GetIndex() < 0 {
		return fault.New(fault.Invalid, "index is negative")
	}
	stateChanged, stop := l.reader.store.WatchStream(a.project, a.id)
	defer stop()
	s, err := l.reader.loadFor(ctx, a, r.GetPurged())
	for r.GetWait() && l.mayWait(ctx, a, err) {
		select {
		case <-stateChanged:
		case <-ctx.Done():
			return ctx.Err()
		}
		s, err = l.reader.loadFor(ctx, a, r.GetPurged())
	}
	if err != nil {
		return err
	}
	entriesChanged, stopEntries := l.reader.storage.Watch(storageKey(s))
	defer stopEntries()
	l.reader.feeds.enter(storageKey(s))
	defer l.reader.feeds.leave(storageKey(s))
	f := &follower{
		reader: l.reader, send: send, stream: s, purged: r.GetPurged(), next: types.MessageIndex(r.GetIndex()), behind: -1, bytes: firstResponseBytes,
	}
	for {
		if err := f.drain(ctx); err != nil {
			// It may have been read where it no longer is. Its state, which is loaded next, tells.
			select {
			case <-stateChanged:
			default:
				return err
			}
		} else if f.ended() || r.GetBacklogOnly() {
			if done, err := f.end(ctx); done || err != nil {
				return err
			}
		} else if feed := f.feed(); feed != nil {
			again, err := f.share(ctx, feed, stateChanged)
			if err != nil {
				return err
			}
			if again {
				continue
			}
		} else {
			select {
			case <-entriesChanged:
				continue
			case <-stateChanged:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := f.reload(ctx); err != nil {
			return err
		}
	}
}

// mayWait reports whether err is a stream that is not there and that the caller may wait for.
func (l *daybookLogs) mayWait(ctx context.Context, a address, err error) bool {
	return fault.Is(err, fault.NotFound) && (!errors.Is(err, errNoPrefix) || l.reader.everywhere(ctx, a.project, access.Get))
}

// follower is a call of Follow on its way through a stream.
type follower struct {
	reader *Reader
	// send sends a FollowResponse, or one that was encoded before.
	send func(proto.Message) error
	// stream is the state as last loaded, and told whether the client has got it.
	stream *state.Stream
	told   bool
	// purged says that the stream is read though it may have been purged.
	purged bool
	// next is the index of the first entry not yet sent, or known to be missing.
	next types.MessageIndex
	// behind is where the feed last had nothing for the follower. While it reads nothing by itself either, it waits.
	behind types.MessageIndex
	// bytes is the size of the next response.
	bytes int
}

// feed returns what reads for all followers of the stream, or nil if each has to read for itself. A stream that has ended, or is
// in more than one place, is no matter of feeds.
func (f *follower) feed() *feed {
	if f.stream.End.Known || f.stream.Archived() || f.stream.Reopened() || f.next == f.behind {
		return nil
	}
	return f.reader.feeds.get(f.reader, f.stream, f.next)
}

// reload loads the state again.
func (f *follower) reload(ctx context.Context) error {
	s, err := f.reader.loadFor(ctx, addressOf(f.stream), f.purged)
	if err != nil {
		return err
	}
	f.told = f.told && s.Phase == f.stream.Phase
	f.stream = s
	return nil
}

// drain sends what is there, and the state if the client does not know it.
func (f *follower) drain(ctx context.Context) error {
	err := f.reader.lookOnce(ctx, f.stream, func(s *state.Stream, entries Archive) error {
		for more := true; more; {
			w := wanted{index: f.next, bytes: f.bytes, gaps: s.Archived()}
			if s.End.Known {
				// What lies beyond the reported end is not part of the stream.
				if w.index > s.End.Index {
					break
				}
				w.count = int(s.End.Index - w.index + 1)
			}
			logs, why, err := read(ctx, s, entries, w)
			if err != nil {
				return err
			}
			f.bytes = min(2*f.bytes, maxResponseBytes)
			if err := f.sendRuns(ctx, logs); err != nil {
				return err
			}
			more = why == atLimit
		}
		return nil
	})
	if err != nil || f.told {
		return err
	}
	return f.respond(ctx, &daybookv1.FollowResponse{})
}

// sendRuns sends entries, those between two gaps together.
func (f *follower) sendRuns(ctx context.Context, logs []*logpb.LogEntry) error {
	for len(logs) > 0 {
		first := types.MessageIndex(logs[0].GetStreamIndex())
		n := 1
		for n < len(logs) && logs[n].GetStreamIndex() == logs[n-1].GetStreamIndex()+1 {
			n++
		}
		resp := &daybookv1.FollowResponse{Logs: logs[:n]}
		if first > f.next {
			resp.Missing = []*daybookv1.IndexRange{{First: int64(f.next), Last: int64(first) - 1}}
		}
		if err := f.respond(ctx, resp); err != nil {
			return err
		}
		f.next = first + types.MessageIndex(n)
		logs = logs[n:]
	}
	return nil
}

// respond sends a response, with the state if the client does not know it.
func (f *follower) respond(ctx context.Context, resp *daybookv1.FollowResponse) (err error) {
	if !f.told {
		if resp.Stream, err = f.reader.describe(ctx, f.stream); err != nil {
			return err
		}
		f.told = true
	}
	return f.send(resp)
}

// ended reports whether nothing more will come after a drain.
func (f *follower) ended() bool {
	return f.stream.Archived() || f.stream.End.Known && f.next > f.stream.End.Index
}

// end sends the last response, unless the stream has ended meanwhile with entries that were not sent.
func (f *follower) end(ctx context.Context) (done bool, err error) {
	v, err := f.reader.describe(ctx, f.stream)
	if err != nil {
		return false, err
	}
	if v.GetState() != daybookv1.StreamState_OPEN && !f.ended() && types.MessageIndex(v.GetNextIndex()) > f.next {
		return false, nil
	}
	return true, f.respond(ctx, &daybookv1.FollowResponse{End: &daybookv1.FollowResponse_End{
		State:         v.GetState(),
		TerminalIndex: v.GetTerminalIndex(),
		Reason:        v.GetEndReason(),
		Missing:       v.GetMissing(),
	}})
}
