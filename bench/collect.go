package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/butler/output/null"
	"github.com/daybook-dev/daybook/collector"
	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
	"github.com/daybook-dev/daybook/storage/pebble"
	"github.com/daybook-dev/daybook/storage/postgres"
)

const (
	// collectStreams share the text that is collected.
	collectStreams = 4
	collectBytes   = 256 << 20
	collectProject = "bench"
	collectPrefix  = "collect"
)

// messages are what a Butler sends of its streams.
type messages struct {
	null.Output
	writer envelope.Writer

	mu      sync.Mutex
	msgs    [][]byte
	entries int64
	err     error
}

func (m *messages) SendBundle(b *logpb.ButlerLogBundle) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b.Project, b.Prefix, b.Secret = collectProject, collectPrefix, make([]byte, types.PrefixSecretLength)
	msg, err := m.writer.Append(nil, b)
	if err != nil {
		m.err = err
		return err
	}
	m.msgs = append(m.msgs, msg)
	for _, e := range b.GetEntries() {
		m.entries += int64(len(e.GetLogs()))
	}
	return nil
}

// MaxSize is that of bundles for servers.
func (m *messages) MaxSize() int { return daybook.DefaultMaxSize }

// messagesOf lets a Butler bundle so many bytes of lines of 80 bytes.
func messagesOf(r *run, c logpb.ButlerMetadata_Compression, bytes int64) *messages {
	m := &messages{writer: envelope.Writer{Compression: c}}
	b, err := butler.New(r.Context(), butler.Config{Output: m, BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
	if err != nil {
		r.Fatalf("%v", err)
	}
	data := linesOf80(4 << 20)
	for _, name := range streamNames() {
		left := bytes / collectStreams / int64(len(data)) * int64(len(data))
		if err := b.AddStream(&source{data: data, left: left, read: 64 << 10}, descriptor(string(name), logpb.StreamType_TEXT)); err != nil {
			r.Fatalf("%v", err)
		}
	}
	b.Activate()
	if err := b.Wait(); err != nil || m.err != nil {
		r.Fatalf("%v, %v", err, m.err)
	}
	return m
}

func streamNames() []types.StreamName { return []types.StreamName{"a", "b", "c", "d"} }

// quickCoordinator registers everything at once, so that the Collector alone is measured.
type quickCoordinator struct{}

func (quickCoordinator) RegisterStream(_ context.Context, s *coordinator.LogStreamState, _ []byte) (*coordinator.LogStreamState, error) {
	out := *s
	out.ID = string(s.Path.ID())
	return &out, nil
}

func (quickCoordinator) TerminateStream(context.Context, *coordinator.TerminateRequest) error {
	return nil
}

func memoryEntries(*run) (storage.Storage, error) { return memory.New(), nil }

func pebbleEntries(r *run) (storage.Storage, error) {
	return pebble.Open(filepath.Join(r.TempDir(), "entries"), pebble.Options{})
}

func postgresEntries(r *run) (storage.Storage, error) {
	return postgres.Open(r.Context(), testkit.NewPostgres(r).Database(r), postgres.Options{})
}

// measureCollect measures Process, called by as many as there are CPUs, until everything is on stable storage.
func measureCollect(r *run, open func(*run) (storage.Storage, error), c logpb.ButlerMetadata_Compression) {
	m := messagesOf(r, c, collectBytes)
	store, err := open(r)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer func() { _ = store.Close() }() // what was measured is measured
	col := &collector.Collector{Coordinator: quickCoordinator{}, Storage: store}
	defer col.Close()

	cpu := -cpuSeconds(r, os.Getpid())
	start := time.Now()
	var next atomic.Int64
	var failure atomic.Pointer[error]
	var callers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		callers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(m.msgs)); i = next.Add(1) - 1 {
				if err := col.Process(r.Context(), m.msgs[i]); err != nil {
					failure.Store(&err)
				}
			}
		})
	}
	callers.Wait()
	if err := failure.Load(); err != nil {
		r.Fatalf("process: %v", *err)
	}
	if err := store.Sync(r.Context()); err != nil {
		r.Fatalf("%v", err)
	}
	took := time.Since(start).Seconds()
	cpu += cpuSeconds(r, os.Getpid())

	text := checkCollected(r, store, m.entries)
	r.report("text", bytesPerSecond, float64(text)/took)
	r.report("bundles", perSecond, float64(len(m.msgs))/took)
	r.report("entries", perSecond, float64(m.entries)/took)
	r.report("CPU of the Collector a GB", seconds, cpu/float64(text)*1e9)
}

