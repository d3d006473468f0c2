package broker

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// deleteWait is how long a deletion waits until the stores of a journal have all of its content.
const deleteWait = 10 * time.Second

// secure sees to it that the stores of journals that are to be deleted have what was acknowledged: a deletion takes what is
// nowhere but here. Without stores, that is what it is for.
func (b *Broker) secure(ctx context.Context, changes []*protocol.ApplyRequest_Change) error {
	specs := b.engine.Specs()
	var doomed []*engine.Spec
	for _, c := range changes {
		spec := specs.Get(protocol.Journal(c.GetDelete()))
		if c.GetUpsert() == nil && spec != nil && b.stores != nil && len(spec.GetFragment().GetStores()) != 0 {
			doomed = append(doomed, spec)
		}
	}
	for _, spec := range doomed {
		state, err := b.engine.Load(ctx, protocol.Journal(spec.GetName()))
		if err == nil && state.Open.Len() > 0 {
			err = b.keeper.finish(spec, engine.RollPolicyOf(spec.JournalSpec), 0, time.Now())
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		b.keeper.touch(protocol.Journal(spec.GetName()))
	}
	limit := time.Now().Add(deleteWait)
	for _, spec := range doomed {
		if err := b.awaitStored(ctx, protocol.Journal(spec.GetName()), limit); err != nil {
			return err
		}
	}
	return nil
}

// awaitStored waits until a journal has no finished fragment that is nowhere but here.
func (b *Broker) awaitStored(ctx context.Context, journal protocol.Journal, limit time.Time) error {
	changed, stop := b.engine.Watch(journal)
	defer stop()
	timeout := time.NewTimer(time.Until(limit))
	defer timeout.Stop()
	for {
		state, err := b.engine.Load(ctx, journal)
		if fault.Is(err, fault.NotFound) || err == nil && len(state.Finished) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-timeout.C:
			first, last := state.Finished[0], state.Finished[len(state.Finished)-1]
			return fault.New(fault.Transient, "delete journal %s: its store does not have [%d, %d) yet, which would be lost; "+
				"delete it when the store works, or take the stores out of its spec first", journal, first.Begin, last.End)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-b.closing:
			return errClosing
		}
	}
}
