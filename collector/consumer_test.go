package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// consumed is a fixture with a journal and a Consumer of it that runs.
type consumed struct {
	*fixture
	*Consumer
	journal *fakeJournal
	stop    func() error // stops the Consumer and returns what Run returned
}

func consume(t *testing.T) *consumed {
	return consumeWith(t, setUp(t), new(fakeJournal), nil)
}

func consumeWith(t *testing.T, f *fixture, j *fakeJournal, durable func(int64)) *consumed {
	t.Helper()
	c := &consumed{fixture: f, journal: j}
	c.Consumer = NewConsumer(ConsumerConfig{Collector: f.Collector, Journals: j.client(t), Journal: testJournal, Durable: durable})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- c.Run(ctx) }()
	c.stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// waitFor waits until the Consumer is at the offset.
func (c *consumed) waitFor(t *testing.T, offset int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.WaitFor(ctx, offset); err != nil {
		t.Fatalf("%v\n%s", err, c.log)
	}
}

func TestConsumer(t *testing.T) {
	c := consume(t)
	c.waitFor(t, c.journal.append(t, message(t, bundleOf(entry("a", 0, 1)))))
	wants(t, c.store, "a", 0, 1)
	head := c.journal.append(t,
		message(t, bundleOf(entry("a", 2), entry("b", 0))),
		message(t, bundleOf(ends(entry("a", 3), 3))),
		message(t, bundleOf(ends(entry("b"), 0))),
		message(t, bundleOf(ends(entry("c", 0), 0))),
	)
	c.waitFor(t, head)
	wants(t, c.store, "a", 0, 1, 2, 3)
	wants(t, c.store, "b", 0)
	wants(t, c.store, "c", 0)
	if diff := cmp.Diff(map[types.StreamPath]types.MessageIndex{path("a"): 3, path("b"): 0, path("c"): 0}, c.coord.ends()); diff != "" {
		t.Error(diff)
	}
	if c.Position() != head || c.Lag() != 0 {
		t.Errorf("position %d and lag %d, want %d and 0", c.Position(), c.Lag(), head)
	}
	if at, err := c.store.Checkpoint(t.Context(), testJournal); err != nil || at != head {
		t.Errorf("checkpoint %d, %v; want %d", at, err, head)
	}
}

func TestConsumerGoesOnAtItsCheckpoint(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	c := consumeWith(t, f, j, nil)
	c.waitFor(t, j.append(t, message(t, bundleOf(entry("a", 0)))))
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	head := j.append(t, message(t, bundleOf(entry("a", 1))))
	// What is before the checkpoint is not read again; it may be gone.
	j.mu.Lock()
	j.begin = c.Position()
	j.mu.Unlock()
	c = consumeWith(t, f, j, nil)
	c.waitFor(t, head)
	wants(t, f.store, "a", 0, 1)
	if strings.Contains(f.log.String(), "deleted") {
		t.Error("the Consumer missed something")
	}
}

func TestConsumerLeavesBadMessagesBehind(t *testing.T) {
	c := consume(t)
	wrong := bundleOf(entry("a", 0))
	wrong.Secret = types.NewPrefixSecret()
	badProject := bundleOf(entry("a", 0))
	badProject.Project = "!"
	c.journal.append(t,
		[]byte("junk"), nil, message(t, wrong), message(t, badProject),
		message(t, bundleOf(entry("a", 1, 3), entry("b", 0))),
		message(t, bundleOf(entry("a", 5))),
	)
	c.journal.appendBytes([]byte("some foreign bytes"))
	head := c.journal.append(t, message(t, bundleOf(ends(entry("a", 6), 6))))
	c.waitFor(t, head)
	wants(t, c.store, "a", 5, 6)
	wants(t, c.store, "b", 0)
	if !strings.Contains(c.log.String(), "bytes=18") {
		t.Errorf("skipped bytes were not logged:\n%s", c.log)
	}
}

