package broker

import (
	"context"
	"maps"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/fragment"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// scrubEvery is the time between two verifications of what lies on the local disk, and scrubRate how fast they go.
	scrubEvery = 24 * time.Hour
	scrubRate  = 8 << 20 // bytes a second
)

// Trim tells that nobody will read the content of a journal below an offset any more. A journal without a retention drops it
// at once, in whole fragments; one with a retention drops it when it is old enough too, and from now on never what lies
// beyond. So whoever reads a journal with a retention calls Trim within an hour of the broker's start, and as it goes on.
func (b *Broker) Trim(ctx context.Context, journal protocol.Journal, below protocol.Offset) error {
	if err := b.begin(); err != nil {
		return err
	}
	defer b.calls.Done()
	journal = journal.StripMeta()
	spec := b.engine.Specs().Get(journal)
	if spec == nil {
		return fault.New(fault.NotFound, "trim %s: there is no such journal", journal)
	}
	k := b.keeper
	k.mu.Lock()
	key := incarnation{journal, spec.Created}
	k.needed[key] = max(k.needed[key], below)
	k.mu.Unlock()
	if spec.GetFragment().GetRetention().AsDuration() > 0 {
		return nil
	}
	return k.cut(ctx, journal, below)
}

// Trimming returns the service by which those call Trim who are elsewhere.
func (b *Broker) Trimming() protocol.TrimServer { return trimming{broker: b} }

type trimming struct {
	protocol.UnimplementedTrimServer
	broker *Broker
}

func (s trimming) Trim(ctx context.Context, req *protocol.TrimRequest) (_ *protocol.TrimResponse, err error) {
	b := s.broker
	c, err := b.enter(ctx, "Trim", auth.Apply)
	if err != nil {
		return nil, err
	}
	defer c.end(&err)

	journal, below := protocol.Journal(req.GetJournal()), protocol.Offset(req.GetBelow())
	if err := journal.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if below < 0 {
		return nil, fault.New(fault.Invalid, "trim %s: the offset %d is negative", journal, below)
	}
	if spec := b.engine.Specs().Get(journal.StripMeta()); spec == nil || !c.allowsSpec(spec) {
		return nil, fault.New(fault.NotFound, "trim %s: there is no such journal, or it is not yours", journal)
	}
	return &protocol.TrimResponse{}, b.Trim(c.ctx, journal, below)
}

// pruneAll prunes all journals from time to time.
func (k *keeper) pruneAll() {
	for k.sleep(pruneEvery) {
		k.forgetNeeds()
		for _, spec := range k.broker.engine.Specs().All {
			if k.ctx.Err() != nil {
				return
			}
			if err := k.prune(k.ctx, spec, time.Now()); err != nil && k.ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
				k.broker.logger.Warn("cannot drop all that has outlived its retention", "journal", spec.GetName(), "error", err)
			}
		}
	}
}

// forgetNeeds forgets what was needed of journals that are gone.
func (k *keeper) forgetNeeds() {
	specs := k.broker.engine.Specs()
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.needed, func(key incarnation, _ protocol.Offset) bool {
		spec := specs.Get(key.journal)
		return spec == nil || spec.Created != key.created
	})
}

// prune drops the fragments of a journal whose newest append is older than the journal's retention, oldest first, unless a
// reader that has registered needs them.
func (k *keeper) prune(ctx context.Context, spec *engine.Spec, now time.Time) error {
	journal := protocol.Journal(spec.GetName())
	if err := k.removeRest(ctx, journal); err != nil {
		return err
	}
	retention := spec.GetFragment().GetRetention().AsDuration()
	if retention <= 0 {
		return nil // which is for ever
	}
	limit := now.Add(-retention).Unix()
	v, err := k.broker.view(ctx, journal)
	if err != nil {
		return err
	}
	if open := v.state.Open; open.Len() > 0 && open.FirstAppend < limit {
		// It is dropped when it is known how old its last append is.
		if err := k.finish(spec, engine.RollPolicyOf(spec.JournalSpec), v.state.Head, now); err != nil {
			return err
		}
		k.touch(journal)
	}
	k.mu.Lock()
	needed, registered := k.needed[incarnation{journal, spec.Created}]
	k.mu.Unlock()
	all := v.all()
	var below protocol.Offset
	for i, f := range all {
		last := f.LastAppend
		if !f.known {
			last = f.Modified
		}
		if last >= limit || registered && f.End > needed || i+1 == len(all) && !f.known {
			break
		}
		below = f.End
	}
	if below == 0 {
		return nil
	}
	return k.cut(ctx, journal, below)
}

