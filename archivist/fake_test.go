package archivist_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// house is a small Coordinator, with a storage and a bucket.
type house struct {
	logdog.ServicesClient // the calls that an Archivist does not make

	t       *testing.T
	storage *memory.Storage
	bucket  *bucket.Mem

	mu      sync.Mutex
	streams map[string]*fakeStream
	tasks   []*fakeTask
	changed chan struct{}
	serial  int
	handed  []time.Duration // retry_after of all tasks handed back
	reasons []string
	// before is called before each call, which fails with its error.
	before func(method string, request proto.Message) error
	// after is called after ArchiveStream did its work; its error is what the caller gets.
	after func() error
}

type fakeStream struct {
	state    *logdog.InternalLogStreamState
	desc     []byte
	ended    time.Time
	reopened time.Time
	archived *logdog.ArchiveStreamRequest
	replaced []*logdog.ArchiveObjects
	reports  int
}

type fakeTask struct {
	task *logdog.ArchiveTask
	due  time.Time
}

func newHouse(t *testing.T) *house {
	return &house{
		t: t, storage: memory.New(), bucket: bucket.NewMem("archive"),
		streams: make(map[string]*fakeStream), changed: make(chan struct{}, 1),
	}
}

func (h *house) archivist(change func(*archivist.Config)) *archivist.Archivist {
	h.t.Helper()
	c := archivist.Config{Services: h, Storage: h.storage, Places: archive.NewPlaces(h.bucket, nil), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	a, err := archivist.New(c)
	if err != nil {
		h.t.Fatalf("New: %v", err)
	}
	return a
}

// run runs an Archivist until the test ends.
func (h *house) run(change func(*archivist.Config)) *archivist.Archivist {
	h.t.Helper()
	a := h.archivist(change)
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	return a
}

const project = "proj"

func nameOf(id string) storage.Stream {
	return storage.Stream{Project: project, Path: types.StreamPath("prefix/+/" + id)}
}

// register makes a stream that is open.
func (h *house) register(id string) *fakeStream {
	desc, err := proto.Marshal(&logpb.LogStreamDescriptor{Prefix: "prefix", Name: id, ContentType: "text/plain"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &fakeStream{state: &logdog.InternalLogStreamState{ProtoVersion: "1", TerminalIndex: -1}, desc: desc}
	h.streams[id] = s
	return s
}

// terminate ends a stream and makes its task, as the Coordinator does.
func (h *house) terminate(id string, terminal int64) {
	h.mu.Lock()
	s := h.streams[id]
	s.state.TerminalIndex, s.state.TerminalEmpty, s.ended = terminal, terminal < 0, time.Now()
	h.mu.Unlock()
	h.enqueue(id)
}

func (h *house) enqueue(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	h.tasks = append(h.tasks, &fakeTask{&logdog.ArchiveTask{Project: project, Id: id, TaskName: fmt.Sprintf("0:%d", h.serial)}, time.Now()})
	h.wake()
}

func (h *house) wake() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// put stores entries as a Collector does.
func (h *house) put(id string, indices ...int) {
	h.t.Helper()
	for _, i := range indices {
		data, err := proto.Marshal(&logpb.LogEntry{
			StreamIndex: uint64(i), PrefixIndex: uint64(i), Sequence: uint64(i), TimeOffset: durationpb.New(time.Duration(i)),
			Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: fmt.Appendf(nil, "line %d", i), Delimiter: "\n"}}}},
		})
		if err != nil {
			h.t.Fatal(err)
		}
		h.putRaw(id, i, data)
	}
}

func (h *house) putRaw(id string, index int, data []byte) {
	h.t.Helper()
	r := storage.PutRequest{Stream: nameOf(id), Index: types.MessageIndex(index), Values: [][]byte{data}}
	if err := h.storage.Put(context.Background(), r); err != nil {
		h.t.Fatalf("Put: %v", err)
	}
}

// rows counts the stream's entries in storage.
func (h *house) rows(id string) int {
	h.t.Helper()
	n, next, more := 0, types.MessageIndex(0), true
	for more { // a Get may stop early
		more = false
		err := h.storage.Get(context.Background(), storage.GetRequest{Stream: nameOf(id), Index: next, KeysOnly: true}, func(e storage.Entry) bool {
			n, next, more = n+1, e.Index+1, true
			return true
		})
		if err != nil {
			h.t.Fatalf("Get: %v", err)
		}
	}
	return n
}

func (h *house) report(id string) *logdog.ArchiveStreamRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id].archived
}

func (h *house) pendingTasks() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tasks)
}

func (h *house) check(method string, request proto.Message) error {
	h.mu.Lock()
	f := h.before
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(method, request)
}

