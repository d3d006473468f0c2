package client_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/journal/auth"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func gazetteSpec(name string) *pb.JournalSpec {
	return &pb.JournalSpec{
		Name: name, Replication: 1,
		Fragment: &pb.JournalSpec_Fragment{
			Length: 1 << 20, CompressionCodec: pb.CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Minute),
		},
	}
}

func (b *gazette) List(req *pb.ListRequest, stream pb.Journal_ListServer) error {
	f := b.fleet
	ctx, cancel, claims, err := b.authorize(stream.Context(), auth.List)
	defer cancel()
	if err != nil {
		return err
	}
	changed, stop := f.changed.Watch("")
	defer stop()
	sent, last := -1, int64(-1)
	after := req.GetWatchResume().GetEtcd().GetRevision()
	for {
		f.mu.Lock()
		all, newest := f.list(req.Selector, claims)
		h := b.header(nil)
		f.mu.Unlock()
		// The number of journals and the newest change tell whether there is anything new.
		if h.Etcd.Revision > after && (len(all) != sent || newest != last) {
			sent, last, after = len(all), newest, h.Etcd.Revision
			if err := sendListing(stream, h, all, req.Watch); err != nil || !req.Watch {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// list returns what a selector selects; f.mu must be held.
func (f *fleet) list(selector *pb.LabelSelector, claims auth.Claims) (out []*pb.ListResponse_Journal, newest int64) {
	for _, name := range slices.Sorted(maps.Keys(f.journals)) {
		j := f.journals[name]
		if labels := j.spec.LabelSetForMatching(); selector.Matches(labels) && claims.Allows(labels) {
			out = append(out, &pb.ListResponse_Journal{Spec: proto.CloneOf(j.spec), ModRevision: j.mod, CreateRevision: j.created, Route: f.route(j)})
			newest = max(newest, j.mod)
		}
	}
	return out, newest
}

// sendListing sends a snapshot in messages of 25 journals, of which only the first one has a header.
func sendListing(stream pb.Journal_ListServer, h *pb.Header, all []*pb.ListResponse_Journal, watch bool) error {
	first := &pb.ListResponse{Header: h}
	for m := first; len(all) != 0 || m == first; m = new(pb.ListResponse) {
		n := min(25, len(all))
		m.Journals, all = all[:n], all[n:]
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if watch {
		return stream.Send(new(pb.ListResponse))
	}
	return nil
}

func (b *gazette) Apply(ctx context.Context, req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	f := b.fleet
	_, cancel, claims, err := b.authorize(ctx, auth.Apply)
	defer cancel()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(req.Changes) > 128 {
		return nil, unknown("etcdserver: too many operations in txn request")
	}
	seen := make(map[string]bool)
	for _, c := range req.Changes {
		name := c.Delete
		labels := pb.MustLabelSet("name", name)
		if c.Upsert != nil {
			name, labels = c.Upsert.Name, c.Upsert.LabelSetForMatching()
		}
		if !claims.Allows(labels) {
			return nil, unknown("not authorized to %s", name)
		}
		if seen[name] {
			return nil, unknown("etcdserver: duplicate key given in txn request")
		}
		seen[name] = true
		current := int64(0)
		if j := f.journals[name]; j != nil {
			current = j.mod
		}
		if c.ExpectModRevision != -1 && c.ExpectModRevision != current {
			return &pb.ApplyResponse{Status: pb.Status_ETCD_TRANSACTION_FAILED, Header: b.header(nil)}, nil
		}
	}
	if len(req.Changes) != 0 {
		f.revision++
	}
	for _, c := range req.Changes {
		if c.Upsert == nil {
			delete(f.journals, c.Delete)
			continue
		}
		j := f.journals[c.Upsert.Name]
		if j == nil {
			j = &gazetteJournal{created: f.revision, registers: new(pb.LabelSet)}
			f.journals[c.Upsert.Name] = j
			j.spec = c.Upsert
			j.assign(0)
		}
		j.spec, j.mod = c.Upsert, f.revision
	}
	f.changed.Wake("")
	return &pb.ApplyResponse{Header: b.header(nil)}, nil
}

func (b *gazette) ListFragments(ctx context.Context, req *pb.FragmentsRequest) (*pb.FragmentsResponse, error) {
	f := b.fleet
	_, cancel, claims, err := b.authorize(ctx, auth.Read)
	defer cancel()
	if err != nil {
		return nil, err
	}
	b.ofClient("ListFragments", req.Header)
	f.mu.Lock()
	defer f.mu.Unlock()
	j, h, s, _ := b.resolve(req.Journal, claims, false, !req.DoNotProxy)
	resp := &pb.FragmentsResponse{Status: s, Header: h}
	if s != pb.Status_OK {
		return resp, nil
	}
	j.unlisted = false // This waits for it.
	limit := int(req.PageLimit)
	if limit == 0 {
		limit = pb.DefaultPageLimit
	}
	for _, fr := range j.fragments {
		switch {
		case fr.Begin < req.NextPageToken, fr.ModTime < req.BeginModTime, req.EndModTime != 0 && fr.ModTime > req.EndModTime:
			continue
		case len(resp.Fragments) == limit:
			resp.NextPageToken = fr.Begin
			return resp, nil
		}
		x := &pb.FragmentsResponse_XFragment{Spec: fr.Fragment}
		if req.SignatureTTL != nil {
			x.SignedUrl = fr.url
		}
		resp.Fragments = append(resp.Fragments, x)
	}
	return resp, nil
}

func (b *gazette) FragmentStoreHealth(ctx context.Context, req *pb.FragmentStoreHealthRequest) (*pb.FragmentStoreHealthResponse, error) {
	f := b.fleet
	_, cancel, _, err := b.authorize(ctx, auth.Read)
	defer cancel()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.FragmentStoreHealthResponse{Header: b.header(nil)}
	if strings.HasPrefix(req.FragmentStore, "s3:") {
		resp.Status, resp.StoreHealthError = pb.Status_FRAGMENT_STORE_UNHEALTHY, "put: access denied"
	}
	return resp, nil
}

func (b *gazette) Replicate(pb.Journal_ReplicateServer) error {
	b.fleet.t.Error("a client replicates")
	return unknown("not a peer")
}
