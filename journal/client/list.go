package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// ListAllJournals returns one listing of the journals that the request selects. It waits for a connection, so ctx should have
// a deadline. If the client is a router it learns the journals' routes.
func ListAllJournals(ctx context.Context, jc pb.JournalClient, req *pb.ListRequest) (*pb.ListResponse, error) {
	if req.GetWatch() {
		return nil, fault.New(fault.Invalid, "list journals: the request is to watch, which never ends")
	}
	if err := req.Validate(); err != nil {
		return nil, err
	}
	rpcCtx, cancel := context.WithCancel(pb.WithDispatchDefault(ctx))
	defer cancel()
	stream, err := jc.List(rpcCtx, req, grpc.WaitForReady(true))
	if err != nil {
		return nil, mapContext(ctx, err)
	}
	resp, err := ReadListResponse(stream, req)
	if err != nil {
		return nil, mapContext(ctx, err)
	}
	if router, ok := jc.(pb.DispatchRouter); ok {
		for _, j := range resp.Journals {
			router.UpdateRoute(j.GetSpec().GetName(), j.Route)
		}
	}
	return resp, nil
}

// ReadListResponse reads one complete listing from a stream. An end of the stream before it has begun is io.EOF.
func ReadListResponse(stream pb.Journal_ListClient, req *pb.ListRequest) (*pb.ListResponse, error) {
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := validateResponse("ListResponse", resp); err != nil {
		return nil, err
	}
	if resp.Status != pb.Status_OK {
		return nil, errorOfStatus(resp.Status)
	}
	// The revisions of a broker that began anew, without what it had, are others.
	last, etcd := req.GetWatchResume().GetEtcd(), resp.Header.Etcd
	if last.GetClusterId() == etcd.ClusterId && etcd.Revision <= last.Revision {
		return nil, fault.New(fault.Internal, "broker sent a listing of revision %d after one of revision %d", etcd.Revision, last.Revision)
	}
	for {
		next, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && !req.GetWatch():
			return resp, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case len(next.Journals) != 0:
			resp.Journals = append(resp.Journals, next.Journals...)
		case req.GetWatch():
			return resp, nil
		default:
			return nil, fault.New(fault.Internal, "broker sent an empty continuation of a listing")
		}
	}
}

// GetJournal returns the spec of a journal. That it does not exist is an error of the kind fault.NotFound.
func GetJournal(ctx context.Context, jc pb.JournalClient, journal pb.Journal) (*pb.JournalSpec, error) {
	name := journal.StripMeta()
	if err := name.Validate(); err != nil {
		return nil, err
	}
	resp, err := ListAllJournals(ctx, jc, &pb.ListRequest{
		Selector: &pb.LabelSelector{Include: &pb.LabelSet{Labels: []*pb.Label{{Name: pb.LabelName, Value: string(name)}}}},
	})
	if err != nil {
		return nil, err
	}
	if len(resp.Journals) == 0 {
		return nil, fault.New(fault.NotFound, "journal %s does not exist", name)
	}
	return resp.Journals[0].Spec, nil
}

// ApplyJournals makes all changes of the request, or none.
func ApplyJournals(ctx context.Context, jc pb.JournalClient, req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	return ApplyJournalsInBatches(ctx, jc, req, 0)
}

// ApplyJournalsInBatches makes the changes of the request in order, at most size at once, or all at once if size is zero. It
// stops at the first failure; what was changed before stays. The last response is returned, also with an error.
func ApplyJournalsInBatches(ctx context.Context, jc pb.JournalClient, req *pb.ApplyRequest, size int) (*pb.ApplyResponse, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	rest := req.GetChanges()
	if size <= 0 {
		size = max(1, len(rest))
	}
	var last *pb.ApplyResponse
	for {
		n := min(size, len(rest))
		resp, err := jc.Apply(pb.WithDispatchDefault(ctx), &pb.ApplyRequest{Changes: rest[:n]}, grpc.WaitForReady(true))
		if err != nil {
			return last, mapContext(ctx, err)
		}
		if err := validateResponse("ApplyResponse", resp); err != nil {
			return last, err
		}
		last = resp
		if resp.Status != pb.Status_OK {
			return last, errorOfStatus(resp.Status)
		}
		if rest = rest[n:]; len(rest) == 0 {
			return last, nil
		}
	}
}

// ListAllFragments returns the fragments of a journal that match the request, from its page token on, following pages to the
// end. Pages that were read before an error are returned with it.
func ListAllFragments(ctx context.Context, rjc pb.RoutedJournalClient, req *pb.FragmentsRequest) (*pb.FragmentsResponse, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	item := string(pb.Journal(req.Journal).StripMeta())
	rpcCtx := pb.WithDispatchItemRoute(ctx, rjc, item, false)
	req = proto.CloneOf(req)
	var all *pb.FragmentsResponse
	for {
		page, err := rjc.ListFragments(rpcCtx, req)
		if err != nil {
			return all, mapContext(ctx, err)
		}
		if err := validateResponse("FragmentsResponse", page); err != nil {
			return all, err
		}
		rjc.UpdateRoute(item, page.Header.Route)
		if page.Status != pb.Status_OK {
			return all, errorOfStatus(page.Status)
		}
		next := page.NextPageToken
		if page.NextPageToken = 0; all == nil {
			all = page
		} else {
			all.Fragments = append(all.Fragments, page.Fragments...)
		}
		if next == 0 {
			return all, nil
		}
		if next <= req.NextPageToken {
			return all, fault.New(fault.Internal, "broker sent page token %d of %s after %d", next, item, req.NextPageToken)
		}
		req.NextPageToken = next
	}
}

// FragmentStoreHealth asks a broker whether it can use a store. The response says so, with the status OK or
// FRAGMENT_STORE_UNHEALTHY and then the reason; all else is an error. If prefix is not nil, the broker also tries to delete
// an object below it, or below the root of the store if it is empty.
func FragmentStoreHealth(ctx context.Context, jc pb.JournalClient, store pb.FragmentStore, prefix *string) (*pb.FragmentStoreHealthResponse, error) {
	req := &pb.FragmentStoreHealthRequest{FragmentStore: string(store)}
	if prefix != nil {
		req.CheckDelete, req.CheckDeletePrefix = true, *prefix
	}
	if err := req.Validate(); err != nil {
		return nil, err
	}
	resp, err := jc.FragmentStoreHealth(pb.WithDispatchDefault(ctx), req)
	if err != nil {
		return nil, mapContext(ctx, err)
	}
	if err := validateResponse("FragmentStoreHealthResponse", resp); err != nil {
		return nil, err
	}
	if resp.Status != pb.Status_OK && resp.Status != pb.Status_FRAGMENT_STORE_UNHEALTHY {
		return nil, errorOfStatus(resp.Status)
	}
	return resp, nil
}