// removeRest removes from the stores what was dropped before and could not be removed then.
func (k *keeper) removeRest(ctx context.Context, journal protocol.Journal) error {
	state, err := k.broker.engine.Load(ctx, journal)
	if err != nil {
		return err
	}
	if s := k.shelf(journal); s == nil || s.created != state.Created || !s.content.Load().hides(state.Trimmed) {
		return nil
	}
	return k.cut(ctx, journal, state.Trimmed)
}

// hides reports whether a listing showed fragments that end at or below an offset.
func (s *shelved) hides(below protocol.Offset) bool {
	return len(s.listed) != 0 && s.listed[0].End <= below
}

// cut drops the fragments of a journal that end at or below an offset, first from the records and then from the stores. What
// cannot be removed from a store is hidden, and tried again.
func (k *keeper) cut(ctx context.Context, journal protocol.Journal, below protocol.Offset) error {
	b := k.broker
	state, err := b.engine.Load(ctx, journal)
	if err != nil {
		return err
	}
	if err := b.engine.Trim(ctx, journal, below); err != nil {
		return err
	}
	shelf := k.shelf(journal)
	var objects []indexed
	for _, f := range state.Stored {
		if f.End <= below {
			objects = append(objects, indexed{StoredFragment: f, known: true})
		}
	}
	if shelf != nil {
		for _, f := range shelf.content.Load().listed {
			if f.End <= below {
				objects = append(objects, f)
			}
		}
	}
	if b.stores == nil || len(objects) == 0 {
		return nil
	}
	var failure error
	left := make(map[protocol.Offset]bool)
	for _, f := range objects {
		if err := b.remove(ctx, journal, f); err != nil {
			failure = err
			left[f.Begin] = true
		}
	}
	if shelf != nil {
		shelf.update(func(next *shelved) {
			var kept coverSet
			for _, f := range next.listed {
				if f.End > below || left[f.Begin] {
					kept = append(kept, f)
				}
			}
			for _, f := range objects {
				if f.known && left[f.Begin] {
					f.known = false
					kept, _ = kept.add(f)
				}
				delete(next.missing, f.Begin)
			}
			next.listed = kept
		})
		b.listedHub.Wake(journal)
	}
	return failure
}

// remove removes a fragment from its store.
func (b *Broker) remove(ctx context.Context, journal protocol.Journal, f indexed) error {
	st, err := b.stores.Acquire(ctx, f.Store)
	if err != nil {
		return err
	}
	defer st.Release()
	return st.Remove(ctx, f.message(journal))
}

// scrub verifies what lies on the local disk, slowly, so that damage is known while there may be other copies.
func (k *keeper) scrub() {
	for k.sleep(scrubEvery) {
		for _, spec := range k.broker.engine.Specs().All {
			if !k.scrubJournal(protocol.Journal(spec.GetName())) {
				return
			}
		}
	}
}

// scrubJournal reports whether the keeper goes on.
func (k *keeper) scrubJournal(journal protocol.Journal) bool {
	state, err := k.broker.engine.Load(k.ctx, journal)
	if err != nil {
		return k.ctx.Err() == nil
	}
	for _, f := range state.Finished {
		if err := k.verify(journal, f); err != nil && k.ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
			k.broker.metrics.damaged.Inc()
			k.broker.logger.Error("a fragment on the local disk is damaged", "journal", journal, "begin", f.Begin, "end", f.End, "error", err)
		}
		if k.ctx.Err() != nil {
			return false
		}
	}
	return true
}

// verify reads a fragment at the rate of a scrub.
func (k *keeper) verify(journal protocol.Journal, f engine.Fragment) error {
	content, err := k.broker.engine.Open(k.ctx, journal, f)
	if err != nil {
		return err
	}
	defer content.Close()
	sum := fragment.NewSum(fragmentOf(journal, f))
	buf := make([]byte, 1<<20)
	for at := f.Begin; at < f.End; {
		p := buf[:min(int64(len(buf)), int64(f.End-at))]
		n, err := content.ReadAt(p, at)
		if n < len(p) {
			return err
		}
		_, _ = sum.Write(p) // never fails
		at += protocol.Offset(n)
		if !k.sleep(time.Duration(n) * time.Second / scrubRate) {
			return k.ctx.Err()
		}
	}
	return sum.Check()
}
