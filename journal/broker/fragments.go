package broker

import (
	"context"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// defaultPage is the most fragments of a page whose request does not say.
const defaultPage = 1000

// ListFragments lists the fragments of a journal (spec protocol 10.7).
func (b *Broker) ListFragments(ctx context.Context, req *protocol.FragmentsRequest) (resp *protocol.FragmentsResponse, err error) {
	c, err := b.enter(ctx, "ListFragments", auth.Read)
	if err != nil {
		return nil, err
	}
	defer c.end(&err)

	if err := req.Validate(); err != nil {
		return nil, err
	}
	resolved, err := b.resolve(c, req.GetJournal(), req.GetHeader(), 0)
	if err != nil {
		return nil, err
	}
	c.status = resolved.readable()
	resp = &protocol.FragmentsResponse{Status: c.status, Header: resolved.header}
	if c.status != protocol.Status_OK {
		return resp, nil
	}
	if err := b.awaitListing(c.ctx, resolved.spec, true); err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	v, err := b.view(c.ctx, resolved.journal)
	if fault.Is(err, fault.NotFound) {
		c.status = protocol.Status_JOURNAL_NOT_FOUND
		resp.Status = c.status
		return resp, nil
	}
	if err != nil {
		return nil, err
	}
	page, next := v.all().page(req)
	resp.NextPageToken = int64(next)
	for _, f := range page {
		item := &protocol.FragmentsResponse_XFragment{Spec: f.message(resolved.journal)}
		if ttl := req.GetSignatureTTL().AsDuration(); ttl > 0 && !f.local() {
			if item.SignedUrl, err = b.sign(c.ctx, item.GetSpec(), ttl, true); err != nil {
				return nil, err
			}
		}
		resp.Fragments = append(resp.Fragments, item)
	}
	return resp, nil
}

// Replicate is for the peers of a broker that replicates by itself. This one leaves that to its engine.
func (b *Broker) Replicate(stream grpc.BidiStreamingServer[protocol.ReplicateRequest, protocol.ReplicateResponse]) (err error) {
	c, err := b.enter(stream.Context(), "Replicate", auth.Replicate)
	if err != nil {
		return err
	}
	defer c.end(&err)
	return fault.New(fault.Unimplemented, "this broker has no peers: its engine keeps content safe")
}

// FragmentStoreHealth tells whether a store works that a journal names (spec protocol 10.8).
func (b *Broker) FragmentStoreHealth(ctx context.Context, req *protocol.FragmentStoreHealthRequest) (_ *protocol.FragmentStoreHealthResponse, err error) {
	c, err := b.enter(ctx, "FragmentStoreHealth", auth.Read)
	if err != nil {
		return nil, err
	}
	defer c.end(&err)
	if err := req.Validate(); err != nil {
		return nil, err
	}
	if err := c.namesStore(req.GetFragmentStore()); err != nil {
		return nil, err
	}
	resp := &protocol.FragmentStoreHealthResponse{Header: b.header(b.engine.Specs(), protocol.NewRoute())}
	if err := b.storeHealth(c.ctx, req); err != nil {
		if c.ctx.Err() != nil {
			return nil, err
		}
		c.status = protocol.Status_FRAGMENT_STORE_UNHEALTHY
		resp.Status, resp.StoreHealthError = c.status, err.Error()
	}
	return resp, nil
}

// storeHealth returns why a store cannot be used, or nil.
func (b *Broker) storeHealth(ctx context.Context, req *protocol.FragmentStoreHealthRequest) error {
	if b.stores == nil {
		return fault.New(fault.Precondition, "this broker uses no stores")
	}
	st, err := b.stores.Acquire(ctx, protocol.FragmentStore(req.GetFragmentStore()))
	if err != nil {
		return err
	}
	defer st.Release()
	if err := st.AwaitHealth(ctx); err != nil || !req.GetCheckDelete() {
		return err
	}
	return st.CheckDelete(ctx, req.GetCheckDeletePrefix())
}
