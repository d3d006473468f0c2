package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxGroupInFlight bounds the bytes of messages that a Group has read and not stored yet, of all journals.
	maxGroupInFlight = 64 << 20
	// A journal that cannot be collected is tried again after so long.
	firstPause, longestPause = time.Second, time.Minute
)

// GroupConfig says what a Group reads. Collector and Journals are required.
type GroupConfig struct {
	Collector *Collector
	Journals  pb.RoutedJournalClient
	// Leases shares the journals out among the processes that collect them into one storage. nil collects them all: for a process
	// that has its storage to itself.
	Leases daybookv1.LeasesClient
	// Name tells this process from the others; empty is a random one.
	Name string
	// Durable, if not nil, is called each time when everything of a journal below an offset has got onto stable storage: the journal
	// may be trimmed up to there. For each journal it is called by one goroutine, with growing offsets.
	Durable func(journal pb.Journal, offset int64)
}

// Group feeds a Collector with the messages of all journals that are labelled as ingest journals, each through a Consumer of its own.
// Journals that are created are found, and those that are deleted are let go of, while it runs. One that fails is logged and tried
// again, and holds up no other.
//
// Any number of processes may run a Group. With Leases, each has its share of the journals, and the share of one that ends is taken over
// by the others. Leases only save work: journals that two processes read for a while give the same entries and ends.
type Group struct {
	cfg      GroupConfig
	inFlight *semaphore.Weighted
	share    time.Duration // how often the journals are shared out anew

	mu      sync.Mutex
	members map[partition]*member
	changed chan struct{} // closed and replaced when members change
	// silent is until when a failing operation is not logged again.
	silent time.Time
}

// partition is an ingest journal. One that is deleted and created again is another one.
type partition struct {
	journal pb.Journal
	created int64
}

func comparePartitions(a, b partition) int {
	return cmp.Or(cmp.Compare(a.journal, b.journal), cmp.Compare(a.created, b.created))
}

// member collects a partition, with one Consumer after the other if they fail.
type member struct {
	cancel   context.CancelFunc
	done     chan struct{}
	consumer *Consumer // the current one, guarded by the Group's lock
	err      error     // why the last one failed, as long as no other runs; guarded likewise
}

// NewGroup returns a Group that does nothing yet.
func NewGroup(cfg GroupConfig) *Group {
	cfg.Collector.init()
	return &Group{
		cfg:      cfg,
		inFlight: semaphore.NewWeighted(maxGroupInFlight),
		share:    shareInterval,
		members:  make(map[partition]*member),
		changed:  make(chan struct{}),
	}
}

// ingestJournals selects what a Group reads.
func ingestJournals() *pb.ListRequest {
	return &pb.ListRequest{Selector: &pb.LabelSelector{Include: pb.MustLabelSet(ingest.Label, "")}}
}

// partitionsOf returns the journals of a listing that can be read, in the order of their names.
func partitionsOf(list *pb.ListResponse) []partition {
	var out []partition
	for _, j := range list.GetJournals() {
		if j.GetSpec().GetSuspend().GetLevel() == pb.JournalSpec_Suspend_FULL {
			continue // It is empty, until somebody appends to it and the list changes.
		}
		out = append(out, partition{pb.Journal(j.GetSpec().GetName()), j.GetCreateRevision()})
	}
	slices.SortFunc(out, comparePartitions)
	return out
}

// Run collects until ctx ends, which is no error. It may be called once.
func (g *Group) Run(ctx context.Context) error {
	if err := g.cfg.Collector.begin(); err != nil {
		return err
	}
	defer g.cfg.Collector.calls.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := client.NewWatchedList(ctx, g.cfg.Journals, ingestJournals(), nil)
	defer func() { <-list.Done() }()
	defer cancel()
	defer g.stopAll()

	var shares *shares
	var tick <-chan time.Time
	if g.cfg.Leases != nil {
		shares = newShares(g.cfg.Leases, g.cfg.Name)
		defer func() {
			have := g.running()
			g.stopAll() // before others take over
			shares.leave(context.WithoutCancel(ctx), have)
		}()
		ticker := time.NewTicker(g.share)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case err := <-list.UpdateCh():
			if err != nil {
				g.complain("list the ingest journals", err)
				continue
			}
		case <-tick:
		case <-ctx.Done():
			return nil
		}
		if list.List() == nil {
			continue
		}
		listed := partitionsOf(list.List())
		mine := listed
		if shares != nil {
			var err error
			soon, cancel := context.WithTimeout(ctx, g.share)
			if mine, err = shares.of(soon, listed, g.running(), g.stop); err != nil {
				g.complain("share out the ingest journals", err)
			}
			cancel()
		}
		g.arrange(ctx, mine)
	}
}

