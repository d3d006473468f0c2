package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Statuses of brokers. The text of each error is the name of its status. Use errors.Is to compare.
var (
	ErrFragmentStoreUnhealthy     = statusError(fault.Transient, pb.Status_FRAGMENT_STORE_UNHEALTHY)
	ErrIndexHasGreaterOffset      = statusError(fault.Precondition, pb.Status_INDEX_HAS_GREATER_OFFSET)
	ErrInsufficientJournalBrokers = statusError(fault.Transient, pb.Status_INSUFFICIENT_JOURNAL_BROKERS)
	ErrJournalNotFound            = statusError(fault.NotFound, pb.Status_JOURNAL_NOT_FOUND)
	ErrNoJournalPrimaryBroker     = statusError(fault.Transient, pb.Status_NO_JOURNAL_PRIMARY_BROKER)
	ErrNotAllowed                 = statusError(fault.Denied, pb.Status_NOT_ALLOWED)
	ErrNotJournalBroker           = statusError(fault.Transient, pb.Status_NOT_JOURNAL_BROKER)
	ErrNotJournalPrimaryBroker    = statusError(fault.Transient, pb.Status_NOT_JOURNAL_PRIMARY_BROKER)
	ErrOffsetNotYetAvailable      = statusError(fault.OutOfRange, pb.Status_OFFSET_NOT_YET_AVAILABLE)
	ErrRegisterMismatch           = statusError(fault.Precondition, pb.Status_REGISTER_MISMATCH)
	ErrSuspended                  = statusError(fault.Precondition, pb.Status_SUSPENDED)
	ErrWrongAppendOffset          = statusError(fault.Precondition, pb.Status_WRONG_APPEND_OFFSET)
)

var (
	// ErrOffsetJump is returned by Reader.Read when the next byte lies at a larger offset than the requested one, for example
	// because a span of the journal was deleted. Request.Offset is the new offset already, and Read may be called again.
	ErrOffsetJump = errors.New("offset jump")
	// ErrSeekRequiresNewReader is returned by Reader.Seek when this reader cannot get there. A new one can.
	ErrSeekRequiresNewReader = errors.New("seek offset requires new Reader")
	// ErrDidNotReadExpectedEOF is returned by FragmentReader.Read when a file goes on behind the end of its fragment.
	ErrDidNotReadExpectedEOF = fault.New(fault.DataLoss, "did not read EOF at expected Fragment.End")
)

var statusErrors = map[pb.Status]error{
	pb.Status_FRAGMENT_STORE_UNHEALTHY:     ErrFragmentStoreUnhealthy,
	pb.Status_INDEX_HAS_GREATER_OFFSET:     ErrIndexHasGreaterOffset,
	pb.Status_INSUFFICIENT_JOURNAL_BROKERS: ErrInsufficientJournalBrokers,
	pb.Status_JOURNAL_NOT_FOUND:            ErrJournalNotFound,
	pb.Status_NO_JOURNAL_PRIMARY_BROKER:    ErrNoJournalPrimaryBroker,
	pb.Status_NOT_ALLOWED:                  ErrNotAllowed,
	pb.Status_NOT_JOURNAL_BROKER:           ErrNotJournalBroker,
	pb.Status_NOT_JOURNAL_PRIMARY_BROKER:   ErrNotJournalPrimaryBroker,
	pb.Status_OFFSET_NOT_YET_AVAILABLE:     ErrOffsetNotYetAvailable,
	pb.Status_REGISTER_MISMATCH:            ErrRegisterMismatch,
	pb.Status_SUSPENDED:                    ErrSuspended,
	pb.Status_WRONG_APPEND_OFFSET:          ErrWrongAppendOffset,
}

func statusError(k fault.Kind, s pb.Status) error { return fault.New(k, "%s", s) }

// errorOfStatus returns the error of a status other than OK.
func errorOfStatus(s pb.Status) error {
	if err, ok := statusErrors[s]; ok {
		return err
	}
	return statusError(fault.Internal, s)
}

// mapContext returns the plain error of a context that ended as the reason of a failed RPC, and other errors as they are.
func mapContext(ctx context.Context, err error) error {
	switch ctxErr := ctx.Err(); {
	case ctxErr == nil:
		return err
	case errors.Is(ctxErr, context.DeadlineExceeded) && status.Code(err) == codes.DeadlineExceeded,
		errors.Is(ctxErr, context.Canceled) && status.Code(err) == codes.Canceled:
		return ctxErr
	}
	return err
}

// validateResponse wraps what is wrong with a response. That is the broker's fault, and not an invalid request.
func validateResponse(what string, m interface{ Validate() error }) error {
	if err := m.Validate(); err != nil {
		return fault.New(fault.Internal, "broker sent an invalid %s: %w", what, err)
	}
	return nil
}

// isContextError reports whether err is, or wraps, the end of a context of ours.
func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func registerMismatch(req *pb.AppendRequest, resp *pb.AppendResponse) error {
	return fmt.Errorf("%w: registers {%s} do not match %q", ErrRegisterMismatch, formatLabels(resp.GetRegisters()), req.GetCheckRegisters().Canonical())
}

func formatLabels(s *pb.LabelSet) string {
	return (&pb.LabelSelector{Include: s}).Canonical()
}