// A record that somebody cut short takes no other with it, and holds none up, whether what follows is there already or yet to come.
func TestConsumerPassesTornRecords(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	torn, err := ingest.AppendHeader(nil, ingest.MaxMessageSize)
	if err != nil {
		t.Fatal(err)
	}
	msg := message(t, bundleOf(entry("torn", indices(0, 100)...)))
	half, err := ingest.AppendHeader(nil, len(msg))
	if err != nil {
		t.Fatal(err)
	}
	half = append(half, msg[:len(msg)/2]...)
	var head int64
	many := func(from uint64) {
		for i := range uint64(100) {
			head = j.append(t, message(t, bundleOf(entry("a", from+i))))
		}
	}
	j.appendBytes(half)
	many(0)
	c := consumeWith(t, f, j, nil)
	c.waitFor(t, head)
	j.appendBytes(torn)
	many(100)
	c.waitFor(t, head)
	wants(t, f.store, "a", indices(0, 200)...)
	wants(t, f.store, "torn")
	if n := strings.Count(f.log.String(), "belong to no record"); n != 2 {
		t.Errorf("%d foreign places were logged:\n%s", n, f.log)
	}
}

func TestConsumerSurvivesTheJournal(t *testing.T) {
	f, j := setUp(t), &fakeJournal{refusals: 2, hangUps: 6}
	c := consumeWith(t, f, j, nil)
	var head int64
	for i := range uint64(100) {
		head = j.append(t, message(t, bundleOf(entry("a", i))))
	}
	c.waitFor(t, head)
	wants(t, f.store, "a", indices(0, 100)...)
}

func TestConsumerSaysWhatIsMissing(t *testing.T) {
	j := new(fakeJournal)
	j.append(t, message(t, bundleOf(entry("a", 0))))
	j.begin = int64(len(j.content))
	head := j.append(t, message(t, bundleOf(entry("a", 1))))
	c := consumeWith(t, setUp(t), j, nil)
	c.waitFor(t, head)
	wants(t, c.store, "a", 1)
	if !strings.Contains(c.log.String(), fmt.Sprintf("from=0 to=%d", j.begin)) {
		t.Errorf("what is missing was not logged:\n%s", c.log)
	}
}

