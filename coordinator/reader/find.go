package reader

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// maxPageBytes ends a page early: descriptors may be large.
	maxPageBytes = 8 << 20
	// maxPrefixStreams bounds the streams that ListPrefixes shows of one prefix.
	maxPrefixStreams = 1000
	// searchTime is after how long a search that has found nothing lets its caller decide whether to go on.
	searchTime = 20 * time.Millisecond
)

// daybookLogs implements daybook.v1.Logs.
type daybookLogs struct {
	daybookv1.UnimplementedLogsServer
	reader *Reader
}

// GetStream returns a stream.
func (l *daybookLogs) GetStream(ctx context.Context, r *daybookv1.GetStreamRequest) (*daybookv1.Stream, error) {
	v, err := l.getStream(ctx, r)
	return v, l.reader.tell(ctx, r.GetProject(), access.Get, err)
}

func (l *daybookLogs) getStream(ctx context.Context, r *daybookv1.GetStreamRequest) (*daybookv1.Stream, error) {
	a, err := parseAddress(r.GetProject(), r.GetPath())
	if err != nil {
		return nil, err
	}
	s, err := l.reader.loadFor(ctx, a, r.GetPurged())
	if err != nil {
		return nil, err
	}
	return l.reader.describe(ctx, s)
}

// FindStreams returns the streams that match a pattern, newest first.
func (l *daybookLogs) FindStreams(ctx context.Context, r *daybookv1.FindStreamsRequest) (*daybookv1.FindStreamsResponse, error) {
	resp, err := l.findStreams(ctx, r)
	return resp, fault.GRPC(err)
}

func (l *daybookLogs) findStreams(ctx context.Context, r *daybookv1.FindStreamsRequest) (*daybookv1.FindStreamsResponse, error) {
	q, err := streamQuery(r)
	if err != nil {
		return nil, err
	}
	permission := access.List
	if r.GetPurged() {
		permission = access.DeletePrefix
	}
	sight, err := l.reader.sight(ctx, q.Project, permission)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.FindStreamsResponse)
	start, size := time.Now(), 0
	for {
		found, next, err := l.reader.store.FindStreams(ctx, q)
		if err != nil {
			return nil, err
		}
		resp.NextPageToken = positionToken(next)
		for i, s := range found {
			v, err := l.shown(ctx, s, r, sight)
			if err != nil {
				return nil, err
			}
			if v == nil {
				continue
			}
			resp.Streams = append(resp.Streams, v)
			size += proto.Size(v)
			if size > maxPageBytes && i+1 < len(found) {
				resp.NextPageToken = positionToken(s.Position())
				break
			}
		}
		if len(resp.Streams) > 0 || next.IsZero() || time.Since(start) >= searchTime {
			return resp, nil
		}
		q.After = next
	}
}

// shown returns what is told of a stream that the store found, or nil if the request or the caller does not get it.
func (l *daybookLogs) shown(ctx context.Context, s *state.Stream, r *daybookv1.FindStreamsRequest, sight *sight) (*daybookv1.Stream, error) {
	if !s.Prefix.Deleted.IsZero() {
		return nil, nil
	}
	if ok, err := sight.allows(ctx, s.Prefix.Realm); !ok || err != nil {
		return nil, err
	}
	v, err := l.reader.describe(ctx, s)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // it was removed since it was found
	}
	// The store knows phases; states depend on what has arrived, too.
	if err != nil || len(r.GetStates()) > 0 && !slices.Contains(r.GetStates(), v.GetState()) {
		return nil, err
	}
	return v, nil
}

// streamQuery checks a request.
func streamQuery(r *daybookv1.FindStreamsRequest) (q state.StreamQuery, err error) {
	q = state.StreamQuery{
		Project: types.Project(r.GetProject()), Tags: r.GetTags(), Type: r.StreamType, ContentType: r.GetContentType(),
		OnlyPurged: r.GetPurged(), Limit: pageSize(r.GetPageSize()),
	}
	if err := q.Project.Validate(); err != nil {
		return q, fault.Wrap(fault.Invalid, err)
	}
	prefix, streamName := types.StreamPath(r.GetPattern()).Split()
	if q.Prefix, err = state.ParsePattern(string(prefix)); err != nil {
		return q, err
	}
	if q.Name, err = state.ParsePattern(string(streamName)); err != nil {
		return q, err
	}
	if err := checkFilter(q); err != nil {
		return q, err
	}
	for _, s := range r.GetStates() {
		phases, ok := phasesOf[s]
		if !ok {
			return q, fault.New(fault.Invalid, "no stream is in the state %v; use OPEN, TERMINATED, COMPLETE or INCOMPLETE", s)
		}
		for _, p := range phases {
			if !slices.Contains(q.Phases, p) {
				q.Phases = append(q.Phases, p)
			}
		}
	}
	if q.Since, err = instant("since", r.GetSince()); err != nil {
		return q, err
	}
	if q.Until, err = instant("until", r.GetUntil()); err != nil {
		return q, err
	}
	q.After, err = parsePositionToken(r.GetPageToken())
	return q, err
}

// phasesOf are the phases of the streams in a state.
var phasesOf = map[daybookv1.StreamState][]state.Phase{
	daybookv1.StreamState_OPEN:       {state.Open},
	daybookv1.StreamState_TERMINATED: {state.Terminated},
	daybookv1.StreamState_COMPLETE:   {state.Complete, state.Terminated},
	daybookv1.StreamState_INCOMPLETE: {state.Incomplete},
}

// instant returns the time of a request, which is zero if there is none. Stored times are in microseconds, so the bound of a part of one
// is the next.
func instant(name string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, fault.New(fault.Invalid, "%s: %w", name, err)
	}
	at := t.AsTime().Add(time.Microsecond - time.Nanosecond).Truncate(time.Microsecond)
	if at.IsZero() {
		at = at.Add(time.Microsecond) // the first time that there is would be none
	}
	return at, nil
}

func pageSize(n int32) int {
	if n <= 0 {
		return defaultPageSize
	}
	return int(min(n, maxPageSize))
}
