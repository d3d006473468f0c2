package collector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// maxInFlight bounds the bytes of messages that were read and are not stored yet.
	maxInFlight = 16 << 20
	// maxBatchBytes and maxBatchMessages bound what is stored at once, and so how long a follower waits under load.
	maxBatchBytes    = 8 << 20
	maxBatchMessages = 4096
	// maxRegistrations and maxTerminations bound the calls of the Coordinator under way. When it is away, reading waits.
	maxRegistrations = 64
	maxTerminations  = 256
	// The checkpoint is made durable after this much, or after this time.
	syncBytes    = 64 << 20
	syncInterval = time.Second
	// An operation that keeps failing is logged this often.
	complainInterval = 5 * time.Second
)

// ConsumerConfig says what a Consumer reads. All fields but Created and Durable are required.
type ConsumerConfig struct {
	Collector *Collector
	Journals  pb.RoutedJournalClient
	Journal   pb.Journal
	// Created is the revision at which the journal was created, or zero. A journal that was deleted and created again is
	// another one, with a checkpoint of its own.
	Created int64
	// Durable, if not nil, is called each time when everything below the offset has got onto stable storage: the journal
	// may be trimmed up to there. It is called by one goroutine, with growing offsets.
	Durable func(offset int64)
	// SetBack says that the journal was seen to end before the position in the storage. If it still does, Run reads it from its
	// begin: a journal that lost its end, or took the place of one that is gone, has output there that nobody collected. What was
	// collected before changes nothing.
	SetBack bool
}

// Consumer feeds a Collector with the messages of one ingest journal.
//
// Entries are stored in batches that grow with the load: a message that arrives alone is stored at once. A batch holds the
// position that it reaches, so a crash loses and repeats nothing. The position never passes a stream's end that the
// Coordinator has not heard of. Failures that may pass, of the journal, the Coordinator or the storage, are tried again for as
// long as it takes; what is refused for good is counted, logged, and left behind.
type Consumer struct {
	cfg ConsumerConfig
	// inFlight bounds the bytes of messages that were read and are not stored yet, shared those of all Consumers of a Group, if it is
	// not nil. held is what of them is taken.
	inFlight, shared *semaphore.Weighted
	held             atomic.Int64
	// head is the end of the journal as last heard of.
	head atomic.Int64

	// durable is the position that is on stable storage. It belongs to the goroutine that syncs.
	durable int64

	mu       sync.Mutex
	position int64                // committed
	moved    chan struct{}        // closed and replaced when position changes
	silent   map[string]time.Time // until when a failing operation is not logged again
	failing  map[string]error     // operations whose last try failed, and why
}

// NewConsumer returns a Consumer that does nothing yet.
func NewConsumer(cfg ConsumerConfig) *Consumer {
	return &Consumer{
		cfg:      cfg,
		inFlight: semaphore.NewWeighted(maxInFlight),
		moved:    make(chan struct{}),
		silent:   make(map[string]time.Time),
		failing:  make(map[string]error),
	}
}

// Run reads the journal from where the storage's checkpoint is until ctx ends, which is no error. It may be called once.
func (c *Consumer) Run(ctx context.Context) error {
	if err := c.cfg.Collector.begin(); err != nil {
		return err
	}
	defer c.cfg.Collector.calls.Done()
	err := c.run(ctx)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("collect journal %s: %w", c.cfg.Journal, err)
	}
	return nil
}

func (c *Consumer) run(ctx context.Context) error {
	var from int64
	err := c.retry(ctx, "checkpoint", anyFailure, func() (err error) {
		from, err = c.cfg.Collector.Storage.Checkpoint(ctx, c.checkpoint())
		return err
	})
	if err != nil {
		return err
	}
	if err := c.checkHead(ctx, from); errors.Is(err, errSetBack) && c.cfg.SetBack {
		c.cfg.Collector.Logger.Error("a journal lost its end, or took the place of another; all that it holds is collected again, but what it lost is missing",
			"journal", c.cfg.Journal, "position", from)
		from = 0
	} else if err != nil {
		return err
	}
	c.durable = from
	c.moveTo(from)
	c.cfg.Collector.Logger.Info("collecting", "journal", c.cfg.Journal, "offset", from)

	g, ctx := errgroup.WithContext(ctx)
	parcels := make(chan *parcel, maxBatchMessages)
	g.Go(func() error { return (&intake{Consumer: c, out: parcels}).run(ctx, from) })
	g.Go(func() error { return newCommitter(c, parcels, from).run(ctx) })
	g.Go(func() error { return c.syncs(ctx) })
	defer func() { c.release(c.held.Load()) }()
	return g.Wait()
}

// acquire waits until n bytes more may be in flight.
func (c *Consumer) acquire(ctx context.Context, n int64) error {
	if err := c.inFlight.Acquire(ctx, n); err != nil {
		return err
	}
	if c.shared != nil {
		if err := c.shared.Acquire(ctx, n); err != nil {
			c.inFlight.Release(n)
			return err
		}
	}
	c.held.Add(n)
	return nil
}

// release says that n bytes are not in flight any more.
func (c *Consumer) release(n int64) {
	c.held.Add(-n)
	c.inFlight.Release(n)
	if c.shared != nil {
		c.shared.Release(n)
	}
}

// checkpoint is the name of the reader's position in the storage.
func (c *Consumer) checkpoint() string {
	if c.cfg.Created == 0 {
		return string(c.cfg.Journal)
	}
	return fmt.Sprintf("%s@%d", c.cfg.Journal, c.cfg.Created)
}

// errSetBack is why a journal is refused that ends before the position in the storage.
var errSetBack = errors.New("it lost its end, or took the place of another")

