package reader

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// maxQueryResults bounds a page of Query, and is the default.
	maxQueryResults = 500
	// maxFilterTags bounds the tags that a search asks for: each is looked up.
	maxFilterTags = 64
)

// Query finds streams of one prefix.
func (l *logdogLogs) Query(ctx context.Context, r *logdog.QueryRequest) (*logdog.QueryResponse, error) {
	resp, err := l.query(ctx, r)
	return resp, l.reader.hide(ctx, err)
}

func (l *logdogLogs) query(ctx context.Context, r *logdog.QueryRequest) (*logdog.QueryResponse, error) {
	q := state.StreamQuery{Project: types.Project(r.GetProject()), Limit: maxQueryResults, ContentType: r.GetContentType(), Tags: r.GetTags()}
	if err := q.Project.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	administrator := l.reader.administrator(ctx)
	if r.GetPurged() == logdog.QueryRequest_YES && !administrator {
		return nil, fault.New(fault.Invalid, "purged streams are shown to administrators only")
	}
	q.Purged, q.OnlyPurged = administrator && r.GetPurged() == logdog.QueryRequest_BOTH, r.GetPurged() == logdog.QueryRequest_YES
	prefixName, nameText := types.StreamPath(r.GetPath()).Split()
	if err := prefixName.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "prefix: %w", err)
	}
	var err error
	if q.Prefix, err = state.ParsePattern(string(prefixName)); err != nil {
		return nil, err
	}
	if q.Name, err = state.ParsePattern(string(nameText)); err != nil {
		return nil, err
	}
	if n := int(r.GetMaxResults()); n > 0 {
		q.Limit = min(n, maxQueryResults)
	}
	prefix, err := l.reader.prefix(ctx, q.Project, prefixName)
	if err != nil {
		return nil, err
	}
	if err := l.reader.access.Check(ctx, q.Project, prefix.Realm, access.List); err != nil {
		return nil, err
	}
	if err := queryFilters(&q, r); err != nil {
		return nil, err
	}
	return l.page(ctx, q, r, prefix.Realm)
}

// queryFilters adds what a request asks of streams.
func queryFilters(q *state.StreamQuery, r *logdog.QueryRequest) (err error) {
	if q.After, err = parsePositionToken(r.GetNext()); err != nil {
		return err
	}
	if t := r.GetStreamType(); t != nil {
		q.Type = t.GetValue().Enum()
	}
	if r.GetNewer() != nil {
		// Behind the time, not at it. Stored times are in microseconds.
		if err := r.GetNewer().CheckValid(); err != nil {
			return fault.New(fault.Invalid, "newer: %w", err)
		}
		q.Since = r.GetNewer().AsTime().Truncate(time.Microsecond).Add(time.Microsecond)
	}
	if q.Until, err = instant("older", r.GetOlder()); err != nil {
		return err
	}
	return checkFilter(*q)
}

// page returns streams of the query, from where it begins. A page is full unless it is the last or very large.
func (l *logdogLogs) page(ctx context.Context, q state.StreamQuery, r *logdog.QueryRequest, realm string) (*logdog.QueryResponse, error) {
	resp := &logdog.QueryResponse{Project: string(q.Project), Realm: realm}
	limit, size := q.Limit, 0
	for {
		q.Limit = limit - len(resp.Streams)
		found, next, err := l.reader.store.FindStreams(ctx, q)
		if err != nil {
			return nil, err
		}
		for i, s := range found {
			if r.GetProtoVersion() != "" && r.GetProtoVersion() != s.ProtoVersion {
				continue
			}
			v := &logdog.QueryResponse_Stream{Path: string(s.Path())}
			if r.GetState() {
				v.State = logStreamState(s)
				// A descriptor that cannot be parsed is left out.
				v.Desc, _ = descriptor(s)
			}
			resp.Streams = append(resp.Streams, v)
			if size += proto.Size(v); size > maxPageBytes && i+1 < len(found) {
				resp.Next = positionToken(s.Position())
				return resp, nil
			}
		}
		if next.IsZero() || len(resp.Streams) == limit || size > maxPageBytes {
			resp.Next = positionToken(next)
			return resp, nil
		}
		q.After = next
	}
}

// checkFilter refuses what no stream can be.
func checkFilter(q state.StreamQuery) error {
	if q.Type != nil && logpb.StreamType_name[int32(*q.Type)] == "" {
		return fault.New(fault.Invalid, "unknown stream type %d", *q.Type)
	}
	if len(q.Tags) > maxFilterTags {
		return fault.New(fault.Invalid, "%d tags are asked for; at most %d can be", len(q.Tags), maxFilterTags)
	}
	for key, value := range q.Tags {
		if err := types.ValidateTag(key, value); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
	return nil
}
