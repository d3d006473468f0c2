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

// resumption sends, in the background, what commands left behind that died or found no server.
type resumption struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// resumeSpools begins to send every spool below a directory whose owner is gone.
func resumeSpools(ctx context.Context, root string, conn clientConn, log *slog.Logger) *resumption {
	ctx, cancel := context.WithCancel(ctx)
	r := &resumption{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if _, err := flushSpools(ctx, root, conn, log); err != nil && ctx.Err() == nil {
			log.Warn("send what earlier commands left in their spools", "error", err)
		}
	}()
	return r
}

// wait returns when nothing more is to be sent, or ctx ends.
func (r *resumption) wait(ctx context.Context) {
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// stop ends it. What was not sent stays in its spool.
func (r *resumption) stop() {
	r.cancel()
	<-r.done
}

// journalClient talks to the journals of one server.
func journalClient(conn clientConn) protocol.RoutedJournalClient {
	return client.NewClient(conn, client.DialConfig{})
}
