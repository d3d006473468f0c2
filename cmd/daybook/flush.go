package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// clientConn is a connection to the server.
type clientConn = grpc.ClientConnInterface

type flushCmd struct {
	serverFlags
}

func (c *flushCmd) Help() string {
	return "A command whose output no server took, or that was killed, leaves it in a spool in the data directory. The next daybook run or serve sends it; so does this."
}

func (c *flushCmd) Run(e *env) (err error) {
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	n, err := flushSpools(e.ctx, l.Spools(), l.conn, e.log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "daybook: %d spools sent\n", n)
	return err
}

// flushSpools sends every spool below a directory whose owner is gone, and returns how many it did.
func flushSpools(ctx context.Context, root string, conn clientConn, log *slog.Logger) (sent int, err error) {
	spools, err := daybook.Spools(root)
	if err != nil {
		return 0, err
	}
	for _, s := range spools {
		if s.Alive {
			continue
		}
		rerr := daybook.Resume(ctx, s.Dir, daybook.ResumeConfig{
			Journals: journalClient(conn), Registration: logdog.NewRegistrationClient(conn), Logger: log,
		})
		if fault.Is(rerr, fault.NotFound) || fault.Is(rerr, fault.Precondition) {
			continue // somebody else was faster, or its owner is only just beginning
		}
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("send the spool %s: %w", s.Dir, rerr))
			continue
		}
		sent++
	}
	return sent, err
}

// journalClient talks to the journals of one server.
func journalClient(conn clientConn) protocol.RoutedJournalClient {
	return client.NewClient(conn, client.DialConfig{})
}
