package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/butler/process"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// bufferAge is how long a line may wait for company before it is sent, when the server keeps up.
	bufferAge = 50 * time.Millisecond
	// flushStall is how long the end of a command is delayed while nothing gets through to the server.
	flushStall = 5 * time.Second
	// settleLimit is how long the end of a command waits for readers to be able to see all of its output.
	settleLimit = 10 * time.Second
	// captureMemory is what a run that only captures needs, with room to spare.
	captureMemory = 56 << 20
	// outageNotice is how long a server may be out of reach before the user is told.
	outageNotice = 2 * time.Second
)

type runCmd struct {
	serverFlags
	Project types.Project `help:"Project of the streams." default:"local"`
	Prefix  string        `help:"Prefix of the streams; must be new. By default user/host/command/time." placeholder:"PREFIX"`
	PTY     process.Mode  `help:"Give the command a terminal of its own: auto (where ours is one), always, never." enum:"auto,always,never" default:"auto" name:"pty"`
	Command []string      `arg:"" passthrough:"" help:"The command and its arguments."`
}

func (c *runCmd) Help() string {
	return "The output is captured as the streams stdout and stderr below the prefix. The first line on stderr is the address of their page.\n\n" +
		"The exit code is the command's; 128 plus the signal that killed it; 127 or 126 if it cannot be started. " +
		"Logging never holds or fails the command: while no server takes the output it is kept on disk, and sent later."
}

func (c *runCmd) Run(e *env) error {
	args := c.Command
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return fault.New(fault.Invalid, "no command; say daybook run -- COMMAND ARGS…")
	}
	if err := c.Project.Validate(); err != nil {
		return fault.New(fault.Invalid, "--project: %w", err)
	}
	prefix := types.StreamName(c.Prefix)
	if prefix == "" {
		var err error
		if prefix, err = generatePrefix(args, time.Now()); err != nil {
			return err
		}
	} else if err := prefix.Validate(); err != nil {
		return fault.New(fault.Invalid, "--prefix: %w", err)
	}

	// The signals that end us are the command's while it runs; they must not end the capture.
	ctx := context.WithoutCancel(e.ctx)
	p := process.Config{Args: args, PTY: c.PTY, Stdin: e.stdin, Stdout: e.stdout, Stderr: e.stderr}
	capture, err := c.openCapture(ctx, e, prefix)
	if err != nil {
		fmt.Fprintf(e.stderr, "daybook: the output is not captured: %v\n", err)
		p.Capture = discard
		return c.result(process.Run(ctx, p))
	}
	fmt.Fprintf(e.stderr, "daybook: %s/logs/%s/%s\n", capture.url, c.Project, prefix.Join("stdout"))
	p.Capture = capture.add
	result, err := process.Run(ctx, p)

	end, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	capture.finish(end)
	if result.Dropped > 0 {
		fmt.Fprintf(e.stderr, "daybook: %d bytes of output were not captured: the spool took nothing for a while; the place is marked in the stream\n", result.Dropped)
	}
	return c.result(result, err)
}

// result turns how the command ended into how we end.
func (c *runCmd) result(r process.Result, err error) error {
	switch {
	case err != nil:
		return &exitError{exitCapture, err}
	case r.Err != nil:
		return &exitError{r.ExitCode, r.Err}
	case r.ExitCode != 0:
		return &exitError{r.ExitCode, nil}
	}
	return nil
}

func discard(_ string, r io.ReadCloser) error {
	// The reader's end has no owner but the command: closing it makes writes to it free.
	return r.Close()
}

// capture is a Butler whose output goes to the server, by way of a spool on disk.
type capture struct {
	project types.Project
	prefix  types.StreamName
	url     string

	link         *link
	out          *daybook.Output
	giveUpOutput context.CancelFunc
	butler       *butler.Butler
	resume       func()
	stderr       io.Writer
	log          *slog.Logger

	// The user is told once of each: that output waits in the spool, and that it was refused or lost.
	spooled, refused notice
	outage           sync.WaitGroup
	stopWait         context.CancelFunc
}

func (c *runCmd) openCapture(ctx context.Context, e *env, prefix types.StreamName) (_ *capture, err error) {
	limitMemory(captureMemory) // more if the system turns out to be in this process
	k := &capture{project: c.Project, prefix: prefix, stderr: e.stderr, log: e.log}
	if k.link, err = c.openLink(ctx, e.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.link.Close(ctx))
		}
	}()
	if k.url, err = k.link.URL(ctx); err != nil {
		return nil, err
	}
	base, unique := prefix.Split()
	_, command := base.Split()
	if err := os.MkdirAll(k.link.Spools(), 0o700); err != nil {
		return nil, fmt.Errorf("create a spool: %w", err)
	}
	spool, err := os.MkdirTemp(k.link.Spools(), strings.ReplaceAll(string(command.Concat(unique)), "/", "_")+"-*")
	if err != nil {
		return nil, fmt.Errorf("create a spool: %w", err)
	}
	outCtx, giveUp := context.WithCancel(ctx)
	k.giveUpOutput = giveUp
	k.out, err = daybook.New(outCtx, daybook.Config{
		Project: c.Project, Prefix: prefix,
		Journals:        journalClient(k.link.conn),
		Registration:    logdog.NewRegistrationClient(k.link.conn),
		CoordinatorHost: strings.TrimPrefix(k.url, "http://"),
		SourceInfo:      []string{"daybook run " + versionString()},
		SpoolDir:        spool,
		OnProblem: func(err error) {
			k.refused.Do(func() {
				fmt.Fprintf(e.stderr, "daybook: the server refused the output: %v; it is kept in %s\n", err, spool)
			})
		},
		Logger: e.log,
	})
	if err != nil {
		return nil, err
	}
	k.butler, err = butler.New(ctx, butler.Config{Output: k.out, BufferLogs: true, MaxBufferAge: bufferAge, Logger: e.log})
	if err != nil {
		return nil, errors.Join(err, k.out.Close(ctx))
	}
	k.resume = resumeSpools(ctx, k.link.Spools(), k.link.conn, e.log)
	watch, stop := context.WithCancel(ctx)
	k.stopWait = stop
	k.outage.Go(func() { k.watchOutage(watch) })
	return k, nil
}

