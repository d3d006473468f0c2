package reader

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// maxGetBytes bounds the entries of a Get, and is the default.
	maxGetBytes = 16 << 20
	// maxQueryResults bounds a page of Query, and is the default.
	maxQueryResults = 500
)

// logdogLogs implements logdog.Logs.
type logdogLogs struct {
	logdog.UnimplementedLogsServer
	reader *Reader
}

// Get returns entries from an index on.
func (l *logdogLogs) Get(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
	w := wanted{
		index: types.MessageIndex(r.GetIndex()),
		bytes: int(r.GetByteCount()),
		count: int(r.GetLogCount()),
		gaps:  r.GetNonContiguous(),
	}
	if w.bytes <= 0 || w.bytes > maxGetBytes {
		w.bytes = maxGetBytes
	}
	if w.index < 0 && w.gaps {
		w.index = 0
	}
	get := func(s *state.Stream, entries Archive) ([]*logpb.LogEntry, error) {
		logs, _, err := read(ctx, s, entries, w)
		return logs, err
	}
	if w.count < 0 || w.index < 0 {
		get = nil
	}
	resp, err := l.entries(ctx, r.GetProject(), r.GetPath(), r.GetState(), get)
	return resp, fault.GRPC(err)
}

// Tail returns the last entry.
func (l *logdogLogs) Tail(ctx context.Context, r *logdog.TailRequest) (*logdog.GetResponse, error) {
	resp, err := l.entries(ctx, r.GetProject(), r.GetPath(), r.GetState(), func(s *state.Stream, entries Archive) ([]*logpb.LogEntry, error) {
		last, err := tail(ctx, s, entries)
		if last == nil {
			return nil, err
		}
		return []*logpb.LogEntry{last}, nil
	})
	return resp, fault.GRPC(err)
}

// entries answers a request with what get finds; nil is a request for none.
func (l *logdogLogs) entries(
	ctx context.Context, projectName, path string, withState bool, get func(*state.Stream, Archive) ([]*logpb.LogEntry, error),
) (*logdog.GetResponse, error) {
	project, id, err := name(projectName, path)
	if err != nil {
		return nil, err
	}
	s, err := l.reader.load(ctx, project, id)
	if err != nil {
		return nil, err
	}
	resp := &logdog.GetResponse{Project: string(project), Realm: s.Prefix.Realm}
	if get != nil {
		s, err = l.reader.look(ctx, s, func(s *state.Stream, entries Archive) (err error) {
			resp.Logs, err = get(s, entries)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if withState {
		resp.State = logStreamState(s)
		if resp.Desc, err = descriptor(s); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// Query finds streams of one prefix.
func (l *logdogLogs) Query(ctx context.Context, r *logdog.QueryRequest) (*logdog.QueryResponse, error) {
	resp, err := l.query(ctx, r)
	return resp, fault.GRPC(err)
}

func (l *logdogLogs) query(ctx context.Context, r *logdog.QueryRequest) (*logdog.QueryResponse, error) {
	project := types.Project(r.GetProject())
	if err := project.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if r.GetPurged() == logdog.QueryRequest_YES {
		return nil, fault.New(fault.Invalid, "purged streams are shown to administrators only")
	}
	prefixName, nameText := types.StreamPath(r.GetPath()).Split()
	if err := prefixName.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "prefix: %w", err)
	}
	q := state.StreamQuery{Project: project, Limit: maxQueryResults, ContentType: r.GetContentType(), Tags: r.GetTags()}
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
	prefix, err := l.reader.store.Prefix(ctx, project, prefixName)
	if err != nil {
		return nil, err
	}
	if q.After, err = parsePositionToken(r.GetNext()); err != nil {
		return nil, err
	}
	if t := r.GetStreamType(); t != nil {
		q.Type = t.GetValue().Enum()
	}
	if err := checkFilter(q); err != nil {
		return nil, err
	}
	found, next, err := l.reader.store.FindStreams(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &logdog.QueryResponse{Project: string(project), Realm: prefix.Realm, Next: positionToken(next)}
	for _, s := range found {
		v := &logdog.QueryResponse_Stream{Path: string(s.Path())}
		if r.GetState() {
			v.State = logStreamState(s)
			// A descriptor that cannot be parsed is left out.
			v.Desc, _ = descriptor(s)
		}
		resp.Streams = append(resp.Streams, v)
	}
	return resp, nil
}

// checkFilter refuses what no stream can be.
func checkFilter(q state.StreamQuery) error {
	if q.Type != nil && logpb.StreamType_name[int32(*q.Type)] == "" {
		return fault.New(fault.Invalid, "unknown stream type %d", *q.Type)
	}
	for key, value := range q.Tags {
		if err := types.ValidateTag(key, value); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
	return nil
}

func logStreamState(s *state.Stream) *logdog.LogStreamState {
	v := &logdog.LogStreamState{
		ProtoVersion:  s.ProtoVersion,
		Created:       timestamppb.New(s.Created),
		TerminalIndex: int64(s.LastIndex()),
		Purged:        !s.Purged.IsZero(),
	}
	if s.Archived() {
		v.Archive = &logdog.LogStreamState_ArchiveInfo{
			IndexUrl:      s.Archive.IndexURL,
			StreamUrl:     s.Archive.StreamURL,
			Complete:      s.Phase == state.Complete,
			LogEntryCount: s.Archive.EntryCount,
		}
	}
	return v
}
