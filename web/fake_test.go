package web

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/logpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLogs is a Coordinator that holds what a test puts into it.
type fakeLogs struct {
	daybookv1.UnimplementedLogsServer

	changed wake.Hub[string]
	mu      sync.Mutex
	streams []*fakeStream
	// cut is closed to cut off all calls that follow now.
	cut chan struct{}
	// follows counts the calls to Follow.
	follows int
}

type fakeStream struct {
	meta *daybookv1.Stream
	// entries has nil for an entry that is missing.
	entries []*logpb.LogEntry
	lines   uint64
}

var epoch = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

func (f *fakeLogs) add(path string, kind logpb.StreamType) *fakeStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeStream{meta: &daybookv1.Stream{
		Project: "local", Path: path, State: daybookv1.StreamState_OPEN, TerminalIndex: -1,
		Created: timestamppb.New(epoch),
		Desc: &logpb.LogStreamDescriptor{
			StreamType: kind, ContentType: "text/html", Timestamp: timestamppb.New(epoch),
		},
	}}
	s.meta.Desc.Prefix, s.meta.Desc.Name, _ = strings.Cut(path, "/+/")
	f.streams = append(f.streams, s)
	return s
}

// append adds an entry to s, whose content is given by put.
func (f *fakeLogs) append(s *fakeStream, at time.Duration, put func(*logpb.LogEntry)) {
	f.mu.Lock()
	e := &logpb.LogEntry{StreamIndex: uint64(len(s.entries)), TimeOffset: durationpb.New(at), Sequence: s.lines}
	put(e)
	for _, l := range e.GetText().GetLines() {
		s.meta.Size += int64(len(l.Value) + len(l.Delimiter))
		if l.Delimiter != "" {
			s.lines++
		}
	}
	s.meta.Size += int64(len(e.GetBinary().GetData()) + len(e.GetDatagram().GetData()))
	s.meta.Lines = int64(s.lines)
	s.entries = append(s.entries, e)
	s.meta.NextIndex = int64(len(s.entries))
	f.mu.Unlock()
	f.changed.Wake(s.meta.Path)
}

// print adds an entry with text as the lines that it is.
func (f *fakeLogs) print(s *fakeStream, at time.Duration, text string) {
	f.append(s, at, func(e *logpb.LogEntry) {
		content := &logpb.Text{}
		for line := range strings.Lines(text) {
			delimiter := ""
			for _, d := range []string{"\r\n", "\n"} {
				if strings.HasSuffix(line, d) {
					delimiter = d
					break
				}
			}
			content.Lines = append(content.Lines, &logpb.Text_Line{Value: []byte(strings.TrimSuffix(line, delimiter)), Delimiter: delimiter})
		}
		e.Content = &logpb.LogEntry_Text{Text: content}
	})
}

// lose makes an entry missing.
func (f *fakeLogs) lose(s *fakeStream, first, last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := first; i <= last; i++ {
		s.entries[i] = nil
	}
	s.meta.Missing = append(s.meta.Missing, &daybookv1.IndexRange{First: first, Last: last})
}

func (f *fakeLogs) end(s *fakeStream, state daybookv1.StreamState, reason string) {
	f.mu.Lock()
	s.meta.State, s.meta.EndReason = state, reason
	s.meta.TerminalIndex = int64(len(s.entries)) - 1
	s.meta.Ended = timestamppb.New(epoch.Add(90 * time.Second))
	f.mu.Unlock()
	f.changed.Wake(s.meta.Path)
}

func (f *fakeLogs) cutAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.cut)
	f.cut = make(chan struct{})
}

func (f *fakeLogs) find(project, path string) *fakeStream {
	for _, s := range f.streams {
		if s.meta.Project == project && s.meta.Path == path {
			return s
		}
	}
	return nil
}

func (f *fakeLogs) GetStream(_ context.Context, r *daybookv1.GetStreamRequest) (*daybookv1.Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.find(r.Project, r.Path); s != nil {
		return proto.CloneOf(s.meta), nil
	}
	return nil, status.Errorf(codes.NotFound, "there is no stream %s in project %s", r.Path, r.Project)
}

func (f *fakeLogs) ListProjects(context.Context, *daybookv1.ListProjectsRequest) (*daybookv1.ListProjectsResponse, error) {
	return &daybookv1.ListProjectsResponse{Projects: []string{"chromium", "local"}}, nil
}

func (f *fakeLogs) FindStreams(_ context.Context, r *daybookv1.FindStreamsRequest) (*daybookv1.FindStreamsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &daybookv1.FindStreamsResponse{}
	for _, s := range slices.Backward(f.streams) {
		if s.meta.Project == r.Project && matches(r.Pattern, s.meta.Desc.Prefix) {
			res.Streams = append(res.Streams, proto.CloneOf(s.meta))
		}
	}
	return res, nil
}

