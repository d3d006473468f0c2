// Package fault is the closed set of error kinds of Daybook and their one mapping to RPC and HTTP codes.
//
// An error gets its kind where it arises, with New or Wrap, and keeps it through any number of fmt.Errorf("…: %w") layers.
// A server turns it into a status at its edge with GRPC or HTTP; a client turns a status back with FromGRPC next to the call,
// so that KindOf answers the same on both sides of the wire. Whether an operation may be tried again is asked of
// IsTransient, never guessed from text.
//
// All functions are safe for concurrent use.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind classifies an error. The set is closed and append-only.
type Kind int

const (
	// Internal is a defect or a failure that nobody foresaw. It is the kind of an error that carries none.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it is.
	Invalid
	// NotFound says that the named thing does not exist.
	NotFound
	// Exists says that the thing to be created exists already.
	Exists
	// Precondition says that the state of the system forbids the request.
	Precondition
	// Denied says that the caller is known and not allowed.
	Denied
	// Unauthenticated says that the caller is not known, and unknown callers are not allowed.
	Unauthenticated
	// Exhausted says that a quota or a limit is reached.
	Exhausted
	// Transient says that the same request may succeed later.
	Transient
	// DataLoss says that stored bytes are damaged or gone.
	DataLoss
	// OutOfRange says that a position lies beyond what can ever be.
	OutOfRange
	// Unimplemented says that the operation is not offered here.
	Unimplemented
	// Canceled says that the caller went away.
	Canceled
	// Deadline says that the time of the caller is over.
	Deadline
)

// Each kind's name, gRPC code and HTTP status, in the order of the constants.
var kinds = [...]struct {
	name string
	code codes.Code
	http int
}{
	Internal:        {"internal", codes.Internal, http.StatusInternalServerError},
	Invalid:         {"invalid", codes.InvalidArgument, http.StatusBadRequest},
	NotFound:        {"not found", codes.NotFound, http.StatusNotFound},
	Exists:          {"exists", codes.AlreadyExists, http.StatusConflict},
	Precondition:    {"precondition", codes.FailedPrecondition, http.StatusPreconditionFailed},
	Denied:          {"denied", codes.PermissionDenied, http.StatusForbidden},
	Unauthenticated: {"unauthenticated", codes.Unauthenticated, http.StatusUnauthorized},
	Exhausted:       {"exhausted", codes.ResourceExhausted, http.StatusTooManyRequests},
	Transient:       {"transient", codes.Unavailable, http.StatusServiceUnavailable},
	DataLoss:        {"data loss", codes.DataLoss, http.StatusInternalServerError},
	OutOfRange:      {"out of range", codes.OutOfRange, http.StatusRequestedRangeNotSatisfiable},
	Unimplemented:   {"unimplemented", codes.Unimplemented, http.StatusNotImplemented},
	Canceled:        {"canceled", codes.Canceled, 499},
	Deadline:        {"deadline", codes.DeadlineExceeded, http.StatusGatewayTimeout},
}

// String returns the kind's name.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kinds[k].name
}

// Error is an error with a kind.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that was given its kind.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus makes status.FromError and the gRPC server use the mapping of this package.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(kinds[e.Kind].code, e.Err.Error())
}

// New formats an error of the given kind. The format may wrap other errors with %w.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err a kind; nil stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// KindOf returns the kind of the outermost Error in err's chain; the kinds of context errors and gRPC statuses are known too.
// An error without any of these, and nil, are Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	}
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return kindOfCode(s.GRPCStatus().Code())
	}
	return Internal
}

// Is reports whether err is non-nil and of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// IsTransient reports whether the operation that failed with err may succeed when tried again. Statuses that say nothing
// about the request itself count as transient: a quota, a deadline, a call cut off, a caller not (yet) known.
func IsTransient(err error) bool {
	if err == nil {
		return false
	}
	switch KindOf(err) {
	case Transient, Exhausted, Deadline, Canceled, Unauthenticated, Denied:
		return true
	case Internal:
		// A server that failed in a way nobody foresaw may do better next time. A local error of no kind will not.
		var remote *remoteError
		if errors.As(err, &remote) {
			return true
		}
		var e *Error
		var s interface{ GRPCStatus() *status.Status }
		return !errors.As(err, &e) && errors.As(err, &s)
	}
	return false
}

// GRPC returns err as a gRPC status error. A status stays as it is.
func GRPC(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(kinds[KindOf(err)].code, err.Error())
}

// FromGRPC returns an error of the kind of the status in err, with the status's message. Errors that are not statuses
// stay as they are.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	return &Error{Kind: kindOfCode(s.Code()), Err: &remoteError{s}}
}

// HTTP returns the HTTP status of err.
func HTTP(err error) int {
	if err == nil {
		return http.StatusOK
	}
	return kinds[KindOf(err)].http
}

// remoteError keeps the status that a server sent, so that IsTransient can tell it from a local error.
type remoteError struct{ s *status.Status }

func (e *remoteError) Error() string              { return e.s.Message() }
func (e *remoteError) GRPCStatus() *status.Status { return e.s }

func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.Unknown:
		return Internal
	case codes.Aborted:
		return Transient
	}
	for k, m := range kinds {
		if m.code == c {
			return Kind(k)
		}
	}
	return Internal
}
