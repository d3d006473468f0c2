package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Every kind survives the way over the wire, through layers on both sides.
func TestKindsCrossTheWire(t *testing.T) {
	for k := range kinds {
		k := Kind(k)
		err := fmt.Errorf("layer: %w", New(k, "cause"))
		if KindOf(err) != k || !Is(err, k) {
			t.Errorf("%v: kind %v", k, KindOf(err))
		}
		back := fmt.Errorf("call: %w", FromGRPC(GRPC(err)))
		if KindOf(back) != k {
			t.Errorf("%v comes back as %v", k, KindOf(back))
		}
		if back.Error() != "call: layer: cause" {
			t.Errorf("%v: text %q", k, back)
		}
		if HTTP(err) < 400 {
			t.Errorf("%v: HTTP %d", k, HTTP(err))
		}
	}
}

func TestKindOfOthers(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Kind
	}{
		{nil, Internal},
		{errors.New("x"), Internal},
		{context.Canceled, Canceled},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), Deadline},
		{status.Error(codes.NotFound, "x"), NotFound},
		{fmt.Errorf("x: %w", status.Error(codes.Aborted, "x")), Transient},
		{status.Error(codes.Unknown, "x"), Internal},
	} {
		if got := KindOf(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
	if HTTP(nil) != http.StatusOK || GRPC(nil) != nil || FromGRPC(nil) != nil || Wrap(Internal, nil) != nil {
		t.Error("nil is not nil")
	}
}

func TestIsTransient(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("x"), false},
		{New(Internal, "local"), false},
		{New(Transient, "x"), true},
		{New(Invalid, "x"), false},
		{fmt.Errorf("x: %w", New(DataLoss, "x")), false},
		{status.Error(codes.Unavailable, "x"), true},
		{status.Error(codes.Internal, "a server's"), true},
		{FromGRPC(status.Error(codes.Unknown, "a server's")), true},
		{FromGRPC(status.Error(codes.InvalidArgument, "x")), false},
		{FromGRPC(status.Error(codes.PermissionDenied, "x")), true},
		{context.DeadlineExceeded, true},
	} {
		if got := IsTransient(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
}
