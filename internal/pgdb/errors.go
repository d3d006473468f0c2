package pgdb

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daybook-dev/daybook/internal/fault"
)

// The codes of PostgreSQL's errors that mean something to us.
const (
	ForeignKeyViolation  = "23503"
	UniqueViolation      = "23505"
	SerializationFailure = "40001"
	DeadlockDetected     = "40P01"
	AdminShutdown        = "57P01" // the server ended the connection, maybe long ago
)

// maxAttempts is how often something runs that loses conflicts, or meets connections that the server has closed.
const maxAttempts = 8

// Code returns the code of a server's error, or nothing.
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Classify gives an error of the database its kind. Errors that have one stay as they are.
func Classify(err error) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	switch c := Code(err); {
	case c == UniqueViolation:
		return fault.Wrap(fault.Exists, err)
	case c == ForeignKeyViolation, transient(c), c == "" && Lost(err):
		return fault.Wrap(fault.Transient, err)
	case strings.HasPrefix(c, "28"), c == "3D000", c == "42501": // who, no such database, not allowed
		return fault.Wrap(fault.Precondition, err)
	case c == "XX001", c == "XX002": // damaged data, a damaged index
		return fault.Wrap(fault.DataLoss, err)
	}
	return err
}

// transient reports whether the server may do better later: it lost a conflict, is starting, stopping, failing over, or short of something.
func transient(code string) bool {
	for _, class := range []string{"08", "40", "53", "57", "58030"} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return code == "55P03" || code == "25006" || code == "25P03"
}

// Lost reports whether the error is of a connection that broke or was never made.
func Lost(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// Refused reports whether there was no connection to be had.
func Refused(err error) bool {
	var connect *pgconn.ConnectError
	return errors.As(err, &connect)
}

// Retry runs fn, which has to be idempotent, until it succeeds, fails for good, or has lost too often against others or against
// connections from before the server's restart. With no server at all, the first attempt says enough.
func Retry(ctx context.Context, fn func() error) error {
	for n := 1; ; n++ {
		err := fn()
		if err == nil || n == maxAttempts || !again(err) || ctx.Err() != nil {
			return err
		}
		// Those who met should not meet again.
		pause := time.NewTimer(rand.N(time.Duration(n*n) * time.Millisecond)) //nolint:gosec // no secret
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

func again(err error) bool {
	switch c := Code(err); c {
	case SerializationFailure, DeadlockDetected, AdminShutdown:
		return true
	default:
		return c == "" && Lost(err) && !Refused(err)
	}
}