func (f *fakeLogs) ListPrefixes(_ context.Context, r *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Project == "broken" {
		return nil, status.Error(codes.Internal, "a secret of the server")
	}
	byName := make(map[string]*daybookv1.Prefix)
	var all []*daybookv1.Prefix
	for _, s := range slices.Backward(f.streams) {
		name := s.meta.Desc.Prefix
		if s.meta.Project != r.Project || !matches(r.Pattern, name) {
			continue
		}
		if byName[name] == nil {
			byName[name] = &daybookv1.Prefix{Project: r.Project, Prefix: name, Created: s.meta.Created}
			all = append(all, byName[name])
		}
		byName[name].Streams = append(byName[name].Streams, proto.CloneOf(s.meta))
	}
	for _, p := range all {
		slices.SortFunc(p.Streams, func(a, b *daybookv1.Stream) int { return strings.Compare(a.Path, b.Path) })
	}
	first, _ := strconv.Atoi(r.PageToken)
	res := &daybookv1.ListPrefixesResponse{}
	size := int(r.PageSize)
	if size == 0 {
		size = 100
	}
	res.Prefixes = all[min(first, len(all)):min(first+size, len(all))]
	if first+size < len(all) {
		res.NextPageToken = fmt.Sprint(first + size)
	}
	return res, nil
}

// matches is enough of a glob for these tests: nothing, an exact prefix, or one followed by /**.
func matches(pattern, prefix string) bool {
	base, deep := strings.CutSuffix(pattern, "/**")
	return pattern == "" || prefix == base || deep && strings.HasPrefix(prefix, base+"/")
}

func (f *fakeLogs) Follow(r *daybookv1.FollowRequest, out daybookv1.Logs_FollowServer) error {
	f.mu.Lock()
	f.follows++
	cut := f.cut
	f.mu.Unlock()
	changed, stop := f.changed.Watch(r.Path)
	defer stop()
	index, state := r.Index, daybookv1.StreamState(-1)
	for {
		res, found := f.take(r, &index, &state)
		if !found && !r.Wait {
			return status.Error(codes.NotFound, "there is no such stream")
		}
		if res != nil {
			if err := out.Send(res); err != nil {
				return err
			}
			if res.End != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-cut:
			return status.Error(codes.Unavailable, "the connection was cut")
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

// take returns the next response, or nil if there is nothing yet.
func (f *fakeLogs) take(r *daybookv1.FollowRequest, index *int64, state *daybookv1.StreamState) (res *daybookv1.FollowResponse, found bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.find(r.Project, r.Path)
	if s == nil {
		return nil, false
	}
	res = &daybookv1.FollowResponse{}
	if s.meta.State != *state {
		*state = s.meta.State
		res.Stream = proto.CloneOf(s.meta)
	}
	first, size := *index, 0
	for ; *index < int64(len(s.entries)) && size < 64<<10; *index++ {
		e := s.entries[*index]
		if e == nil {
			if len(res.Logs) > 0 {
				break
			}
			continue
		}
		if len(res.Logs) == 0 && *index > first {
			res.Missing = append(res.Missing, &daybookv1.IndexRange{First: first, Last: *index - 1})
		}
		res.Logs = append(res.Logs, e)
		size += proto.Size(e)
	}
	if *index >= int64(len(s.entries)) && (s.meta.State != daybookv1.StreamState_OPEN || r.BacklogOnly) {
		if len(res.Logs) == 0 && *index > first {
			res.Missing = append(res.Missing, &daybookv1.IndexRange{First: first, Last: *index - 1})
		}
		res.End = &daybookv1.FollowResponse_End{
			State: s.meta.State, TerminalIndex: s.meta.TerminalIndex, Reason: s.meta.EndReason, Missing: s.meta.Missing,
		}
	}
	if res.Stream == nil && res.Logs == nil && res.End == nil {
		return nil, true
	}
	return res, true
}

// serve starts a Handler over f by way of gRPC.
func serve(t *testing.T, f daybookv1.LogsServer) *httptest.Server {
	t.Helper()
	return serveOptions(t, f, func(*handler) {})
}

func newFake() *fakeLogs { return &fakeLogs{cut: make(chan struct{})} }

func dial(t testing.TB, f daybookv1.LogsServer) daybookv1.LogsClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	daybookv1.RegisterLogsServer(s, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	conn, err := grpc.NewClient("passthrough:bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		serving.Wait()
	})
	return daybookv1.NewLogsClient(conn)
}

func serveOptions(t *testing.T, f daybookv1.LogsServer, change func(*handler)) *httptest.Server {
	t.Helper()
	h, routes := newHandler(Config{
		Logs: dial(t, f), Version: "v1.2.3 <test>", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	h.hold = time.Millisecond // tests ask for much that is not there
	change(h)
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewUnstartedServer(routes)
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(func() {
		cancel()
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}
