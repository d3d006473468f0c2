package collector

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
	"github.com/daybook-dev/daybook/storage/postgres"
)

// house is a real broker, in this process.
type house struct {
	broker *broker.Broker
	pb.RoutedJournalClient
}

func newHouse(t testing.TB) *house {
	t.Helper()
	log, err := disklog.Open(t.Context(), t.TempDir(), disklog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(t.Context(), broker.Config{
		Engine: log, ID: &pb.ProcessSpec_ID{Zone: "local", Suffix: "test"}, Endpoint: "http://127.0.0.1:1", Scratch: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterJournalServer(server, b)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///journals", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		served.Wait()
		_ = b.Close(context.Background())
		_ = log.Close(context.Background())
	})
	return &house{b, pb.NewRoutedJournalClient(pb.NewJournalClient(conn), pb.NoopDispatchRouter{})}
}

// partition is the name of an ingest journal.
func ingestJournal(k int) pb.Journal { return pb.Journal(fmt.Sprintf("daybook/ingest/%03d", k)) }

func (h *house) create(t testing.TB, name pb.Journal, labels ...string) {
	t.Helper()
	spec := &pb.JournalSpec{
		Name: string(name), Replication: 1, Labels: pb.MustLabelSet(labels...),
		Fragment: &pb.JournalSpec_Fragment{Length: 1 << 20, CompressionCodec: pb.CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Hour)},
	}
	_, err := client.ApplyJournals(t.Context(), h, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Upsert: spec}}})
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) createPartitions(t testing.TB, n int) {
	t.Helper()
	for k := range n {
		h.create(t, ingestJournal(k), ingest.Label, "test")
	}
}

func (h *house) remove(t testing.TB, name pb.Journal) {
	t.Helper()
	_, err := client.ApplyJournals(t.Context(), h, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Delete: string(name), ExpectModRevision: -1}}})
	if err != nil {
		t.Fatal(err)
	}
}

// append appends a record of each message and returns the new head.
func (h *house) append(t testing.TB, journal pb.Journal, msgs ...[]byte) int64 {
	t.Helper()
	var b []byte
	for _, msg := range msgs {
		var err error
		if b, err = ingest.AppendHeader(b, len(msg)); err != nil {
			t.Fatal(err)
		}
		b = append(b, msg...)
	}
	a := client.NewAppender(t.Context(), h, &pb.AppendRequest{Journal: string(journal)})
	if _, err := a.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return a.Response.GetCommit().GetEnd()
}

// grouped is a Group that runs.
type grouped struct {
	*Group
	stop func()
}

