package broker

import (
	"context"
	"slices"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// call is an RPC that is under way, by a caller who may make it.
type call struct {
	broker    *Broker
	operation string
	began     time.Time
	cancel    context.CancelFunc

	// ctx ends with the RPC, and with the caller's token.
	ctx    context.Context
	claims auth.Claims
	// status is what the RPC answers, for the metrics.
	status protocol.Status
}

// enter begins an RPC. It is the one door to the broker: here calls are counted, refused when it shuts down, and refused when
// their caller may not make them. Which journals the claims are for is asked in resolve, or of call.allows. The
// caller defers end.
func (b *Broker) enter(ctx context.Context, operation string, need auth.Capability) (*call, error) {
	if err := b.begin(); err != nil {
		return nil, fault.GRPC(err)
	}
	var err error
	c := &call{broker: b, operation: operation, began: time.Now()}
	b.metrics.began(operation)
	c.ctx, c.cancel, c.claims, err = b.callers.VerifyCall(ctx, need)
	if err != nil {
		c.end(&err)
		return nil, err
	}
	return c, nil
}

// end ends the RPC, and gives its error the form that travels.
func (c *call) end(err *error) {
	c.cancel()
	*err = fault.GRPC(*err)
	c.broker.metrics.ended(c.operation, c.status, *err, time.Since(c.began))
	c.broker.calls.Done()
}

// allowsSpec reports whether the caller may know of a journal.
func (c *call) allowsSpec(spec *engine.Spec) bool {
	// Most tokens, and no token at all, select everything: labels need not be gathered then.
	return c.claims.Selector == nil || c.claims.Allows(spec.LabelSetForMatching())
}

// namesStore returns an error unless a journal that the caller may know of has a fragment store. A broker has rights in its
// stores that its callers need not have, and makes no use of them for any other store that somebody names.
func (c *call) namesStore(store string) error {
	for _, spec := range c.broker.engine.Specs().All {
		if slices.Contains(spec.GetFragment().GetStores(), store) && c.allowsSpec(spec) {
			return nil
		}
	}
	return fault.New(fault.Denied, "no journal that you may read has this fragment store")
}
