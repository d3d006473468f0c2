package quarantine

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// Service is the operator's door to a Store: daybook.v1.Quarantine. Its errors are statuses.
type Service struct {
	daybookv1.UnimplementedQuarantineServer
	// Store is what it shows.
	Store *Store
	// Replay processes a message again. It returns nil when everything in it is stored.
	Replay func(ctx context.Context, msg []byte) error
	// Authorize refuses callers who may not use the service.
	Authorize func(ctx context.Context) error
}

// ListQuarantined lists what is kept.
func (s *Service) ListQuarantined(ctx context.Context, _ *daybookv1.ListQuarantinedRequest) (*daybookv1.ListQuarantinedResponse, error) {
	if err := s.Authorize(ctx); err != nil {
		return nil, fault.GRPC(err)
	}
	all, err := s.Store.List()
	if err != nil {
		return nil, fault.GRPC(err)
	}
	return &daybookv1.ListQuarantinedResponse{Messages: all, Evicted: s.Store.Evicted()}, nil
}

// GetQuarantined shows a message without its secret.
func (s *Service) GetQuarantined(ctx context.Context, r *daybookv1.GetQuarantinedRequest) (*daybookv1.GetQuarantinedResponse, error) {
	if err := s.Authorize(ctx); err != nil {
		return nil, fault.GRPC(err)
	}
	m, err := s.Store.Get(r.GetId())
	if err != nil {
		return nil, fault.GRPC(err)
	}
	resp := &daybookv1.GetQuarantinedResponse{Message: m.About}
	b, err := decode(m.Body)
	if err != nil {
		resp.DecodeError = err.Error()
		return resp, nil
	}
	resp.Bundle, resp.SecretLength = b, int64(len(b.GetSecret()))
	b.Secret = nil
	for _, e := range b.GetEntries() {
		e.DeprecatedEntrySecret = nil
	}
	return resp, nil
}

// decode decodes a message as far as that is possible for whoever does not know its version.
func decode(msg []byte) (*logpb.ButlerLogBundle, error) {
	meta, body, err := envelope.Open(msg)
	if err != nil {
		return nil, err
	}
	if meta.GetProtoVersion() != envelope.ProtoVersion {
		return nil, fault.New(fault.Invalid, "the message has version %q; %q is known", meta.GetProtoVersion(), envelope.ProtoVersion)
	}
	if body, err = envelope.Inflate(nil, meta.GetCompression(), body); err != nil {
		return nil, err
	}
	b := new(logpb.ButlerLogBundle)
	return b, proto.Unmarshal(body, b)
}

// ReplayQuarantined processes messages again.
func (s *Service) ReplayQuarantined(ctx context.Context, r *daybookv1.ReplayQuarantinedRequest) (*daybookv1.ReplayQuarantinedResponse, error) {
	if err := s.Authorize(ctx); err != nil {
		return nil, fault.GRPC(err)
	}
	ids := r.GetIds()
	if len(ids) == 0 {
		ids = s.Store.ids()
	}
	resp := new(daybookv1.ReplayQuarantinedResponse)
	var stored []int64
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		result := &daybookv1.ReplayQuarantinedResponse_Result{Id: id}
		m, err := s.Store.Get(id)
		if err == nil {
			err = s.Replay(ctx, m.Body)
		}
		if err == nil {
			result.Stored = true
			stored = append(stored, id)
		} else {
			result.Error = err.Error()
		}
		resp.Results = append(resp.Results, result)
	}
	// Whatever happens here, processing them once more would change nothing.
	if _, err := s.Store.Drop(stored...); err != nil {
		return nil, fault.GRPC(err)
	}
	return resp, fault.GRPC(ctx.Err())
}

// DropQuarantined removes messages for good.
func (s *Service) DropQuarantined(ctx context.Context, r *daybookv1.DropQuarantinedRequest) (*daybookv1.DropQuarantinedResponse, error) {
	if err := s.Authorize(ctx); err != nil {
		return nil, fault.GRPC(err)
	}
	ids := r.GetIds()
	switch {
	case r.GetAll() && len(ids) == 0:
		ids = s.Store.ids()
	case r.GetAll() == (len(ids) > 0):
		return nil, fault.GRPC(fault.New(fault.Invalid, "give either the ids of messages, or all"))
	}
	n, err := s.Store.Drop(ids...)
	return &daybookv1.DropQuarantinedResponse{Dropped: int64(n)}, fault.GRPC(err)
}