func group(t *testing.T, f *fixture, cfg GroupConfig) *grouped {
	t.Helper()
	cfg.Collector = f.Collector
	g := &grouped{Group: NewGroup(cfg)}
	g.share = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

func (g *grouped) waits(t *testing.T, journal pb.Journal, offset int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := g.WaitFor(ctx, journal, offset); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until the members of groups satisfy a condition.
func eventually(t *testing.T, what string, groups []*grouped, ok func(counts []int) bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		var counts []int
		wake := make(chan struct{}, len(groups))
		ctx, cancel := context.WithCancel(t.Context())
		for _, g := range groups {
			g.mu.Lock()
			changed := g.changed
			counts = append(counts, len(g.members))
			g.mu.Unlock()
			go func() {
				select {
				case <-changed:
					wake <- struct{}{}
				case <-ctx.Done():
				}
			}()
		}
		if ok(counts) {
			cancel()
			return
		}
		select {
		case <-wake:
			cancel()
		case <-deadline:
			cancel()
			t.Fatalf("%s: the journals are shared out as %v", what, counts)
		}
	}
}

func TestGroupCollectsAllPartitions(t *testing.T) {
	h, f := newHouse(t), setUp(t)
	h.createPartitions(t, 2)
	h.create(t, "daybook/other", "other.dev/label", "x")
	durable := make(chan pb.Journal, 100)
	g := group(t, f, GroupConfig{Journals: h, Durable: func(journal pb.Journal, _ int64) { durable <- journal }})
	for k := range 2 {
		g.waits(t, ingestJournal(k), h.append(t, ingestJournal(k), message(t, bundleOf(entry(fmt.Sprint("s", k), 0)))))
		wants(t, f.store, fmt.Sprint("s", k), 0)
	}

	// One more is found; what was in it, and what comes.
	h.create(t, ingestJournal(2), ingest.Label, "")
	g.waits(t, ingestJournal(2), h.append(t, ingestJournal(2), message(t, bundleOf(entry("s2", 0)))))
	g.waits(t, ingestJournal(2), h.append(t, ingestJournal(2), message(t, bundleOf(entry("s2", 1)))))
	wants(t, f.store, "s2", 0, 1)
	if err := g.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	seen := make(map[pb.Journal]bool)
	for len(seen) < 3 {
		select {
		case j := <-durable:
			seen[j] = true
		case <-time.After(2 * time.Minute):
			t.Fatalf("durable: %v", seen)
		}
	}

	// One that is deleted is let go of; one of the same name is another one, and read from its beginning.
	h.remove(t, ingestJournal(0))
	eventually(t, "after a deletion", []*grouped{g}, func(n []int) bool { return n[0] == 2 })
	h.create(t, ingestJournal(0), ingest.Label, "again")
	g.waits(t, ingestJournal(0), h.append(t, ingestJournal(0), message(t, bundleOf(entry("again", 0, 1, 2)))))
	wants(t, f.store, "again", 0, 1, 2)
	if err := g.Err(); err != nil {
		t.Error(err)
	}

	// One whose label is taken away, too.
	h.create(t, ingestJournal(5), ingest.Label, "")
	eventually(t, "with one more", []*grouped{g}, func(n []int) bool { return n[0] == 4 })
	h.relabel(t, ingestJournal(5))
	eventually(t, "without the label", []*grouped{g}, func(n []int) bool { return n[0] == 3 })
}

func (h *house) relabel(t testing.TB, name pb.Journal) {
	t.Helper()
	list, err := client.ListAllJournals(t.Context(), h, &pb.ListRequest{Selector: &pb.LabelSelector{Include: pb.MustLabelSet("name", string(name))}})
	if err != nil || len(list.GetJournals()) != 1 {
		t.Fatal(list, err)
	}
	j := list.GetJournals()[0]
	j.Spec.Labels = pb.MustLabelSet("not", "any-more")
	_, err = client.ApplyJournals(t.Context(), h, &pb.ApplyRequest{Changes: []*pb.ApplyRequest_Change{{Upsert: j.GetSpec(), ExpectModRevision: j.GetModRevision()}}})
	if err != nil {
		t.Fatal(err)
	}
}

// A journal that lost its end, or took the place of another, holds up no other. It is collected from its begin, before it reaches the position
// that the storage has: what lies below would be skipped.
func TestGroupCollectsAJournalThatWasSetBack(t *testing.T) {
	h, f := newHouse(t), setUp(t)
	h.createPartitions(t, 2)
	list, err := client.ListAllJournals(t.Context(), h, ingestJournals())
	if err != nil {
		t.Fatal(err)
	}
	batch := f.store.NewBatch()
	batch.SetCheckpoint(fmt.Sprintf("%s@%d", ingestJournal(0), list.GetJournals()[0].GetCreateRevision()), 1<<40)
	if err := batch.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	head := h.append(t, ingestJournal(0), message(t, bundleOf(entry("a", 0))))
	g := group(t, f, GroupConfig{Journals: h})
	g.waits(t, ingestJournal(1), h.append(t, ingestJournal(1), message(t, bundleOf(entry("b", 0)))))
	wants(t, f.store, "b", 0)
	g.waits(t, ingestJournal(0), head)
	wants(t, f.store, "a", 0)
	if err := g.Err(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(f.log.String(), "what it lost is missing") {
		t.Errorf("the loss was not logged:\n%s", f.log)
	}
}

// A storage that takes nothing is told of for as long as that is so.
func TestGroupTellsWhatFails(t *testing.T) {
	h, f := newHouse(t), setUp(t)
	h.createPartitions(t, 1)
	running := make(chan *grouped, 1)
	var tries int
	var told error
	f.Storage = &failingCommits{f.store, func() error {
		switch tries++; tries {
		case 1:
			return fault.New(fault.Transient, "away")
		case 2:
			told = (<-running).Err()
		}
		return nil
	}}
	head := h.append(t, ingestJournal(0), message(t, bundleOf(entry("a", 0))))
	g := group(t, f, GroupConfig{Journals: h})
	running <- g
	g.waits(t, ingestJournal(0), head)
	if told == nil || !strings.Contains(told.Error(), "disk is full") {
		t.Errorf("while nothing was stored: %v", told)
	}
	if err := g.Err(); err != nil {
		t.Errorf("when all is stored: %v", err)
	}
}

// failingCommits is a storage whose batches may fail.
type failingCommits struct {
	*memory.Storage
	fail func() error
}

func (f *failingCommits) NewBatch() storage.Batch { return &flakyBatch{f.Storage.NewBatch(), f.fail} }

// fakeLeases keeps leases that do not end by themselves. It can be away, and say yes to everybody.
type fakeLeases struct {
	daybookv1.LeasesClient
	mu       sync.Mutex
	held     map[string]string
	away     atomic.Bool
	careless bool
}

func (f *fakeLeases) AcquireLease(_ context.Context, r *daybookv1.AcquireLeaseRequest, _ ...grpc.CallOption) (*daybookv1.AcquireLeaseResponse, error) {
	if f.away.Load() {
		return nil, fault.New(fault.Transient, "away")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == nil {
		f.held = make(map[string]string)
	}
	if holder := f.held[r.GetName()]; holder != "" && holder != r.GetHolder() && !f.careless {
		return &daybookv1.AcquireLeaseResponse{}, nil
	}
	f.held[r.GetName()] = r.GetHolder()
	return &daybookv1.AcquireLeaseResponse{Acquired: true}, nil
}

func (f *fakeLeases) ReleaseLease(_ context.Context, r *daybookv1.ReleaseLeaseRequest, _ ...grpc.CallOption) (*daybookv1.ReleaseLeaseResponse, error) {
	if f.away.Load() {
		return nil, fault.New(fault.Transient, "away")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[r.GetName()] == r.GetHolder() {
		delete(f.held, r.GetName())
	}
	return &daybookv1.ReleaseLeaseResponse{}, nil
}

func (f *fakeLeases) ListLeases(_ context.Context, r *daybookv1.ListLeasesRequest, _ ...grpc.CallOption) (*daybookv1.ListLeasesResponse, error) {
	if f.away.Load() {
		return nil, fault.New(fault.Transient, "away")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := new(daybookv1.ListLeasesResponse)
	for name, holder := range f.held {
		if strings.HasPrefix(name, r.GetPrefix()) && !f.careless {
			resp.Leases = append(resp.Leases, &daybookv1.Lease{Name: name, Holder: holder})
		}
	}
	return resp, nil
}

func TestGroupsShareTheJournals(t *testing.T) {
	h, f := newHouse(t), setUp(t)
	h.createPartitions(t, 7)
	leases := new(fakeLeases)
	a := group(t, f, GroupConfig{Journals: h, Leases: leases, Name: "a"})
	eventually(t, "one process", []*grouped{a}, func(n []int) bool { return n[0] == 7 })
	b := group(t, f, GroupConfig{Journals: h, Leases: leases, Name: "b"})
	c := group(t, f, GroupConfig{Journals: h, Leases: leases}) // of any name
	three := []*grouped{a, b, c}
	even := func(n []int) bool {
		sum := 0
		for _, k := range n {
			sum += k
		}
		return sum == 7 && min(n[0], n[1], n[2]) == 2
	}
	eventually(t, "three processes", three, even)

	// Everything is collected, by one or the other.
	for k := range 7 {
		head := h.append(t, ingestJournal(k), message(t, bundleOf(entry(fmt.Sprint("s", k), 0))))
		var owner *grouped
		for _, g := range three {
			if consumer, _ := g.consumerOf(ingestJournal(k)); consumer != nil {
				owner = g
			}
		}
		if owner == nil {
			t.Fatalf("nobody collects %s", ingestJournal(k))
		}
		owner.waits(t, ingestJournal(k), head)
		wants(t, f.store, fmt.Sprint("s", k), 0)
	}

	// When the leases are away, the work goes on.
	leases.away.Store(true)
	for _, g := range three {
		for _, p := range g.running() {
			g.waits(t, p.journal, h.append(t, p.journal, message(t, bundleOf(entry("away-"+string(p.journal)[15:], 0)))))
		}
	}
	leases.away.Store(false)

	// One that ends gives its share away.
	b.stop()
	eventually(t, "two processes", []*grouped{a, c}, func(n []int) bool { return n[0]+n[1] == 7 && min(n[0], n[1]) == 3 })
	// One that dies does so when its leases end.
	leases.away.Store(true)
	c.stop()
	leases.away.Store(false)
	leases.mu.Lock()
	for name, holder := range leases.held {
		if holder != "a" {
			delete(leases.held, name)
		}
	}
	leases.mu.Unlock()
	eventually(t, "one process again", []*grouped{a}, func(n []int) bool { return n[0] == 7 })
}

// TestTwoCollectorsOfOneJournal lets two processes, which both believe that all journals are theirs, collect into one storage.
func TestTwoCollectorsOfOneJournal(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		store := memory.New()
		collectTwice(t, store, store)
	})
	t.Run("postgres", func(t *testing.T) {
		database := testkit.Database(t)
		var stores []storage.Storage
		for range 2 { // as in two processes
			s, err := postgres.Open(t.Context(), database, postgres.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			stores = append(stores, s)
		}
		collectTwice(t, stores[0], stores[1])
	})
}

func collectTwice(t *testing.T, one, two storage.Storage) {
	h, f := newHouse(t), setUp(t)
	h.createPartitions(t, 2)
	f.Storage = one
	other := &Collector{Coordinator: f.coord, Storage: two, Logger: f.Logger} // with a cache of its own
	t.Cleanup(other.Close)
	leases := &fakeLeases{careless: true}
	a := group(t, f, GroupConfig{Journals: h, Leases: leases})
	b := group(t, &fixture{Collector: other}, GroupConfig{Journals: h, Leases: leases})
	const streams, bundles, each = 6, 40, 3
	var wg sync.WaitGroup
	heads := make([]atomic.Int64, 2)
	for s := range streams {
		wg.Go(func() {
			name := fmt.Sprint("s", s)
			for i := range bundles {
				e := entry(name, indices(i*each, each)...)
				if i == bundles-1 {
					ends(e, bundles*each-1)
				}
				head := h.append(t, ingestJournal(s%2), message(t, bundleOf(e)))
				for old := heads[s%2].Load(); old < head && !heads[s%2].CompareAndSwap(old, head); old = heads[s%2].Load() {
				}
			}
		})
	}
	wg.Wait()
	for k := range 2 {
		a.waits(t, ingestJournal(k), heads[k].Load())
		b.waits(t, ingestJournal(k), heads[k].Load())
	}
	for s := range streams {
		wants(t, one, fmt.Sprint("s", s), indices(0, bundles*each)...)
		if end := f.coord.ends()[path(fmt.Sprint("s", s))]; end != bundles*each-1 {
			t.Errorf("stream %d ends at %d", s, end)
		}
	}
}

// A Collector that was left behind does not take the position back, and does not take what another one has done for lost.
func TestConsumerBehindAnother(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	head := j.append(t, message(t, bundleOf(entry("a", 0))), message(t, bundleOf(entry("a", 1))))
	release, reached := make(chan struct{}), make(chan struct{}, 1)
	f.Storage = &blocked{Storage: f.store, until: release, reached: reached}
	c := consumeWith(t, f, j, nil)
	<-reached
	ahead := f.store.NewBatch()
	ahead.SetCheckpoint(testJournal, head+500)
	if err := ahead.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(release)
	c.waitFor(t, head)
	if at, err := f.store.Checkpoint(t.Context(), testJournal); err != nil || at != head+500 {
		t.Errorf("checkpoint %d, %v; want that of the other, %d", at, err, head+500)
	}
	// The other has trimmed the journal up to there.
	j.mu.Lock()
	j.content = append(j.content, make([]byte, 500)...)
	j.begin = head + 500
	j.mu.Unlock()
	c.waitFor(t, j.append(t, message(t, bundleOf(entry("a", 2)))))
	if strings.Contains(f.log.String(), "deleted") {
		t.Errorf("what another Collector has done is taken for lost:\n%s", f.log)
	}
}

// blocked is a storage whose batches wait.
type blocked struct {
	storage.Storage
	until   <-chan struct{}
	reached chan struct{} // receives when one does, if there is room
}

func (b *blocked) NewBatch() storage.Batch { return &blockedBatch{b.Storage.NewBatch(), b} }

type blockedBatch struct {
	storage.Batch
	blocked *blocked
}

func (b *blockedBatch) Commit(ctx context.Context) error {
	select {
	case b.blocked.reached <- struct{}{}:
	default:
	}
	select {
	case <-b.blocked.until:
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.Batch.Commit(ctx)
}

// TestBackPressure makes storage slower than input: the journal grows, and not the memory.
func TestBackPressure(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	const size, n = 1 << 20, 64
	var head int64
	for i := range uint64(n) {
		b := bundleOf(entry("a", i))
		b.Entries[0].Logs[0].GetText().Lines[0].Value = make([]byte, size)
		msg, err := envelopeNone(b)
		if err != nil {
			t.Fatal(err)
		}
		head = j.append(t, msg)
	}
	release := make(chan struct{})
	f.Storage = &blocked{Storage: f.store, until: release}
	c := consumeWith(t, f, j, nil)
	// Until there is no room for another message.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for c.held.Load() < maxInFlight-size-1000 {
		if ctx.Err() != nil {
			t.Fatalf("%d bytes are in flight", c.held.Load())
		}
		runtime.Gosched()
	}
	if held := c.held.Load(); held > maxInFlight {
		t.Errorf("%d bytes are in flight, more than %d", held, maxInFlight)
	}
	// What was sent on the way, and is read when there is room: a message, and what the connection holds.
	if sent := j.sent.Load(); sent > maxInFlight+16*size {
		t.Errorf("%d bytes were taken from the journal", sent)
	}
	close(release)
	c.waitFor(t, head)
	if got := len(stored(t, f.store, path("a"))); got < n*size {
		t.Errorf("%d bytes are stored", got)
	}
	if held := c.held.Load(); held != 0 {
		t.Errorf("%d bytes are still in flight", held)
	}
}