// measureCollectJournal measures the way that messages take in a server: from a journal with a backlog, through a broker in this process,
// until everything is on stable storage.
func measureCollectJournal(r *run, open func(*run) (storage.Storage, error), c logpb.ButlerMetadata_Compression) {
	m := messagesOf(r, c, collectBytes)
	journals := brokerOf(r)
	a := client.NewAppender(r.Context(), journals, &protocol.AppendRequest{Journal: ingest.DefaultJournal})
	for _, msg := range m.msgs {
		head, err := ingest.AppendHeader(nil, len(msg))
		if err == nil {
			_, err = a.Write(append(head, msg...))
		}
		if err != nil {
			r.Fatalf("append: %v", err)
		}
	}
	if err := a.Close(); err != nil {
		r.Fatalf("append: %v", err)
	}
	store, err := open(r)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer func() { _ = store.Close() }() // what was measured is measured
	col := &collector.Collector{Coordinator: quickCoordinator{}, Storage: store}
	defer col.Close()
	group := collector.NewGroup(collector.GroupConfig{Collector: col, Journals: journals})
	ctx, stop := context.WithCancel(r.Context())
	ended := make(chan error, 1)

	cpu := -cpuSeconds(r, os.Getpid())
	start := time.Now()
	go func() { ended <- group.Run(ctx) }()
	err = group.Drain(r.Context())
	if err == nil {
		err = store.Sync(r.Context())
	}
	took := time.Since(start).Seconds()
	cpu += cpuSeconds(r, os.Getpid())
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		r.Fatalf("collect: %v", err)
	}
	text := checkCollected(r, store, m.entries)
	r.report("text", bytesPerSecond, float64(text)/took)
	r.report("CPU of both a GB", seconds, cpu/float64(text)*1e9)
}

// brokerOf returns a broker in this process, with the ingest journal.
func brokerOf(r *run) protocol.RoutedJournalClient {
	log, err := disklog.Open(r.Context(), filepath.Join(r.TempDir(), "journal"), disklog.Options{})
	if err != nil {
		r.Fatalf("%v", err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatalf("%v", err)
	}
	address := protocol.Endpoint("http://" + lis.Addr().String())
	b, err := broker.New(r.Context(), broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "bench"}, Endpoint: address, Scratch: r.TempDir(),
	})
	if err != nil {
		r.Fatalf("%v", err)
	}
	server := grpc.NewServer()
	protocol.RegisterJournalServer(server, b)
	go func() { _ = server.Serve(lis) }() // until Stop
	conn, err := client.Dial(address, client.DialConfig{})
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		_ = b.Close(context.Background())
		_ = log.Close(context.Background())
	})
	j := journals{r: r, RoutedJournalClient: conn}
	spec := specOf(0)
	spec.Name, spec.Labels = ingest.DefaultJournal, protocol.MustLabelSet(ingest.Label, "")
	j.create(spec)
	return conn
}

// checkCollected counts the bytes of text that are stored, and fails unless every entry is there.
func checkCollected(r *run, store storage.Storage, want int64) (text int64) {
	var entries int64
	for _, name := range streamNames() {
		stream := storage.Stream{Project: collectProject, Path: types.StreamName(collectPrefix).Join(name)}
		for next, more := types.MessageIndex(0), true; more; {
			more = false
			err := store.Get(r.Context(), storage.GetRequest{Stream: stream, Index: next}, func(e storage.Entry) bool {
				log := new(logpb.LogEntry)
				if err := proto.Unmarshal(e.Data, log); err != nil || e.Index != next {
					r.Logf("entry %d of %s, where %d should be: %v", e.Index, stream, next, err)
					return false
				}
				for _, l := range log.GetText().GetLines() {
					text += int64(len(l.GetValue()) + len(l.GetDelimiter()))
				}
				entries++
				next, more = e.Index+1, true
				return true
			})
			if err != nil {
				r.Fatalf("%v", err)
			}
		}
	}
	if entries != want {
		r.Fatalf("%d entries are stored; want %d", entries, want)
	}
	return text
}
