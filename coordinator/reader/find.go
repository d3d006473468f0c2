package reader

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
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
	return v, fault.GRPC(err)
}

func (l *daybookLogs) getStream(ctx context.Context, r *daybookv1.GetStreamRequest) (*daybookv1.Stream, error) {
	project, id, err := name(r.GetProject(), r.GetPath())
	if err != nil {
		return nil, err
	}
	s, err := l.reader.load(ctx, project, id)
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
	start := time.Now()
	found, next, err := l.reader.store.FindStreams(ctx, q)
	for err == nil && len(found) == 0 && !next.IsZero() && time.Since(start) < searchTime {
		q.After = next
		found, next, err = l.reader.store.FindStreams(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	resp := &daybookv1.FindStreamsResponse{NextPageToken: positionToken(next)}
	size := 0
	for i, s := range found {
		v, err := l.reader.describe(ctx, s)
		if err != nil {
			return nil, err
		}
		// The store knows phases; states depend on what has arrived, too.
		if len(r.GetStates()) > 0 && !slices.Contains(r.GetStates(), v.GetState()) {
			continue
		}
		resp.Streams = append(resp.Streams, v)
		size += proto.Size(v)
		if size > maxPageBytes && i+1 < len(found) {
			resp.NextPageToken = positionToken(s.Position())
			break
		}
	}
	return resp, nil
}

// streamQuery checks a request.
func streamQuery(r *daybookv1.FindStreamsRequest) (q state.StreamQuery, err error) {
	q = state.StreamQuery{
		Project: types.Project(r.GetProject()), Tags: r.GetTags(), Type: r.StreamType, ContentType: r.GetContentType(),
		Limit: pageSize(r.GetPageSize()),
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
	return t.AsTime().Add(time.Microsecond - time.Nanosecond).Truncate(time.Microsecond), nil
}

// ListProjects returns the projects that have a prefix.
func (l *daybookLogs) ListProjects(ctx context.Context, _ *daybookv1.ListProjectsRequest) (*daybookv1.ListProjectsResponse, error) {
	projects, err := l.reader.store.Projects(ctx)
	if err != nil {
		return nil, fault.GRPC(err)
	}
	resp := new(daybookv1.ListProjectsResponse)
	for _, p := range projects {
		resp.Projects = append(resp.Projects, string(p))
	}
	return resp, nil
}

// ListPrefixes returns the prefixes that match a pattern, newest first, with their streams.
func (l *daybookLogs) ListPrefixes(ctx context.Context, r *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	resp, err := l.listPrefixes(ctx, r)
	return resp, fault.GRPC(err)
}

func (l *daybookLogs) listPrefixes(ctx context.Context, r *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	project := types.Project(r.GetProject())
	if err := project.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	q := state.PrefixQuery{Project: project, Limit: pageSize(r.GetPageSize())}
	var err error
	if q.Prefix, err = state.ParsePattern(r.GetPattern()); err != nil {
		return nil, err
	}
	if q.After, err = parsePositionToken(r.GetPageToken()); err != nil {
		return nil, err
	}
	found, err := l.reader.store.FindPrefixes(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.ListPrefixesResponse)
	size := 0
	for i, p := range found {
		v, err := l.prefix(ctx, p)
		if err != nil {
			return nil, err
		}
		resp.Prefixes = append(resp.Prefixes, v)
		size += proto.Size(v)
		if i+1 == q.Limit || size > maxPageBytes {
			resp.NextPageToken = positionToken(p.Position())
			break
		}
	}
	return resp, nil
}

func (l *daybookLogs) prefix(ctx context.Context, p *state.Prefix) (*daybookv1.Prefix, error) {
	only, err := state.ParsePattern(string(p.Prefix))
	if err != nil {
		return nil, err
	}
	streams, _, err := l.reader.store.FindStreams(ctx, state.StreamQuery{Project: p.Project, Prefix: only, Limit: maxPrefixStreams})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(streams, func(a, b *state.Stream) int { return cmp.Compare(a.Name, b.Name) })
	v := &daybookv1.Prefix{Project: string(p.Project), Prefix: string(p.Prefix), Created: timestamppb.New(p.Created)}
	for _, s := range streams {
		d, err := l.reader.describe(ctx, s)
		if err != nil {
			return nil, err
		}
		v.Streams = append(v.Streams, d)
	}
	return v, nil
}

func pageSize(n int32) int {
	if n <= 0 {
		return defaultPageSize
	}
	return int(min(n, maxPageSize))
}

// describe returns what readers are told of a stream. What it holds is asked of its last entry until it is archived.
func (r *Reader) describe(ctx context.Context, s *state.Stream) (*daybookv1.Stream, error) {
	var last *logpb.LogEntry
	if !s.Archived() {
		var err error
		s, err = r.look(ctx, s, func(s *state.Stream, entries Archive) (err error) {
			if !s.Archived() {
				last, err = tail(ctx, s, entries)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	d, err := descriptor(s)
	if err != nil {
		return nil, err
	}
	v := &daybookv1.Stream{
		Project:       string(s.Prefix.Project),
		Path:          string(s.Path()),
		Created:       timestamppb.New(s.Created),
		TerminalIndex: int64(s.LastIndex()),
		Desc:          d,
		Missing:       indexRanges(s.Missing),
		EndReason:     endReason(s),
	}
	if !s.Ended.IsZero() {
		v.Ended = timestamppb.New(s.Ended)
	}
	if s.Archived() {
		v.Size, v.Lines, v.NextIndex = s.Archive.ContentSize, s.Archive.Lines, int64(s.Archive.LastIndex)+1
	} else if last != nil {
		v.Size, v.Lines = extent(last)
		v.NextIndex = int64(last.GetStreamIndex()) + 1
	}
	v.State = streamState(s, types.MessageIndex(v.NextIndex))
	return v, nil
}

// streamState is the state of a stream whose entries are there up to next, without a gap unless it is archived.
func streamState(s *state.Stream, next types.MessageIndex) daybookv1.StreamState {
	switch {
	case s.Phase == state.Open:
		return daybookv1.StreamState_OPEN
	case s.Phase == state.Incomplete:
		return daybookv1.StreamState_INCOMPLETE
	case s.Phase == state.Complete || next > s.End.Index:
		return daybookv1.StreamState_COMPLETE
	}
	return daybookv1.StreamState_TERMINATED
}

// endReason says why a stream ended that did not end by itself.
func endReason(s *state.Stream) string {
	if s.EndReason != "" {
		return s.EndReason
	}
	if s.Archived() && !s.End.Known {
		return "the end was never reported"
	}
	return ""
}

// extent returns how many bytes of content and how many lines or datagrams a stream has up to and with the given entry.
func extent(e *logpb.LogEntry) (size, lines int64) {
	size = int64(e.GetContentOffset())
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		lines = int64(e.GetSequence())
		text := c.Text.GetLines()
		for i, l := range text {
			size += int64(len(l.GetValue()) + len(l.GetDelimiter()))
			// A last line that is not finished counts, too.
			if l.GetDelimiter() != "" || i == len(text)-1 && len(l.GetValue()) > 0 {
				lines++
			}
		}
	case *logpb.LogEntry_Binary:
		// The sequence of a binary stream is the offset, whoever produced it.
		size = int64(e.GetSequence()) + int64(len(c.Binary.GetData()))
	case *logpb.LogEntry_Datagram:
		size += int64(len(c.Datagram.GetData()))
		lines = int64(e.GetSequence())
		if p := c.Datagram.GetPartial(); p == nil || p.GetLast() {
			lines++
		}
	}
	return size, lines
}

func indexRanges(ranges []state.Range) []*daybookv1.IndexRange {
	var out []*daybookv1.IndexRange
	for _, r := range ranges {
		out = append(out, &daybookv1.IndexRange{First: int64(r.First), Last: int64(r.Last), Reason: r.Reason})
	}
	return out
}
