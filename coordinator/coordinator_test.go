package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	project  = "local"
	prefix   = "user/build"
	dayLater = 24 * time.Hour
)

// house is a Coordinator over real state, with storage and archives in memory.
type house struct {
	t        testing.TB
	store    state.Store
	storage  *memory.Storage
	archives *archives
	*coordinator.Coordinator
	secret []byte
}

// newHouse returns a Coordinator with one registered prefix.
func newHouse(t testing.TB, change ...func(*coordinator.Config)) *house {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &house{t: t, store: store, storage: memory.New(), archives: &archives{entries: make(map[string]*memory.Storage)}}
	c := coordinator.Config{
		Store: store, Storage: h.storage, Archives: h.archives, BaseURL: "http://daybook",
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	for _, fn := range change {
		fn(&c)
	}
	if h.Coordinator, err = coordinator.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	h.secret = h.registerPrefix(prefix).GetSecret()
	return h
}

// settings returns an Authority of a configuration.
func settings(t testing.TB, text string) *config.Authority {
	t.Helper()
	c, err := config.Parse("settings", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config.Fixed(c)
}

func (h *house) registerPrefix(prefix string) *logdog.RegisterPrefixResponse {
	h.t.Helper()
	resp, err := h.Registration().RegisterPrefix(h.t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: prefix})
	if err != nil {
		h.t.Fatal(err)
	}
	return resp
}

// serve returns clients of the Coordinator behind a real gRPC server.
func (h *house) serve() (logdog.LogsClient, daybookv1.LogsClient) {
	h.t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(client.ServerOptions()...)
	h.Register(s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	conn, err := client.Dial("passthrough:bufconn", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return l.DialContext(ctx)
	}))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		wg.Wait()
	})
	return logdog.NewLogsClient(conn), daybookv1.NewLogsClient(conn)
}

func descriptor(name string) *logpb.LogStreamDescriptor {
	return &logpb.LogStreamDescriptor{
		Prefix: prefix, Name: name, ContentType: "text/plain", Timestamp: timestamppb.New(time.Unix(1e9, 0)), Tags: map[string]string{"k": "v"},
	}
}

func (h *house) registration(name string) *logdog.RegisterStreamRequest {
	desc, err := proto.Marshal(descriptor(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return &logdog.RegisterStreamRequest{Project: project, Secret: h.secret, ProtoVersion: "1", Desc: desc, TerminalIndex: -1}
}

func (h *house) register(name string) string {
	h.t.Helper()
	resp, err := h.Services().RegisterStream(h.t.Context(), h.registration(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.GetId()
}

func (h *house) terminate(id string, index int64) {
	h.t.Helper()
	_, err := h.Services().TerminateStream(h.t.Context(), &logdog.TerminateStreamRequest{Project: project, Id: id, Secret: h.secret, TerminalIndex: index})
	if err != nil {
		h.t.Fatal(err)
	}
}

// lease leases what is due.
func (h *house) lease() []*logdog.ArchiveTask {
	h.t.Helper()
	resp, err := h.Services().LeaseArchiveTasks(h.t.Context(), &logdog.LeaseRequest{MaxTasks: 100, LeaseTime: seconds(60)})
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.GetTasks()
}

// entry is an entry of two lines, six bytes.
func entry(i int) *logpb.LogEntry {
	return &logpb.LogEntry{
		StreamIndex: uint64(i), Sequence: uint64(2 * i), ContentOffset: uint64(6 * i),
		Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{
			{Value: fmt.Appendf(nil, "%02d", i%100), Delimiter: "\n"}, {Value: []byte("b"), Delimiter: "\r\n"},
		}}},
	}
}

func put(t testing.TB, s storage.Storage, path types.StreamPath, indices ...int) {
	t.Helper()
	for _, i := range indices {
		b, err := proto.Marshal(entry(i))
		if err != nil {
			t.Fatal(err)
		}
		err = s.Put(t.Context(), storage.PutRequest{
			Stream: storage.Stream{Project: project, Path: path}, Index: types.MessageIndex(i), Values: [][]byte{b},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (h *house) put(name types.StreamName, indices ...int) {
	h.t.Helper()
	put(h.t, h.storage, types.StreamName(prefix).Join(name), indices...)
}

// archive archives a stream with the given entries.
func (h *house) archive(name types.StreamName, indices ...int) {
	h.t.Helper()
	path := types.StreamName(prefix).Join(name)
	url := "memory:" + string(path)
	a := memory.New()
	put(h.t, a, path, indices...)
	h.archives.add(url, a)
	r := &logdog.ArchiveStreamRequest{
		Project: project, Id: string(path.ID()), StreamUrl: url, IndexUrl: url, TerminalIndex: -1, LogEntryCount: int64(len(indices)),
	}
	next := 0
	for _, i := range indices {
		if i > next {
			r.Missing = append(r.Missing, &logdog.MissingRange{First: int64(next), Last: int64(i - 1)})
		}
		next = i + 1
		r.TerminalIndex = int64(i)
		r.ContentSize += 6
		r.Lines += 2
	}
	if _, err := h.Services().ArchiveStream(h.t.Context(), r); err != nil {
		h.t.Fatal(err)
	}
}

// archives are memory stores, each holding one stream, by address.
type archives struct {
	mu      sync.Mutex
	entries map[string]*memory.Storage
	// signs says that they have signed URLs.
	signs bool
}

func (a *archives) add(url string, s *memory.Storage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries[url] = s
}

func (a *archives) Open(_ context.Context, streamURL, _ string) (reader.Archive, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.entries[streamURL]
	if s == nil {
		return nil, fault.New(fault.NotFound, "no archive %s", streamURL)
	}
	return memoryArchive{s, storage.Stream{Project: project, Path: types.StreamPath(streamURL[len("memory:"):])}}, nil
}

type memoryArchive struct {
	storage *memory.Storage
	stream  storage.Stream
}

func (a memoryArchive) Get(ctx context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error {
	return a.storage.Get(ctx, storage.GetRequest{Stream: a.stream, Index: index, Limit: limit}, cb)
}

func (a memoryArchive) Tail(ctx context.Context) (last storage.Entry, err error) {
	last, err = storage.Entry{}, storage.ErrDoesNotExist
	gerr := a.Get(ctx, 0, 0, func(e storage.Entry) bool {
		last, err = storage.Entry{Index: e.Index, Data: append([]byte(nil), e.Data...)}, nil
		return true
	})
	return last, errors.Join(gerr, err)
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: code %v, want %v: %v", what, got, want, err)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func indices(logs []*logpb.LogEntry) (got []int) {
	for _, e := range logs {
		got = append(got, int(e.GetStreamIndex()))
	}
	return got
}

// drainFollow reads a Follow to its end.
func drainFollow(t *testing.T, s grpc.ServerStreamingClient[daybookv1.FollowResponse]) (got []int, missing [][2]int64, end *daybookv1.FollowResponse_End) {
	t.Helper()
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return got, missing, end
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, indices(r.GetLogs())...)
		for _, m := range r.GetMissing() {
			missing = append(missing, [2]int64{m.GetFirst(), m.GetLast()})
		}
		end = r.GetEnd()
	}
}