func (h *house) setBefore(f func(method string, request proto.Message) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *house) LeaseArchiveTasks(ctx context.Context, r *logdog.LeaseRequest, _ ...grpc.CallOption) (*logdog.LeaseResponse, error) {
	if err := h.check("lease", r); err != nil {
		return nil, err
	}
	wait := time.NewTimer(r.GetWait().AsDuration())
	defer wait.Stop()
	for {
		resp := new(logdog.LeaseResponse)
		h.mu.Lock()
		now := time.Now()
		next := now.Add(time.Hour)
		for _, t := range h.tasks {
			if t.due.After(now) || int64(len(resp.Tasks)) == r.GetMaxTasks() {
				if t.due.Before(next) {
					next = t.due
				}
				continue
			}
			t.due = now.Add(r.GetLeaseTime().AsDuration())
			resp.Tasks = append(resp.Tasks, proto.CloneOf(t.task))
			t.task.RetryCount++
		}
		h.mu.Unlock()
		if len(resp.Tasks) > 0 {
			return resp, nil
		}
		due := time.NewTimer(next.Sub(now))
		select {
		case <-h.changed:
		case <-due.C:
		case <-wait.C:
			due.Stop()
			return resp, nil
		case <-ctx.Done():
			due.Stop()
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		due.Stop()
	}
}

func (h *house) DeleteArchiveTasks(_ context.Context, r *logdog.DeleteRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	if err := h.check("delete", r); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range r.GetTasks() {
		i := slices.IndexFunc(h.tasks, func(f *fakeTask) bool { return f.task.GetTaskName() == t.GetTaskName() })
		switch after := t.GetRetryAfter().AsDuration(); {
		case i < 0:
		case after > 0:
			h.tasks[i].due = time.Now().Add(after)
			h.handed = append(h.handed, after)
			h.reasons = append(h.reasons, t.GetRetryReason())
		default:
			h.tasks = slices.Delete(h.tasks, i, i+1)
		}
	}
	h.wake()
	return new(emptypb.Empty), nil
}

func (h *house) LoadStream(_ context.Context, r *logdog.LoadStreamRequest, _ ...grpc.CallOption) (*logdog.LoadStreamResponse, error) {
	if err := h.check("load", r); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[r.GetId()]
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such stream")
	}
	resp := &logdog.LoadStreamResponse{State: proto.CloneOf(s.state), StreamUrl: s.archived.GetStreamUrl(), IndexUrl: s.archived.GetIndexUrl()}
	if r.GetDesc() {
		resp.Desc = s.desc
	}
	resp.Replaced = s.replaced
	resp.EndUnknown = s.state.GetArchived() && s.ended.IsZero()
	if !s.reopened.IsZero() {
		resp.Age = durationpb.New(time.Since(s.reopened))
	}
	if !s.ended.IsZero() {
		resp.TerminatedAge = durationpb.New(time.Since(s.ended))
	}
	return resp, nil
}

func (h *house) ArchiveStream(_ context.Context, r *logdog.ArchiveStreamRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	if err := h.check("archive", r); err != nil {
		return nil, err
	}
	h.mu.Lock()
	s := h.streams[r.GetId()]
	stale := !s.state.Archived && r.GetReplacesUrl() != s.archived.GetStreamUrl()
	h.mu.Unlock()
	if stale {
		return nil, status.Error(codes.FailedPrecondition, "the stream has another archive")
	}
	h.record(r)
	h.mu.Lock()
	after := h.after
	h.mu.Unlock()
	if after != nil {
		return nil, after()
	}
	return new(emptypb.Empty), nil
}

// record is what ArchiveStream does.
func (h *house) record(r *logdog.ArchiveStreamRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[r.GetId()]
	s.reports++
	if !s.state.Archived {
		if s.archived != nil {
			s.replaced = append(s.replaced, &logdog.ArchiveObjects{StreamUrl: s.archived.GetStreamUrl(), IndexUrl: s.archived.GetIndexUrl()})
		}
		s.state.Archived, s.archived = true, proto.CloneOf(r)
		s.state.TerminalIndex = r.GetTerminalIndex()
	}
}

// RegisterStream reopens an archived stream.
func (h *house) RegisterStream(_ context.Context, r *logdog.RegisterStreamRequest, _ ...grpc.CallOption) (*logdog.RegisterStreamResponse, error) {
	if err := h.check("register", r); err != nil {
		return nil, err
	}
	desc := new(logpb.LogStreamDescriptor)
	if err := proto.Unmarshal(r.GetDesc(), desc); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	h.mu.Lock()
	id := desc.GetName()
	s := h.streams[id]
	s.state.Archived, s.reopened = false, time.Now()
	if s.ended.IsZero() {
		s.state.TerminalIndex = -1
	}
	h.tasks = slices.DeleteFunc(h.tasks, func(t *fakeTask) bool { return t.task.GetId() == id })
	h.mu.Unlock()
	h.enqueue(id)
	return &logdog.RegisterStreamResponse{Id: id, State: proto.CloneOf(s.state)}, nil
}
