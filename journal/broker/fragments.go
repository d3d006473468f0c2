package broker

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
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
	state, err := b.engine.Load(c.ctx, resolved.journal)
	if fault.Is(err, fault.NotFound) {
		c.status = protocol.Status_JOURNAL_NOT_FOUND
		resp.Status = c.status
		return resp, nil
	}
	if err != nil {
		return nil, err
	}
	listFragments(resp, resolved.journal, &state, req)
	return resp, nil
}

// listFragments fills a page. Fragments that are not stored have no modification time: they match unless the request
// sets an upper bound for it.
func listFragments(resp *protocol.FragmentsResponse, journal protocol.Journal, state *engine.State, req *protocol.FragmentsRequest) {
	if req.GetEndModTime() != 0 {
		return
	}
	all := slices.Clone(state.Finished)
	if state.Open.Len() > 0 {
		all = append(all, state.Open)
	}
	from, _ := slices.BinarySearchFunc(all, protocol.Offset(req.GetNextPageToken()), func(f engine.Fragment, begin protocol.Offset) int {
		return cmp.Compare(f.Begin, begin)
	})
	all = all[from:]
	if limit := int(cmp.Or(req.GetPageLimit(), defaultPage)); len(all) > limit {
		resp.NextPageToken = int64(all[limit].Begin)
		all = all[:limit]
	}
	for _, f := range all {
		resp.Fragments = append(resp.Fragments, &protocol.FragmentsResponse_XFragment{Spec: fragmentOf(journal, f)})
	}
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

// FragmentStoreHealth is about stores, of which this broker has none.
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
	return nil, fault.New(fault.Unimplemented, "this broker has no fragment stores")
}
