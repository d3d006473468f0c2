package collector

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// damageAttempts is how often damaged content is read again before it is given up.
	damageAttempts = 3
	// damageStep is how far it is then skipped: no further than checksums tell damage from content.
	damageStep = 64 << 10
)

// intake reads messages from the journal, decodes them, and begins to register their streams. It hands them on in order.
type intake struct {
	*Consumer
	out chan<- *parcel
}

func (in *intake) run(ctx context.Context, from int64) error {
	var registrations sync.WaitGroup
	defer registrations.Wait()
	slots := semaphore.NewWeighted(maxRegistrations)

	rr := client.NewRetryReader(ctx, in.cfg.Journals, &pb.ReadRequest{Journal: string(in.cfg.Journal), Offset: from, Block: true})
	defer rr.Cancel()
	rr.Logger = in.cfg.Collector.Logger
	// Whatever it is, someone will mend it; but damage stays damage.
	rr.Policy = func(err error, attempt int) bool { return fault.Is(err, fault.DataLoss) && attempt >= damageAttempts }

	base, records := from, in.records(ctx, rr, from)
	var skipped int64
	for {
		msg, err := records.Next()
		switch {
		case errors.Is(err, client.ErrOffsetJump):
			next := rr.Offset()
			if stored, err := in.cfg.Collector.Storage.Checkpoint(ctx, in.checkpoint()); err == nil && stored >= next {
				// Another Collector, which believes that the journal is its, has got further.
				base, skipped, records = next, 0, in.records(ctx, rr, next)
				continue
			}
			in.metrics().missingBytes.Add(float64(next - base - records.Consumed()))
			in.cfg.Collector.Logger.Error("a part of the journal was deleted before it was read",
				"journal", in.cfg.Journal, "from", base+records.Consumed(), "to", next)
			base, skipped, records = next, 0, in.records(ctx, rr, next)
			continue
		case fault.Is(err, fault.DataLoss):
			// What lies behind the damage is not lost with it. The next record is found by its magic.
			next := (rr.Offset()/damageStep + 1) * damageStep
			in.metrics().missingBytes.Add(float64(next - base - records.Consumed()))
			in.cfg.Collector.Logger.Error("a part of the journal is damaged; its entries are missing from their streams",
				"journal", in.cfg.Journal, "from", base+records.Consumed(), "to", next, "error", err)
			rr.Cancel()
			rr.Restart(&pb.ReadRequest{Journal: string(in.cfg.Journal), Offset: next, Block: true})
			base, skipped, records = next, 0, in.records(ctx, rr, next)
			continue
		case err != nil:
			return err
		}
		in.head.Store(rr.Reader.Response.GetWriteHead())
		opened, err := openMessage(bytes.Clone(msg))
		if err != nil && !errors.Is(err, errVersion) && records.Reject() {
			continue
		}
		end := base + records.Consumed()
		begin := end - int64(ingest.HeaderSize+len(msg))
		if n := records.Skipped - skipped; n > 0 {
			skipped = records.Skipped
			in.metrics().skippedBytes.Add(float64(n))
			p := &parcel{begin: begin - n, end: begin, arrived: time.Now(), ready: make(chan struct{})}
			p.bundle = in.cfg.Collector.foreign(records.Foreign, n, origin{in.cfg.Journal, p.begin})
			records.Foreign = nil
			if err := in.hand(ctx, p, slots, &registrations); err != nil {
				return err
			}
		}
		p := &parcel{begin: begin, end: end, arrived: time.Now(), ready: make(chan struct{})}
		p.bundle = in.cfg.Collector.opened(opened, err, origin{in.cfg.Journal, begin})
		if err := in.hand(ctx, p, slots, &registrations); err != nil {
			return err
		}
	}
}

// records returns a reader of the records from an offset on.
func (in *intake) records(ctx context.Context, rr *client.RetryReader, from int64) *ingest.Reader {
	r := ingest.NewReader(nonEmpty{rr})
	r.Whole = func(end int64) (whole bool, err error) {
		if end += from; end <= rr.Reader.Response.GetWriteHead() {
			return true, nil
		}
		err = in.retry(ctx, "find the end", anyFailure, func() error {
			head, err := findHead(ctx, in.cfg.Journals, in.cfg.Journal)
			whole = end <= head
			return err
		})
		return whole, err
	}
	return r
}

// hand hands a parcel on when there is room, and begins to register its streams.
func (in *intake) hand(ctx context.Context, p *parcel, slots *semaphore.Weighted, registrations *sync.WaitGroup) error {
	p.weight = int64(min(p.bundle.memory, maxInFlight))
	if err := in.acquire(ctx, p.weight); err != nil {
		return err
	}
	if err := in.register(ctx, p, slots, registrations); err != nil {
		return err
	}
	select {
	case in.out <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// register registers the streams of a parcel, all at once as far as there are slots. The parcel gets ready later.
func (in *intake) register(ctx context.Context, p *parcel, slots *semaphore.Weighted, wg *sync.WaitGroup) error {
	b := p.bundle
	if p.err = b.err; len(b.runs) == 0 {
		close(p.ready)
		return nil
	}
	states := make([]*coordinator.LogStreamState, len(b.runs))
	errs := make([]error, len(b.runs))
	var mu sync.Mutex
	left := len(b.runs)
	for i, r := range b.runs {
		if err := slots.Acquire(ctx, 1); err != nil {
			return err
		}
		wg.Go(func() {
			defer slots.Release(1)
			errs[i] = in.retry(ctx, "register", fault.IsTransient, func() (err error) {
				states[i], err = in.cfg.Collector.register(ctx, b, r)
				return err
			})
			mu.Lock()
			left--
			last := left == 0
			mu.Unlock()
			if last {
				p.registered(states, errs)
			}
		})
	}
	return nil
}

// registered fills in what there is to do, in the order of the bundle. It is called when all streams were dealt with.
func (p *parcel) registered(states []*coordinator.LogStreamState, errs []error) {
	for i, r := range p.bundle.runs {
		if errs[i] != nil || states[i] == nil {
			continue
		}
		if len(r.values) > 0 {
			p.puts = append(p.puts, r.put(p.bundle))
		}
		if end := endOf(p.bundle, r, states[i]); end != nil {
			p.ends = append(p.ends, &ending{parcel: p, run: r, request: end})
		}
	}
	p.err = combine(errs)
	close(p.ready)
}

// nonEmpty reads on when a read gave neither bytes nor an error, which bufio takes for a defect.
type nonEmpty struct{ r io.Reader }

func (n nonEmpty) Read(p []byte) (int, error) {
	for {
		if k, err := n.r.Read(p); k > 0 || err != nil || len(p) == 0 {
			return k, err
		}
	}
}
