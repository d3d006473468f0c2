// Package leases is how the processes of an installation share out work: the service daybook.v1.Leases, over the leases in the state's
// database. It needs the permission that Collectors and Archivists have.
//
// The service is safe for concurrent use. Its errors are statuses.
package leases

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Service implements daybook.v1.Leases.
type Service struct {
	daybookv1.UnimplementedLeasesServer
	store  state.Leases
	access access.Checker
}

// New returns a Service.
func New(store state.Leases, a access.Checker) *Service { return &Service{store: store, access: a} }

func (s *Service) authorize(ctx context.Context) error {
	return s.access.Check(ctx, "", "", access.Services)
}

// AcquireLease takes or prolongs a lease.
func (s *Service) AcquireLease(ctx context.Context, r *daybookv1.AcquireLeaseRequest) (*daybookv1.AcquireLeaseResponse, error) {
	err := s.authorize(ctx)
	if err == nil && r.GetTtl().CheckValid() != nil {
		err = fault.New(fault.Invalid, "ttl: %w", r.GetTtl().CheckValid())
	}
	acquired := false
	if err == nil {
		acquired, err = s.store.AcquireLease(ctx, r.GetName(), r.GetHolder(), r.GetTtl().AsDuration())
	}
	if err != nil {
		return nil, fault.GRPC(err)
	}
	return &daybookv1.AcquireLeaseResponse{Acquired: acquired}, nil
}

// ReleaseLease ends a lease, if the holder has it.
func (s *Service) ReleaseLease(ctx context.Context, r *daybookv1.ReleaseLeaseRequest) (*daybookv1.ReleaseLeaseResponse, error) {
	err := s.authorize(ctx)
	if err == nil {
		err = s.store.ReleaseLease(ctx, r.GetName(), r.GetHolder())
	}
	if err != nil {
		return nil, fault.GRPC(err)
	}
	return &daybookv1.ReleaseLeaseResponse{}, nil
}

// ListLeases lists the leases that have not ended.
func (s *Service) ListLeases(ctx context.Context, r *daybookv1.ListLeasesRequest) (*daybookv1.ListLeasesResponse, error) {
	err := s.authorize(ctx)
	var live []state.Lease
	if err == nil {
		live, err = s.store.LiveLeases(ctx, r.GetPrefix())
	}
	if err != nil {
		return nil, fault.GRPC(err)
	}
	resp := new(daybookv1.ListLeasesResponse)
	for _, l := range live {
		resp.Leases = append(resp.Leases, &daybookv1.Lease{Name: l.Name, Holder: l.Holder, Until: timestamppb.New(l.Until)})
	}
	return resp, nil
}