// Damage costs what it hit. What lies behind it is stored, and nothing stands still.
func TestConsumerGoesPastDamage(t *testing.T) {
	j := new(fakeJournal)
	var head int64
	for i := range uint64(3000) {
		head = j.append(t, message(t, bundleOf(entry("a", i))))
	}
	j.damage = [2]int64{damageStep + 100, damageStep + 200}
	c := consumeWith(t, setUp(t), j, nil)
	c.waitFor(t, head)
	var got []uint64
	err := c.store.Get(t.Context(), storage.GetRequest{Stream: storage.Stream{Project: "proj", Path: path("a")}}, func(e storage.Entry) bool {
		got = append(got, uint64(e.Index))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := 3000 - len(got)
	if size := int(head) / 3000; lost < 1 || lost > 2*damageStep/size || got[0] != 0 || got[len(got)-1] != 2999 {
		t.Errorf("%d of 3000 entries of about %d bytes were lost; the first stored is %v, the last %v", lost, size, got[:1], got[max(0, len(got)-1):])
	}
	if !strings.Contains(c.log.String(), "is damaged") {
		t.Errorf("the damage was not logged:\n%s", c.log)
	}
}

func TestConsumerRefusesAnotherJournal(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	head := j.append(t, message(t, bundleOf(entry("a", 0))))
	batch := f.store.NewBatch()
	batch.SetCheckpoint(testJournal, head+1)
	if err := batch.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := NewConsumer(ConsumerConfig{Collector: f.Collector, Journals: j.client(t), Journal: testJournal})
	if err := c.Run(t.Context()); !fault.Is(err, fault.DataLoss) {
		t.Errorf("Run: %v", err)
	}
}

// TestConsumerSurvivesTheOthers takes the Coordinator and the storage away at every step.
func TestConsumerSurvivesTheOthers(t *testing.T) {
	f := setUp(t)
	var failures atomic.Int32
	away := func() error {
		if failures.Add(-1) >= 0 {
			return fault.New(fault.Transient, "away")
		}
		return nil
	}
	f.coord.onRegister = func(*coordinator.LogStreamState) error { return away() }
	f.coord.onTerminate = func(*coordinator.TerminateRequest) error { return away() }
	f.Storage = &flaky{Storage: f.store, fail: away}
	failures.Store(2)
	c := consumeWith(t, f, new(fakeJournal), nil)
	for i := range uint64(3) {
		failures.Store(2)
		c.waitFor(t, c.journal.append(t, message(t, bundleOf(entry("a", i)))))
	}
	failures.Store(2)
	c.waitFor(t, c.journal.append(t, message(t, bundleOf(ends(entry("a"), 2)))))
	wants(t, f.store, "a", 0, 1, 2)
	if f.coord.ends()[path("a")] != 2 {
		t.Error("the end was not reported")
	}
}

// flaky is a storage whose batches and checkpoints may fail, with an error that does not say that it is transient.
type flaky struct {
	*memory.Storage
	fail func() error
}

func (f *flaky) Checkpoint(ctx context.Context, reader string) (int64, error) {
	if f.fail() != nil {
		return 0, errors.New("disk is full")
	}
	return f.Storage.Checkpoint(ctx, reader)
}

func (f *flaky) NewBatch() storage.Batch { return &flakyBatch{f.Storage.NewBatch(), f.fail} }

type flakyBatch struct {
	storage.Batch
	fail func() error
}

func (b *flakyBatch) Commit(ctx context.Context) error {
	if b.fail() != nil {
		return errors.New("disk is full")
	}
	return b.Batch.Commit(ctx)
}

// TestConsumerNeverPassesAnEnd stops the Consumer when entries are stored, but their end has not been reported.
func TestConsumerNeverPassesAnEnd(t *testing.T) {
	f, j := setUp(t), new(fakeJournal)
	reached := make(chan struct{}, 1)
	f.coord.onTerminate = func(*coordinator.TerminateRequest) error {
		select {
		case reached <- struct{}{}:
		default:
		}
		return fault.New(fault.Transient, "away")
	}
	c := consumeWith(t, f, j, nil)
	before := j.append(t, message(t, bundleOf(entry("a", 0))))
	c.waitFor(t, before)
	j.append(t, message(t, bundleOf(ends(entry("a", 1), 1))))
	head := j.append(t, message(t, bundleOf(entry("b", 0))))
	<-reached
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	wants(t, f.store, "a", 0, 1)
	if at, err := f.store.Checkpoint(t.Context(), testJournal); err != nil || at != before {
		t.Fatalf("checkpoint %d, %v; want %d, before the end", at, err, before)
	}

	f.coord.onTerminate = nil
	c = consumeWith(t, f, j, nil)
	c.waitFor(t, head)
	wants(t, f.store, "a", 0, 1)
	wants(t, f.store, "b", 0)
	if f.coord.ends()[path("a")] != 1 {
		t.Error("the end was not reported")
	}
}

func TestConsumerDoesNotHoldUpOthers(t *testing.T) {
	f := setUp(t)
	release := make(chan struct{})
	f.coord.onRegister = func(s *coordinator.LogStreamState) error {
		if s.Path == path("slow") {
			<-release
		}
		return nil
	}
	c := consumeWith(t, f, new(fakeJournal), nil)
	c.waitFor(t, c.journal.append(t, message(t, bundleOf(entry("a", 0)))))
	// In one append: what lies before the stream that waits for its registration is stored all the same.
	var one [2][]byte
	one[0], one[1] = message(t, bundleOf(entry("a", 1))), message(t, bundleOf(entry("slow", 0)))
	changed, stop := f.store.Watch(storage.Stream{Project: "proj", Path: path("a")})
	defer stop()
	head := c.journal.append(t, one[:]...)
	<-changed
	wants(t, f.store, "a", 0, 1)
	close(release)
	c.waitFor(t, head)
	wants(t, f.store, "slow", 0)
}

func TestConsumerRegistersInParallel(t *testing.T) {
	f := setUp(t)
	const n = maxRegistrations
	var waiting sync.WaitGroup
	waiting.Add(n)
	f.coord.onRegister = func(*coordinator.LogStreamState) error {
		waiting.Done()
		waiting.Wait() // for all of them
		return nil
	}
	c := consumeWith(t, f, new(fakeJournal), nil)
	var msgs [][]byte
	for i := range n {
		msgs = append(msgs, message(t, bundleOf(ends(entry(fmt.Sprint("s", i), 0), 0))))
	}
	c.waitFor(t, c.journal.append(t, msgs...))
	if got := len(c.coord.ends()); got != n {
		t.Errorf("%d streams, want %d", got, n)
	}
}

func TestConsumerCallsDurable(t *testing.T) {
	offsets := make(chan int64, 10)
	f, j := setUp(t), new(fakeJournal)
	c := consumeWith(t, f, j, func(offset int64) { offsets <- offset })
	head := j.append(t, message(t, bundleOf(entry("a", 0))))
	c.waitFor(t, head)
	select {
	case got := <-offsets:
		if got != head {
			t.Errorf("durable up to %d, want %d", got, head)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("nothing was made durable")
	}
}

func TestConsumerWithManyProducers(t *testing.T) {
	c := consume(t)
	const streams, bundles, each = 20, 50, 3
	var wg sync.WaitGroup
	for s := range streams {
		wg.Go(func() {
			name := fmt.Sprint("s", s)
			for i := range bundles {
				e := entry(name, indices(i*each, each)...)
				if i == bundles-1 {
					ends(e, bundles*each-1)
				}
				msg := message(t, bundleOf(e))
				c.journal.append(t, msg)
				if i%7 == s%7 {
					c.journal.append(t, msg) // again
				}
			}
		})
	}
	wg.Wait()
	c.waitFor(t, c.journal.append(t))
	for s := range streams {
		wants(t, c.store, fmt.Sprint("s", s), indices(0, bundles*each)...)
	}
	for p, end := range c.coord.ends() {
		if end != bundles*each-1 {
			t.Errorf("%s ends at %d", p, end)
		}
	}
}

func TestConsumerBigMessages(t *testing.T) {
	c := consume(t)
	var head int64
	for i := range uint64(5) {
		b := bundleOf(&logpb.ButlerLogBundle_Entry{Desc: entry("big").Desc, Logs: []*logpb.LogEntry{text(i, strings.Repeat("x", 9<<20)+"\n")}})
		msg, err := (&envelope.Writer{Compression: envelope.Zstd}).Append(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		head = c.journal.append(t, msg)
	}
	c.waitFor(t, head)
	if got := stored(t, c.store, path("big")); len(got) != 5*(9<<20+1) {
		t.Errorf("%d bytes are stored", len(got))
	}
}

func TestEndings(t *testing.T) {
	e := endings{changed: make(chan struct{}, 1)}
	var parcels []*parcel
	for i := range int64(3) {
		p := &parcel{begin: 10 * i, ends: make([]*ending, 2)}
		e.add(p)
		parcels = append(parcels, p)
	}
	var got []int64
	for _, k := range []int{2, 1, 1, 0, 0, 2} {
		e.done(parcels[k])
		got = append(got, e.first(99))
	}
	if want := []int64{0, 0, 0, 0, 20, 99}; !slices.Equal(got, want) {
		t.Errorf("first ends: %v, want %v", got, want)
	}
}

func TestConsumerRunAfterClose(t *testing.T) {
	f := setUp(t)
	f.Close()
	c := NewConsumer(ConsumerConfig{Collector: f.Collector, Journals: new(fakeJournal).client(t), Journal: testJournal})
	if err := c.Run(t.Context()); err == nil {
		t.Error("a closed Collector was used")
	}
}

func TestWaitForEnds(t *testing.T) {
	c := consume(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WaitFor(ctx, 1); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 bytes are left") {
		t.Errorf("WaitFor: %v", err)
	}
}
