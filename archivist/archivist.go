// Package archivist moves finished streams from the storage of recent entries to the archive (spec archive 6).
//
// The Coordinator hands out tasks, one a stream. For a stream that ended, the Archivist waits until every entry up to its end
// is there, or until a limit; writes the archive; reads it back and verifies it; and only then reports it. For a stream that is
// archived, which the Coordinator asks about after a grace period, it verifies that the archive holds every entry in
// storage, and only then removes them from there. If it finds more there, it has the stream reopened: the next archive is made of
// the one before and of what is in storage. Streams that are removed for good lose everything.
//
// Any number of Archivists can work on the same tasks, and any of them can die at any moment: archives have unique names, the
// Coordinator records one of them, and whoever lost deletes what it wrote.
//
// A task that fails is handed back, with its reason, to be tried again later and later; what can never succeed is reported
// as failed after some attempts, and its entries stay in storage. A handed-back task is not lost with the process, as
// nothing is kept here that the Coordinator does not know.
//
// All methods are safe for concurrent use. Memory is bounded by that of one archive (package archive) for each worker.
package archivist

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// leaseWait is how long the Coordinator may hold a call for tasks.
	leaseWait = 30 * time.Second
	// callTimeout bounds a call beyond that.
	callTimeout = 30 * time.Second
	// settleTimeout is the time to end a task or hand it back; it comes back by itself when that fails.
	settleTimeout = 5 * time.Second
	// maxRemembered is how many failing streams are remembered.
	maxRemembered = 10_000
)

// Config of an Archivist.
type Config struct {
	Services logdog.ServicesClient
	Storage  storage.Storage
	// Places are where archives are written and read.
	Places *archive.Places

	// Workers is how many tasks are worked on at once; zero is 4.
	Workers int
	// WaitForMissing is how long after its end a stream is not archived while entries are missing; zero is 10 minutes. It
	// should cover the time that a Butler without network is expected to come back.
	WaitForMissing time.Duration
	// Density of the archives' indexes; zero lists an entry every MiB.
	Density archive.Density
	// ProjectDensity returns what a project has instead; fields that are zero are those of Density. Nil is nothing.
	ProjectDensity func(types.Project) archive.Density
	// LeaseTime is how long a task is hidden from other Archivists; zero is 2 minutes. Work may take longer.
	LeaseTime time.Duration
	// MaxFailures is how often a task may fail for a reason that will not pass by itself; zero is 10.
	MaxFailures int

	// Logger is required.
	Logger *slog.Logger
	// Registerer receives the metrics; nil is none.
	Registerer prometheus.Registerer
}

func (c *Config) setDefaults() error {
	if c.Services == nil || c.Storage == nil || c.Places == nil || c.Logger == nil {
		return fault.New(fault.Invalid, "archivist: services, storage, places and logger are required")
	}
	if c.Workers < 0 || c.WaitForMissing < 0 || c.LeaseTime < 0 || c.MaxFailures < 0 {
		return fault.New(fault.Invalid, "archivist: workers %d, wait %s, lease time %s, failures %d: none may be negative",
			c.Workers, c.WaitForMissing, c.LeaseTime, c.MaxFailures)
	}
	if c.Workers == 0 {
		c.Workers = 4
	}
	if c.WaitForMissing == 0 {
		c.WaitForMissing = 10 * time.Minute
	}
	if c.Density == (archive.Density{}) {
		c.Density.ByteRange = 1 << 20
	}
	if c.ProjectDensity == nil {
		c.ProjectDensity = func(types.Project) archive.Density { return archive.Density{} }
	}
	if c.LeaseTime == 0 {
		c.LeaseTime = 2 * time.Minute
	}
	if c.MaxFailures == 0 {
		c.MaxFailures = 10
	}
	return nil
}

// Archivist works on archive tasks.
type Archivist struct {
	Config
	metrics *metrics
	slots   chan struct{} // holds one for each worker that is busy or waits for a lease

	mu       sync.Mutex
	working  map[streamID]struct{}
	idle     chan struct{} // closed while nothing is worked on
	failures *simplelru.LRU[streamID, int]
	verified *simplelru.LRU[string, struct{}] // archives that were read from end to end, by their URLs
}

// streamID is how the Coordinator names a stream.
type streamID struct{ project, id string }

