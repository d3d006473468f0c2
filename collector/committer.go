package collector

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
)

// committer stores parcels in their order, together with the position they reach, and then reports the ends of streams.
type committer struct {
	*Consumer
	in      <-chan *parcel
	batch   storage.Batch
	parcels []*parcel // whose entries are in the batch
	end     int64     // offset behind the last parcel that was put into a batch

	ends  endings
	slots *semaphore.Weighted
	wg    sync.WaitGroup // of reports under way
}

func newCommitter(c *Consumer, in <-chan *parcel, from int64) *committer {
	return &committer{
		Consumer: c,
		in:       in,
		end:      from,
		ends:     endings{changed: make(chan struct{}, 1)},
		slots:    semaphore.NewWeighted(maxTerminations),
	}
}

func (c *committer) run(ctx context.Context) error {
	c.batch = c.cfg.Collector.Storage.NewBatch()
	defer func() { _ = c.batch.Close() }() // lets go of what is not committed
	defer c.wg.Wait()
	for {
		next, err := c.wait(ctx)
		if err != nil {
			return err
		}
		for next != nil {
			c.add(next)
			if c.batch.Size() >= maxBatchBytes || len(c.parcels) >= maxBatchMessages {
				break
			}
			if next, err = c.more(ctx); err != nil {
				return err
			}
		}
		if err := c.commit(ctx); err != nil {
			return err
		}
	}
}

// wait waits until there is something to commit: a parcel, or, without one, a position that may move because an end has been
// reported.
func (c *committer) wait(ctx context.Context) (*parcel, error) {
	for {
		select {
		case p := <-c.in:
			return p, c.becomesReady(ctx, p)
		case <-c.ends.changed:
			if len(c.in) == 0 && c.ends.first(c.end) > c.Position() {
				return nil, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *committer) becomesReady(ctx context.Context, p *parcel) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// more returns the next parcel if it can be had without waiting. One whose streams are still being registered must not hold
// up those before it: they are committed first.
func (c *committer) more(ctx context.Context) (*parcel, error) {
	select {
	case p := <-c.in:
		select {
		case <-p.ready:
			return p, nil
		default:
		}
		if err := c.commit(ctx); err != nil {
			return nil, err
		}
		return p, c.becomesReady(ctx, p)
	default:
		return nil, nil
	}
}

// add puts a parcel into the batch.
func (c *committer) add(p *parcel) {
	for _, put := range p.puts {
		if err := c.batch.Put(put); err != nil {
			p.err = combine([]error{p.err, c.cfg.Collector.refuse(p.bundle, nil, dropRefused, err)})
			continue
		}
		c.metrics().logs.Add(float64(len(put.Values)))
	}
	if len(p.ends) > 0 {
		c.ends.add(p)
	}
	c.parcels = append(c.parcels, p)
	c.end = p.end
}

// commit commits the batch, and begins to report the ends in it.
func (c *committer) commit(ctx context.Context) error {
	var bad []*bundle
	for _, p := range c.parcels {
		if p.bundle.refused() != nil {
			bad = append(bad, p.bundle)
		}
	}
	c.cfg.Collector.putAside(bad...)
	position := c.ends.first(c.end)
	err := c.retry(ctx, "commit", anyFailure, func() error {
		// Another Collector may have got further, if both believe that the journal is theirs.
		other, err := c.cfg.Collector.Storage.Checkpoint(ctx, c.checkpoint())
		if err != nil {
			return err
		}
		c.batch.SetCheckpoint(c.checkpoint(), max(position, other))
		return c.batch.Commit(ctx)
	})
	if err != nil {
		return err
	}
	c.moveTo(position)
	for i, p := range c.parcels {
		c.release(p.weight)
		for _, r := range p.bundle.runs {
			c.metrics().handled(r, p.arrived)
		}
		c.cfg.Collector.finished(p.arrived, p.err)
		if err := c.report(ctx, p); err != nil {
			return err
		}
		c.parcels[i] = nil
	}
	c.parcels = c.parcels[:0]
	return nil
}

// report reports the ends in a parcel. It waits only for slots.
func (c *committer) report(ctx context.Context, p *parcel) error {
	p.puts = nil
	p.bundle.release()
	for _, end := range p.ends {
		if err := c.slots.Acquire(ctx, 1); err != nil {
			return err
		}
		c.wg.Go(func() {
			defer c.slots.Release(1)
			if err := c.terminate(ctx, p.bundle, end); err != nil {
				return // not reported: the position stays before it
			}
			c.ends.done(p)
		})
	}
	return nil
}

// terminate reports an end, as often as it takes. One that is refused goes into the quarantine, by itself.
func (c *committer) terminate(ctx context.Context, from *bundle, end *ending) error {
	b := &bundle{origin: from.origin, project: from.project, prefix: from.prefix}
	err := c.retry(ctx, "terminate", fault.IsTransient, func() error {
		return c.cfg.Collector.terminate(ctx, b, end.run, end.request)
	})
	if err == nil || fault.IsTransient(err) {
		return err
	}
	if b.message, err = messageOfEnd(from, end.run, end.request); err != nil {
		_ = c.cfg.Collector.refuse(b, end.run, dropRefused, err) // it is logged with the other
	}
	c.cfg.Collector.putAside(b)
	return nil
}

// ending is the end of a stream that has to be reported once its entries are stored.
type ending struct {
	parcel  *parcel
	run     *run
	request *coordinator.TerminateRequest
}

// endings are the parcels with ends that have not all been reported. The checkpoint must not pass them.
type endings struct {
	// changed receives, coalesced, when the first of them was finished.
	changed chan struct{}

	mu      sync.Mutex
	pending []pendingEnds // in the order of the journal
}

type pendingEnds struct {
	parcel *parcel
	left   int
}

func (e *endings) add(p *parcel) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = append(e.pending, pendingEnds{p, len(p.ends)})
}

// first returns where the first of them begins, or the offset if there is none.
func (e *endings) first(offset int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.pending) > 0 {
		return e.pending[0].parcel.begin
	}
	return offset
}

// done counts one end of the parcel as reported.
func (e *endings) done(p *parcel) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.pending {
		if e.pending[i].parcel == p {
			e.pending[i].left--
			break
		}
	}
	finished := 0
	for finished < len(e.pending) && e.pending[finished].left == 0 {
		finished++
	}
	if finished == 0 {
		return
	}
	clear(e.pending[:finished])
	e.pending = e.pending[finished:]
	select {
	case e.changed <- struct{}{}:
	default:
	}
}