func (k *capture) add(name string, r io.ReadCloser) error {
	return k.butler.AddStream(r, &logpb.LogStreamDescriptor{
		Name: name, StreamType: logpb.StreamType_TEXT, ContentType: "text/plain; charset=utf-8", Timestamp: timestamppb.Now(),
	})
}

// watchOutage tells the user once when the server is out of reach.
func (k *capture) watchOutage(ctx context.Context) {
	for state := k.link.conn.GetState(); ; state = k.link.conn.GetState() {
		if state == connectivity.TransientFailure {
			t := time.NewTimer(outageNotice)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			if s := k.link.conn.GetState(); s == connectivity.TransientFailure || s == connectivity.Connecting {
				k.tellSpooled()
				return
			}
			continue
		}
		if !k.link.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// notice is something to tell once.
type notice struct {
	once sync.Once
	done atomic.Bool
}

// Do tells it, unless that was done.
func (n *notice) Do(tell func()) {
	n.once.Do(func() { n.done.Store(true); tell() })
}

// Done reports whether it was told.
func (n *notice) Done() bool { return n.done.Load() }

func (k *capture) tellSpooled() {
	k.spooled.Do(func() {
		fmt.Fprintf(k.stderr, "daybook: the server is out of reach; the output is kept on disk, and sent when it is back (by this run, the next one, or daybook flush)\n")
	})
}

// finish sends what is left. While that makes progress it goes on; ctx ends it at once. What remains stays in the spool.
func (k *capture) finish(ctx context.Context) {
	flush, giveUp := context.WithCancel(ctx)
	defer giveUp()
	// A Butler that cannot even get its last bytes into the spool waits for room until its output is given up.
	stopOutput := context.AfterFunc(flush, k.giveUpOutput)
	stopGuard := k.guardProgress(flush, giveUp)
	k.butler.Activate()
	if err := k.butler.Wait(); err != nil {
		k.refused.Do(func() { fmt.Fprintf(k.stderr, "daybook: %v\n", err) })
	}
	err := k.out.Close(flush)
	stopGuard()
	stopOutput()
	k.stopWait()
	k.outage.Wait()
	switch {
	case err == nil:
		k.settle(ctx)
	case !k.refused.Done():
		k.tellSpooled()
	}
	k.resume()
	end, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := k.link.Close(end); err != nil {
		k.log.Error("close", "error", err)
	}
}

// guardProgress calls giveUp when nothing got into the spool or out of it for flushStall.
func (k *capture) guardProgress(ctx context.Context, giveUp func()) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		t := time.NewTicker(flushStall)
		defer t.Stop()
		for sent, pending := int64(-1), int64(-1); ; {
			s, p := k.out.Stats().SentBytes, k.out.Pending()
			if s == sent && p == pending {
				giveUp()
				return
			}
			sent, pending = s, p
			select {
			case <-t.C:
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// settle waits until readers see the end of the streams, so that a cat that follows shows everything.
func (k *capture) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	logs := daybookv1.NewLogsClient(k.link.conn)
	for _, name := range k.butler.Streams() {
		path := k.prefix.Join(name)
		if err := awaitEnd(ctx, logs, k.project, path); err != nil {
			k.log.Info("the end of the stream is not visible yet", "stream", path, "error", err)
			return
		}
	}
}

// awaitEnd returns when the end of a stream is known, and so everything before it stored.
func awaitEnd(ctx context.Context, logs daybookv1.LogsClient, project types.Project, path types.StreamPath) error {
	f, err := logs.Follow(ctx, &daybookv1.FollowRequest{Project: string(project), Path: string(path), Index: math.MaxInt64, Wait: true})
	for err == nil {
		var r *daybookv1.FollowResponse
		if r, err = f.Recv(); err == nil && (r.GetEnd() != nil || r.GetStream().GetState() > daybookv1.StreamState_OPEN) {
			return nil
		}
	}
	return err
}

// resumeSpools sends, in the background, what commands left behind that died or found no server. The returned function stops it.
func resumeSpools(ctx context.Context, spools string, conn clientConn, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := flushSpools(ctx, spools, conn, log); err != nil && ctx.Err() == nil {
			log.Warn("send what earlier commands left in their spools", "error", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}
