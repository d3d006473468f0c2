package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/types"
)

// clientConn is a connection to the server.
type clientConn = grpc.ClientConnInterface

type flushCmd struct {
	serverFlags
}

func (c *flushCmd) Help() string {
	return "A command whose output no server took, or that was killed, leaves it in a spool in the data directory. The next daybook run or serve sends it; so does this. " +
		"It gives up on a spool of which the server takes nothing for two minutes; what is left stays."
}

const (
	// flushPatience is how long a server may take nothing of a spool until daybook flush gives up.
	flushPatience = 2 * time.Minute
	// resumePatience is that of the background, which tries the next spool then, and this one later.
	resumePatience = 30 * time.Second
	// restPatience is that for further spools, once nothing was taken of one.
	restPatience = 5 * time.Second
	// What the server did not take is tried again after a pause that doubles from the first to the last.
	firstResumePause = 10 * time.Second
	lastResumePause  = 5 * time.Minute
)

func (c *flushCmd) Run(e *env) (err error) {
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	f := flusher{conn: l.conn, root: l.Spools(), patience: flushPatience, log: e.log}
	tell := time.AfterFunc(outageNotice, func() {
		fmt.Fprintf(e.stderr, "daybook: sending; if the server takes nothing for %v, what is left stays on disk\n", flushPatience)
	})
	ends := &endings{logs: daybookv1.NewLogsClient(l.conn), log: e.log}
	f.ended = ends.add
	err = f.flush(e.ctx)
	tell.Stop()
	ends.await(e.ctx)
	_, werr := fmt.Fprintf(e.stdout, "daybook: %d spools sent\n", f.sent)
	n, oerr := spoolsElsewhere(l)
	if n > 0 {
		fmt.Fprintf(e.stderr, "daybook: %d more are for other servers, which daybook spool ls shows; name them by --server\n", n)
	}
	return errors.Join(err, werr, oerr)
}

// spoolsElsewhere returns how many spools were left behind that are meant for other servers.
func spoolsElsewhere(l *link) (n int, err error) {
	roots, err := spoolRoots(l.dir)
	for _, root := range roots {
		if root == l.Spools() {
			continue
		}
		spools, serr := daybook.Spools(root)
		err = errors.Join(err, serr)
		for _, s := range spools {
			if !s.Alive {
				n++
			}
		}
	}
	return n, err
}

// flusher sends the spools below a directory whose owners are gone.
type flusher struct {
	conn     clientConn
	root     string
	patience time.Duration
	log      *slog.Logger
	// ended, unless nil, is told the streams that were sent.
	ended func(types.Project, types.StreamName, []types.StreamName)

	// sent counts the spools of which nothing is left.
	sent int
	// again says that there are some of which the server took nothing, but may later.
	again bool
}

// flush sends them one after the other. One that cannot be sent keeps no other one back.
func (f *flusher) flush(ctx context.Context) error {
	spools, err := daybook.Spools(f.root)
	f.again = false
	for _, s := range spools {
		if s.Alive {
			continue
		}
		patience := f.patience
		if f.again {
			patience = restPatience
		}
		rerr := daybook.Resume(ctx, s.Dir, daybook.ResumeConfig{
			Journals: journalClient(f.conn), Registration: logdog.NewRegistrationClient(f.conn), Patience: patience, Sent: f.ended, Logger: f.log,
		})
		switch {
		case rerr == nil:
			f.sent++
		case ctx.Err() != nil:
			return errors.Join(err, rerr)
		case fault.Is(rerr, fault.NotFound), fault.Is(rerr, fault.Precondition):
			// somebody else was faster, or its owner is only just beginning
		case fault.Is(rerr, fault.Deadline):
			f.again = true
			err = errors.Join(err, fmt.Errorf("send the spool of %s: %w; it stays, daybook flush tries again", s.Name(), rerr))
		default:
			err = errors.Join(err, fmt.Errorf("send the spool of %s: %w; if it can never be sent, daybook spool drop %[1]s gives it up", s.Name(), rerr))
		}
	}
	return err
}

// resumption sends, in the background, what commands left behind that died or found no server.
type resumption struct {
	cancel context.CancelFunc
	// tried is closed when each spool was sent, or could not be; done, when nothing more is.
	tried, done chan struct{}
}

// resumeSpools begins to send every spool below a directory whose owner is gone.
func resumeSpools(ctx context.Context, root string, conn clientConn, log *slog.Logger) *resumption {
	ctx, cancel := context.WithCancel(ctx)
	r := &resumption{cancel: cancel, tried: make(chan struct{}), done: make(chan struct{})}
	tried := sync.OnceFunc(func() { close(r.tried) })
	go func() {
		defer close(r.done)
		defer tried()
		f := flusher{conn: conn, root: root, patience: resumePatience, log: log}
		for pause := firstResumePause; ; pause = min(2*pause, lastResumePause) {
			if err := f.flush(ctx); err != nil && ctx.Err() == nil {
				log.Warn("send what earlier commands left in their spools", "error", err)
			}
			if !f.again {
				return
			}
			tried()
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
	return r
}

// wait returns when each spool was tried, or ctx ends.
func (r *resumption) wait(ctx context.Context) {
	select {
	case <-r.tried:
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