// New returns an Archivist; Run sets it to work.
func New(c Config) (*Archivist, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("archivist: register metrics: %w", err)
	}
	a := &Archivist{Config: c, metrics: m, slots: make(chan struct{}, c.Workers), working: make(map[streamID]struct{}), idle: make(chan struct{})}
	close(a.idle)
	a.failures, _ = simplelru.NewLRU[streamID, int](maxRemembered, nil) // fails only for sizes below one
	a.verified, _ = simplelru.NewLRU[string, struct{}](maxRemembered, nil)
	return a, nil
}

// Run works until ctx ends. Then it hands back what it did not finish and returns nil.
func (a *Archivist) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	pause := pauses{first: 100 * time.Millisecond, most: 30 * time.Second}
	for {
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		n := 1 + a.moreSlots()
		asked := time.Now()
		tasks, err := a.lease(ctx, n, leaseWait)
		for range n - len(tasks) {
			<-a.slots
		}
		for _, task := range tasks {
			workers.Go(func() {
				defer func() { <-a.slots }()
				a.handle(ctx, task)
			})
		}
		switch {
		case len(tasks) > 0 || err == nil && time.Since(asked) > time.Second:
			pause.reset()
			continue
		case err != nil && ctx.Err() == nil:
			a.Logger.Warn("archivist: no tasks to be had", "error", err)
		}
		// A Coordinator that fails, or does not hold calls, is not asked without pause.
		if pause.wait(ctx) != nil {
			return nil
		}
	}
}

// moreSlots takes the slots that are free now.
func (a *Archivist) moreSlots() int {
	for n := 0; ; n++ {
		select {
		case a.slots <- struct{}{}:
		default:
			return n
		}
	}
}

// Drain works on everything that is due now and returns when nothing is left, also of what Run has begun. Tasks that fail or
// wait for missing entries are handed back, as always.
func (a *Archivist) Drain(ctx context.Context) error {
	for quiet := false; ; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("archivist: drain: %w", err)
		}
		tasks, err := a.lease(ctx, a.Workers, 0)
		if err != nil {
			return fmt.Errorf("archivist: drain: %w", err)
		}
		var workers sync.WaitGroup
		for _, task := range tasks {
			workers.Go(func() { a.handle(ctx, task) })
		}
		workers.Wait()
		a.mu.Lock()
		idle, busy := a.idle, len(a.working) > 0
		a.mu.Unlock()
		if busy {
			select {
			case <-idle:
			case <-ctx.Done():
			}
		}
		// Asked twice: between the answers, Run has begun what it was given before the first.
		nothing := len(tasks) == 0 && !busy
		if nothing && quiet {
			return nil
		}
		quiet = nothing
	}
}

// lease asks for up to n tasks.
func (a *Archivist) lease(ctx context.Context, n int, wait time.Duration) ([]*logdog.ArchiveTask, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	r := &logdog.LeaseRequest{MaxTasks: int64(n), LeaseTime: durationpb.New(a.LeaseTime)}
	if wait > 0 {
		r.Wait = durationpb.New(wait)
	}
	resp, err := a.Services.LeaseArchiveTasks(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("lease tasks: %w", fault.FromGRPC(err))
	}
	tasks := resp.GetTasks()
	if len(tasks) > n {
		tasks = tasks[:n] // the others come back when their lease ends
	}
	a.metrics.leased.Add(float64(len(tasks)))
	return tasks, nil
}

// begin marks a stream as being worked on; false if it is already.
func (a *Archivist) begin(id streamID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.working[id]; ok {
		return false
	}
	if len(a.working) == 0 {
		a.idle = make(chan struct{})
	}
	a.working[id] = struct{}{}
	return true
}

// end undoes begin.
func (a *Archivist) end(id streamID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.working, id)
	if len(a.working) == 0 {
		close(a.idle)
	}
}

// failed counts the failures of a stream in a row; a success forgets them.
func (a *Archivist) failed(id streamID, err error) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.failures.Remove(id)
		return 0
	}
	n, _ := a.failures.Get(id)
	a.failures.Add(id, n+1)
	return n + 1
}

// wasVerified reports whether an archive was read from end to end.
func (a *Archivist) wasVerified(url string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.verified.Contains(url)
}

func (a *Archivist) setVerified(url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verified.Add(url, struct{}{})
}

// pauses are waits that double from first to most.
type pauses struct{ first, most, next time.Duration }

func (p *pauses) reset() { p.next = 0 }

func (p *pauses) wait(ctx context.Context) error {
	p.next = min(max(2*p.next, p.first), p.most)
	t := time.NewTimer(p.next)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
