package broker

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// idleAge is the flush interval of journals without one, as far as suspension is concerned.
const idleAge = 24 * time.Hour

// floor returns the lowest offset at which the append may land. The append is refused if stores have content beyond the
// journal's head, which was written elsewhere or before what is here was lost, unless it says that it lands behind that: so
// an operator resets a journal's head (spec protocol 10.4.3, spec broker 13.4). An offset further behind is as good, and keeps
// away from content that the stores will never show.
func (a *appending) floor(ctx context.Context) (protocol.Offset, error) {
	spec := a.resolved.spec
	floor := protocol.Offset(spec.GetSuspend().GetOffset())
	if a.broker.stores == nil || len(spec.GetFragment().GetStores()) == 0 {
		return floor, nil
	}
	if !protocol.JournalSpec_Flag(spec.GetFlags()).MayWrite() {
		return floor, nil // a barrier for what others feed
	}
	v, err := a.broker.listedView(ctx, spec)
	switch {
	case errors.Is(err, errListing):
		a.resp.Status, a.resp.StoreHealthError = protocol.Status_FRAGMENT_STORE_UNHEALTHY, err.Error()
		return 0, nil
	case err != nil:
		return 0, a.commitError(err)
	}
	end := v.end()
	if end <= max(v.state.Head, floor) {
		return floor, nil
	}
	switch offset := protocol.Offset(a.request.GetOffset()); {
	case offset == 0:
		a.resp.Status = protocol.Status_INDEX_HAS_GREATER_OFFSET
	case offset < end:
		a.resp.Status = protocol.Status_WRONG_APPEND_OFFSET
	default:
		floor = offset
	}
	return floor, nil
}

// idle reports whether all content has been in stores for longer than the journal's flush interval.
func (v *view) idle(spec *engine.Spec, now time.Time) bool {
	if v.state.Open.Len() != 0 || len(v.state.Finished) != 0 {
		return false
	}
	all := v.all()
	age := cmp.Or(spec.GetFragment().GetFlushInterval().AsDuration(), idleAge)
	return len(all) != 0 && all[len(all)-1].Modified < now.Add(-age).Unix()
}