// checkHead refuses a journal that ends before the position in the storage: it is not the one that was read before, and
// waiting for it to get there would lose what it holds. A broker that has not heard of the last append yet looks the same for a moment.
func (c *Consumer) checkHead(ctx context.Context, position int64) error {
	if position == 0 {
		return nil
	}
	var head int64
	err := c.retry(ctx, "find the end", anyFailure, func() (err error) {
		head, err = findHead(ctx, c.cfg.Journals, c.cfg.Journal)
		return err
	})
	if err != nil {
		return err
	}
	if head < position {
		return fault.New(fault.DataLoss,
			"the journal ends at offset %d, but the storage has it up to %d: %w", head, position, errSetBack)
	}
	c.head.Store(head)
	return nil
}

// findHead returns where a journal ends.
func findHead(ctx context.Context, journals pb.RoutedJournalClient, journal pb.Journal) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // nothing but the first answer is wanted
	r := client.NewReader(ctx, journals, &pb.ReadRequest{Journal: string(journal), Offset: -1, MetadataOnly: true})
	for {
		_, err := r.Read(nil)
		if err == nil {
			continue
		}
		if errors.Is(err, client.ErrOffsetJump) || errors.Is(err, client.ErrOffsetNotYetAvailable) {
			return max(r.Request.GetOffset(), r.Response.GetWriteHead()), nil
		}
		return 0, err
	}
}

// Position returns the journal offset below which every message is stored, and every end of a stream reported.
func (c *Consumer) Position() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.position
}

// Lag returns how many bytes the position is behind the end of the journal, as far as it is known.
func (c *Consumer) Lag() int64 { return max(0, c.head.Load()-c.Position()) }

// WaitFor returns when the position has reached the offset.
func (c *Consumer) WaitFor(ctx context.Context, offset int64) error {
	return c.waitFor(ctx, offset, nil)
}

// errChanged ends a wait for a Consumer that may be there no longer.
var errChanged = errors.New("the consumers have changed")

// waitFor is WaitFor that may be ended.
func (c *Consumer) waitFor(ctx context.Context, offset int64, end <-chan struct{}) error {
	for {
		c.mu.Lock()
		position, moved := c.position, c.moved
		c.mu.Unlock()
		if position >= offset {
			return nil
		}
		select {
		case <-moved:
		case <-end:
			return errChanged
		case <-ctx.Done():
			return fmt.Errorf("collect journal %s: %d bytes are left to offset %d: %w", c.cfg.Journal, offset-position, offset, ctx.Err())
		}
	}
}

func (c *Consumer) moveTo(position int64) {
	c.mu.Lock()
	c.position = position
	close(c.moved)
	c.moved = make(chan struct{})
	c.mu.Unlock()
	c.metrics().position.WithLabelValues(string(c.cfg.Journal)).Set(float64(position))
	c.metrics().lag.WithLabelValues(string(c.cfg.Journal)).Set(float64(c.Lag()))
}

func (c *Consumer) metrics() *Metrics { return c.cfg.Collector.Metrics }

// syncs makes the position durable from time to time, while it moves.
func (c *Consumer) syncs(ctx context.Context) error {
	for {
		if err := c.WaitFor(ctx, c.durable+1); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, syncInterval)
		_ = c.WaitFor(soon, c.durable+syncBytes) // both outcomes are reasons to sync
		cancel()
		position := c.Position()
		err := c.retry(ctx, "sync", anyFailure, func() error { return c.cfg.Collector.Storage.Sync(ctx) })
		if err != nil {
			return err
		}
		c.durable = position
		c.metrics().durablePosition.WithLabelValues(string(c.cfg.Journal)).Set(float64(position))
		if c.cfg.Durable != nil {
			c.cfg.Durable(position)
		}
	}
}

// anyFailure is for operations on our own state: their failure says nothing about the data, so they are always tried again.
func anyFailure(error) bool { return true }

// retry calls do until it succeeds, its failure is not worth another try, or ctx ends.
func (c *Consumer) retry(ctx context.Context, operation string, again func(error) bool, do func() error) error {
	const first, limit = 20 * time.Millisecond, 5 * time.Second
	for wait := first; ; wait = min(2*wait, limit) {
		err := do()
		if err == nil || !again(err) {
			c.note(operation, nil)
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.note(operation, err)
		c.metrics().retries.WithLabelValues(operation).Inc()
		if c.mayComplain(operation) {
			c.cfg.Collector.Logger.Warn("failed, trying again", "operation", operation, "journal", c.cfg.Journal, "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// note notes why an operation fails, or that it does not.
func (c *Consumer) note(operation string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.failing, operation)
		return
	}
	c.failing[operation] = err
}

// Err returns why the Consumer does not get on, or nil. It tries again.
func (c *Consumer) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for operation, err := range c.failing {
		errs = append(errs, fmt.Errorf("collect journal %s: %s: %w", c.cfg.Journal, operation, err))
	}
	return errors.Join(errs...)
}

// mayComplain bounds what an outage that hundreds of streams run into writes to the log.
func (c *Consumer) mayComplain(operation string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.silent[operation]) {
		c.silent[operation] = now.Add(complainInterval)
		return true
	}
	return false
}

// parcel is a message on its way from the journal to the storage.
type parcel struct {
	begin, end int64 // offsets in the journal
	arrived    time.Time
	weight     int64 // in flight
	bundle     *bundle
	puts       []storage.PutRequest
	ends       []*ending
	err        error // what was refused
	// ready is closed when the streams are registered, and puts and ends are filled in.
	ready chan struct{}
}
