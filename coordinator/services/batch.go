package services

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	batchParallelism = 8
	// maxBatchSize bounds the answers of a batch together. Callers submit again what got no answer.
	maxBatchSize = 31 << 20
)

// Batch executes its entries side by side; the failure of one is no failure of the batch.
func (s *Service) Batch(ctx context.Context, r *logdog.BatchRequest) (*logdog.BatchResponse, error) {
	var (
		mu   sync.Mutex
		resp logdog.BatchResponse
		size int
		g    errgroup.Group
	)
	g.SetLimit(batchParallelism)
	for i, req := range r.GetReq() {
		g.Go(func() error {
			e := s.batchEntry(ctx, req)
			e.Index = int32(i)
			n := proto.Size(e)
			mu.Lock()
			defer mu.Unlock()
			if size+n <= maxBatchSize {
				size += n
				resp.Resp = append(resp.Resp, e)
			}
			return nil
		})
	}
	_ = g.Wait() // no entry returns an error
	return &resp, nil
}

func (s *Service) batchEntry(ctx context.Context, req *logdog.BatchRequest_Entry) *logdog.BatchResponse_Entry {
	var e logdog.BatchResponse_Entry
	var err error
	switch v := req.GetValue().(type) {
	case *logdog.BatchRequest_Entry_RegisterStream:
		var r *logdog.RegisterStreamResponse
		if r, err = s.registerStream(ctx, v.RegisterStream); err == nil {
			e.Value = &logdog.BatchResponse_Entry_RegisterStream{RegisterStream: r}
		}
	case *logdog.BatchRequest_Entry_LoadStream:
		var r *logdog.LoadStreamResponse
		if r, err = s.loadStream(ctx, v.LoadStream); err == nil {
			e.Value = &logdog.BatchResponse_Entry_LoadStream{LoadStream: r}
		}
	case *logdog.BatchRequest_Entry_TerminateStream:
		err = s.terminateStream(ctx, v.TerminateStream)
	case *logdog.BatchRequest_Entry_ArchiveStream:
		err = s.archiveStream(ctx, v.ArchiveStream)
	default:
		err = fault.New(fault.Invalid, "entry of the batch asks for nothing")
	}
	if err != nil {
		e.Value = &logdog.BatchResponse_Entry_Err{Err: batchError(err)}
	}
	return &e
}

// batchError encodes an error. Clients of old expect no message.
func batchError(err error) *logdog.Error {
	code := status.Code(fault.GRPC(err))
	e := &logdog.Error{GrpcCode: int32(code)}
	switch code {
	case codes.Internal, codes.Unknown, codes.Unavailable, codes.DeadlineExceeded:
		e.Transient = true
	}
	return e
}