// arrange stops what is not wanted any more, and starts what is new.
func (g *Group) arrange(ctx context.Context, wanted []partition) {
	for _, p := range g.running() {
		if !slices.Contains(wanted, p) {
			g.stop(p)
		}
	}
	for _, p := range wanted {
		g.start(ctx, p)
	}
}

// running returns what is collected, in order.
func (g *Group) running() []partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []partition
	for p := range g.members {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePartitions)
	return out
}

// start begins to collect a partition, unless that is done already.
func (g *Group) start(ctx context.Context, p partition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members[p] != nil || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &member{cancel: cancel, done: make(chan struct{})}
	g.members[p] = m
	g.notify()
	go func() {
		defer close(m.done)
		g.collect(ctx, p, m)
	}()
}

// stop ends the work on a partition and waits for that.
func (g *Group) stop(p partition) {
	g.mu.Lock()
	m := g.members[p]
	delete(g.members, p)
	g.notify()
	g.mu.Unlock()
	if m == nil {
		return
	}
	m.cancel()
	<-m.done
	g.cfg.Collector.Metrics.forget(p.journal)
}

func (g *Group) stopAll() {
	for _, p := range g.running() {
		g.stop(p)
	}
}

// notify tells those who wait that members have changed. It is called with the lock held.
func (g *Group) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// collect runs Consumers of a partition, until ctx ends.
func (g *Group) collect(ctx context.Context, p partition, m *member) {
	setBack := false
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		cfg := ConsumerConfig{Collector: g.cfg.Collector, Journals: g.cfg.Journals, Journal: p.journal, Created: p.created, SetBack: setBack}
		if g.cfg.Durable != nil {
			cfg.Durable = func(offset int64) { g.cfg.Durable(p.journal, offset) }
		}
		c := NewConsumer(cfg)
		c.shared = g.inFlight
		g.set(m, c, nil)
		err := c.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		setBack = errors.Is(err, errSetBack)
		g.set(m, nil, err)
		g.cfg.Collector.Metrics.retries.WithLabelValues("collect").Inc()
		g.cfg.Collector.Logger.Error("a journal is not collected, trying again", "journal", p.journal, "after", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (g *Group) set(m *member, c *Consumer, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.consumer, m.err = c, err
	g.notify()
}

// Err returns why a journal that is to be collected is not, or nil. Nothing is given up.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, m := range g.members {
		errs = append(errs, m.err)
		if m.consumer != nil {
			errs = append(errs, m.consumer.Err())
		}
	}
	return errors.Join(errs...)
}

// WaitFor returns when everything of a journal below the offset is stored by this process, and every end of a stream reported.
func (g *Group) WaitFor(ctx context.Context, journal pb.Journal, offset int64) error {
	for {
		c, changed := g.consumerOf(journal)
		if c == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return fmt.Errorf("collect journal %s: it was not begun with: %w", journal, ctx.Err())
			}
		}
		err := c.waitFor(ctx, offset, changed)
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

func (g *Group) consumerOf(journal pb.Journal) (c *Consumer, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, m := range g.members {
		if p.journal == journal {
			c = m.consumer
		}
	}
	return c, g.changed
}

// Drain waits until what the ingest journals hold now is stored. It is for a process that has them all.
func (g *Group) Drain(ctx context.Context) error {
	list, err := client.ListAllJournals(ctx, g.cfg.Journals, ingestJournals())
	if err != nil {
		return fmt.Errorf("list the ingest journals: %w", err)
	}
	for _, p := range partitionsOf(list) {
		head, err := findHead(ctx, g.cfg.Journals, p.journal)
		if err != nil {
			return fmt.Errorf("find the end of journal %s: %w", p.journal, err)
		}
		if err := g.WaitFor(ctx, p.journal, head); err != nil {
			return err
		}
	}
	return nil
}

// complain logs a failure that is tried again, not too often.
func (g *Group) complain(operation string, err error) {
	g.cfg.Collector.Metrics.retries.WithLabelValues(operation).Inc()
	if now := time.Now(); now.After(g.silent) {
		g.silent = now.Add(complainInterval)
		g.cfg.Collector.Logger.Warn("failed, trying again", "operation", operation, "error", err)
	}
}
