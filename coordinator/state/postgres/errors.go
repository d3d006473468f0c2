package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daybook-dev/daybook/internal/fault"
)

// The codes of PostgreSQL's errors that mean something to us.
const (
	foreignKeyViolation  = "23503"
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	adminShutdown        = "57P01" // the server ended the connection, maybe long ago
)

// code returns the code of a server's error, or nothing.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// classify gives an error of the database its kind. Errors that have one stay as they are.
func classify(err error) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	switch c := code(err); {
	case c == uniqueViolation:
		return fault.Wrap(fault.Exists, err)
	case c == foreignKeyViolation, transientCode(c), c == "" && lost(err):
		return fault.Wrap(fault.Transient, err)
	case strings.HasPrefix(c, "28"), c == "3D000", c == "42501": // who, no such database, not allowed
		return fault.Wrap(fault.Precondition, err)
	}
	return err
}

// transientCode reports whether the server may do better later: it lost a conflict, is starting, stopping, failing over, or short of something.
func transientCode(c string) bool {
	for _, class := range []string{"08", "40", "53", "57", "58030"} {
		if strings.HasPrefix(c, class) {
			return true
		}
	}
	return c == "55P03" || c == "25006" || c == "25P03"
}

// lost reports whether the error is of a connection that broke or was never made.
func lost(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// wrap says what failed. Errors of our own kinds, and context errors, need no more words.
func wrap(err error, format string, args ...any) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	return classify(fmt.Errorf("coordinator state: "+format+": %w", append(args, err)...))
}

// refused reports whether there was no connection to be had.
func refused(err error) bool {
	var connect *pgconn.ConnectError
	return errors.As(err, &connect)
}
