package reader

import (
	"context"
	"time"

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
	// maxSigned is the longest life of a signed URL.
	maxSigned = time.Hour
)

// logdogLogs implements logdog.Logs.
type logdogLogs struct {
	logdog.UnimplementedLogsServer
	reader *Reader
}

// Get returns entries from an index on.
func (l *logdogLogs) Get(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
	resp, err := l.get(ctx, r)
	return resp, l.reader.hide(ctx, err)
}

func (l *logdogLogs) get(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
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
	s, err := l.load(ctx, r.GetProject(), r.GetPath())
	if err != nil {
		return nil, err
	}
	endless := patient(ctx) && w.count >= 0
	w.gaps = w.gaps || endless && s.Archived() // what is missing there will not come
	var logs []*logpb.LogEntry
	if w.count >= 0 && w.index >= 0 {
		if s, logs, err = l.reader.readOrHold(ctx, s, w); err != nil {
			return nil, err
		}
	}
	resp, err := answer(s, r.GetState(), logs)
	if err != nil {
		return nil, err
	}
	if endless {
		letGo(s, w.index, resp)
	}
	resp.SignedUrls, err = l.sign(ctx, s, r.GetGetSignedUrls())
	return resp, err
}

// Tail returns the last entry.
func (l *logdogLogs) Tail(ctx context.Context, r *logdog.TailRequest) (*logdog.GetResponse, error) {
	resp, err := l.tail(ctx, r)
	return resp, l.reader.hide(ctx, err)
}

func (l *logdogLogs) tail(ctx context.Context, r *logdog.TailRequest) (*logdog.GetResponse, error) {
	s, err := l.load(ctx, r.GetProject(), r.GetPath())
	if err != nil {
		return nil, err
	}
	var logs []*logpb.LogEntry
	s, err = l.reader.look(ctx, s, func(s *state.Stream, entries Archive) error {
		logs = nil
		last, err := tail(ctx, s, entries)
		if last != nil {
			logs = []*logpb.LogEntry{last}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer(s, r.GetState(), logs)
}

func (l *logdogLogs) load(ctx context.Context, project, path string) (*state.Stream, error) {
	a, err := parseAddress(project, path)
	if err != nil {
		return nil, err
	}
	return l.reader.load(ctx, a, l.reader.administrator(ctx))
}

// answer returns the response with what was read, and the state it was read in if that is wanted.
func answer(s *state.Stream, withState bool, logs []*logpb.LogEntry) (*logdog.GetResponse, error) {
	resp := &logdog.GetResponse{Project: string(s.Prefix.Project), Realm: s.Prefix.Realm, Logs: logs}
	if !withState {
		return resp, nil
	}
	resp.State = logStreamState(s)
	var err error
	resp.Desc, err = descriptor(s)
	return resp, err
}

// sign returns URLs of the archive's objects, or nil if none are wanted or the place of the archive has none.
func (l *logdogLogs) sign(ctx context.Context, s *state.Stream, r *logdog.GetRequest_SignURLRequest) (*logdog.GetResponse_SignedUrls, error) {
	lifetime := min(r.GetLifetime().AsDuration(), maxSigned)
	if lifetime <= 0 || !r.GetStream() && !r.GetIndex() || !s.Archived() {
		return nil, nil
	}
	signed := &logdog.GetResponse_SignedUrls{Expiration: timestamppb.New(time.Now().Add(lifetime))}
	for _, object := range []struct {
		wanted bool
		url    string
		signed *string
	}{
		{r.GetStream(), s.Archive.StreamURL, &signed.Stream},
		{r.GetIndex(), s.Archive.IndexURL, &signed.Index},
	} {
		if !object.wanted {
			continue
		}
		var err error
		*object.signed, err = l.reader.archives.SignedURL(ctx, object.url, lifetime)
		if fault.Is(err, fault.Unimplemented) {
			return nil, nil
		}
		if err != nil {
			return nil, readError(s, err)
		}
	}
	return signed, nil
}

func logStreamState(s *state.Stream) *logdog.LogStreamState {
	v := &logdog.LogStreamState{
		ProtoVersion:  s.ProtoVersion,
		Created:       timestamppb.New(s.Created),
		TerminalIndex: int64(s.LastIndex()),
		Purged:        !s.Purged.IsZero(),
		EndReason:     endReason(s),
	}
	for _, m := range s.Missing {
		v.Missing = append(v.Missing, &logdog.MissingRange{First: int64(m.First), Last: int64(m.Last), Reason: m.Reason})
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
