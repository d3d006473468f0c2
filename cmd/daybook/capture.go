package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/bootstrap"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/butler/streamserver"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

const (
	// bufferAge is how long a line may wait for company before it is sent, when the server keeps up.
	bufferAge = 50 * time.Millisecond
	// flushStall is how long the end of a command is delayed while nothing gets through to the server.
	flushStall = 5 * time.Second
	// streamStall is how long after a command's end its streams may be silent, and open, until they are ended.
	streamStall = 2 * time.Second
	// resumeLimit is how long the end of a command waits until what earlier ones left behind is sent, if the server took its own output.
	resumeLimit = 10 * time.Second
	// captureMemory is what a program that only captures needs beside thousands of streams, with room to spare.
	captureMemory = 72 << 20
	// startLimit is how long a command is delayed by another process that is about to serve the data directory.
	startLimit = 5 * time.Second
	// outageNotice is how long a server may be out of reach before the user is told.
	outageNotice = 2 * time.Second
)

// captureFlags are the flags of every command that captures.
type captureFlags struct {
	serverFlags
	Project    types.Project   `help:"Project of the streams." default:"local"`
	Prefix     string          `help:"Prefix of the streams; must be new. By default user/host/command/time." placeholder:"PREFIX"`
	Tag        []string        `help:"Tag of every stream; any number of times." placeholder:"KEY=VALUE" sep:"none"`
	Redact     []string        `help:"Regular expression of what is replaced by *** before it is captured; any number of times." placeholder:"PATTERN" sep:"none"`
	RedactEnv  bool            `help:"Redact the values of environment variables that are named like secrets (see above)." default:"true" negatable:""`
	WhenFull   butler.WhenFull `help:"What becomes of output when the spool is full: drop and mark the place, or block whoever writes it." enum:"block,drop" default:"drop"`
	SpoolLimit byteSize        `help:"Most bytes that the spool may take; ${default} unless said." default:"4GiB" placeholder:"SIZE"`
}

// redactHelp tells what the flags redact.
func redactHelp() string {
	return "Redacted are what matches --redact, and, unless --no-redact-env is given, the values of at least 6 bytes of environment variables with these names: " +
		strings.Join(redact.SecretNames, ", ") + "; and the passwords in those that are URLs. Programs can add values at run time. What goes to the terminal is not changed."
}

// capture is a Butler whose output goes to the server, by way of a spool on disk.
type capture struct {
	project types.Project
	prefix  types.StreamName
	url     string

	link         *link
	out          *daybook.Output
	giveUpOutput context.CancelFunc
	// endStreams ends the streams that are still open, with what was written to them.
	endStreams context.CancelFunc
	butler     *butler.Butler
	// streams is where programs open streams of their own.
	streams *streamserver.Server
	resume  *resumption
	stderr  io.Writer
	log     *slog.Logger

	// The user is told once of each: that output waits in the spool, and that it was refused or lost.
	spooled, refused notice
	// refusal is closed when the server refused for good.
	refusal  chan struct{}
	outage   sync.WaitGroup
	stopWait context.CancelFunc

	// flush ends when what is left is to be given up; nil until the end begins. stopFlush ends the watch over it.
	flush     context.Context
	stopFlush func()
	// finishing says that there is nothing to wait for any more but the Butler.
	finishing atomic.Bool
}

// open begins a capture. The name is that of the command, for the prefix if none was given; listen is the address of the server for
// programs, which may be empty for a new one.
func (c *captureFlags) open(ctx context.Context, e *env, name []string, listen string) (_ *capture, err error) {
	limitMemory(captureMemory, 50) // more if the system turns out to be in this process
	dropPages()
	prefix, err := c.prefix(name)
	if err != nil {
		return nil, err
	}
	if err := c.Project.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "--project: %w", err)
	}
	var tags streamproto.TagMap
	for _, t := range c.Tag {
		if err := tags.Set(t); err != nil {
			return nil, fault.New(fault.Invalid, "--tag: %w", err)
		}
	}
	secrets, err := c.secrets()
	if err != nil {
		return nil, err
	}
	k := &capture{project: c.Project, prefix: prefix, refusal: make(chan struct{}), stderr: e.stderr, log: e.log}
	if k.link, err = c.newLink(e.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.link.Close(ctx))
		}
	}()
	// A server that does not start keeps neither the command waiting nor its output from being captured; what ends us, does.
	url, away := k.link.URLSoon(e.ctx, startLimit)
	if away == nil {
		k.url = url
	}
	// The socket comes first: what fails here is the user's address, and leaves nothing behind.
	k.streams, err = streamserver.Listen(listen, streamserver.Config{Redact: secrets.Add, Logger: e.log})
	if err != nil {
		return nil, err
	}
	if err := k.openButler(ctx, c, tags, secrets); err != nil {
		k.streams.Close()
		return nil, err
	}
	if away != nil {
		k.spooled.Do(func() {
			fmt.Fprintf(k.stderr, "daybook: there is no server: %v; the output is kept on disk, and sent when there is one (by this run, the next one, or daybook flush)\n", away)
		})
	}
	k.butler.AddStreamServer(k.streams)
	k.resume = resumeSpools(ctx, k.link.Spools(), k.link.conn, e.log)
	watch, stop := context.WithCancel(ctx)
	k.stopWait = stop
	k.outage.Go(func() { k.watchOutage(watch) })
	k.outage.Go(func() { k.watchRefusal(watch) })
	return k, nil
}

func (c *captureFlags) prefix(name []string) (types.StreamName, error) {
	if c.Prefix == "" {
		return generatePrefix(name, time.Now())
	}
	prefix := types.StreamName(c.Prefix)
	if err := prefix.Validate(); err != nil {
		return "", fault.New(fault.Invalid, "--prefix: %w", err)
	}
	return prefix, nil
}

// secrets returns what is to be redacted.
func (c *captureFlags) secrets() (*redact.Set, error) {
	set := new(redact.Set)
	for _, p := range c.Redact {
		if err := set.AddPattern(p); err != nil {
			return nil, fault.New(fault.Invalid, "--redact: %w", err)
		}
	}
	if c.RedactEnv {
		for _, v := range redact.Secrets(os.Environ()) {
			if err := set.Add(v); err != nil {
				return nil, fault.New(fault.Invalid, "redact the environment: %w", err)
			}
		}
	}
	return set, nil
}

// openButler makes the spool, the output and the Butler.
func (k *capture) openButler(ctx context.Context, c *captureFlags, tags streamproto.TagMap, secrets *redact.Set) error {
	base, unique := k.prefix.Split()
	_, command := base.Split()
	if err := os.MkdirAll(k.link.Spools(), 0o700); err != nil {
		return fmt.Errorf("create a spool: %w", err)
	}
	spool, err := os.MkdirTemp(k.link.Spools(), strings.ReplaceAll(string(command.Concat(unique)), "/", "_")+"-*")
	if err != nil {
		return fmt.Errorf("create a spool: %w", err)
	}
	outCtx, giveUp := context.WithCancel(ctx)
	k.giveUpOutput = giveUp
	k.out, err = daybook.New(outCtx, daybook.Config{
		Project: k.project, Prefix: k.prefix,
		Journals:        journalClient(k.link.conn),
		Registration:    logdog.NewRegistrationClient(k.link.conn),
		CoordinatorHost: hostOf(k.url),
		SourceInfo:      []string{"daybook " + versionString()},
		SpoolDir:        spool,
		SpoolLimit:      int64(c.SpoolLimit),
		OnProblem: func(err error) {
			k.refused.Do(func() {
				fmt.Fprintf(k.stderr, "daybook: the server refused the output: %v; no more of it is captured, and what was is in %s\n", err, spool)
			})
			close(k.refusal)
		},
		Logger: k.log,
	})
	if err != nil {
		giveUp()
		return errors.Join(err, os.RemoveAll(spool))
	}
	streams, end := context.WithCancel(ctx)
	k.endStreams = end
	k.butler, err = butler.New(streams, butler.Config{
		Output: k.out, BufferLogs: true, MaxBufferAge: bufferAge, GlobalTags: tags, Redact: secrets, WhenFull: c.WhenFull, Logger: k.log,
	})
	if err != nil {
		end()
		giveUp()
		return errors.Join(err, k.out.Close(ctx))
	}
	return nil
}

// page returns the address of the page that shows a path below the project, or, as long as there is no server, what to ask it for.
func (k *capture) page(path string) string {
	if k.url == "" {
		return fmt.Sprintf("%s/%s", k.project, path)
	}
	return fmt.Sprintf("%s/logs/%s/%s", k.url, k.project, path)
}

// environ returns an environment for programs whose streams are captured here too.
func (k *capture) environ(environ []string) []string {
	return bootstrap.New(k.streams.Address(), k.out.URLConstructionEnv()).Apply(environ)
}

// add captures what is read as a stream.
func (k *capture) add(s *streamSpec, name types.StreamName, r io.ReadCloser) error {
	return k.butler.AddStream(r, s.descriptor(name))
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

// watchRefusal tells the user when the server does not let us in.
func (k *capture) watchRefusal(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-k.link.refused:
		k.spooled.Do(func() {
			fmt.Fprintf(k.stderr, "daybook: the server refuses the output: %v. It is kept on disk; daybook flush sends it, once it may\n", k.link.refusal)
		})
	}
}

func (k *capture) tellSpooled() {
	k.spooled.Do(func() {
		fmt.Fprintf(k.stderr, "daybook: the server is out of reach, or has no room; the output is kept on disk, and sent when it takes it (by this run, the next one, or daybook flush)\n")
	})
}

// beginEnd begins to watch over what is left, once nothing more is to come than that. A Butler that cannot even get its last bytes into
// the spool waits for room until its output is given up; ctx does that at once.
func (k *capture) beginEnd(ctx context.Context) {
	if k.flush != nil {
		return
	}
	flush, giveUp := context.WithCancel(ctx)
	k.flush = flush
	stopOutput := context.AfterFunc(flush, k.giveUpOutput)
	stopGuard := k.guardProgress(flush, giveUp)
	k.stopFlush = func() {
		stopGuard()
		stopOutput()
		giveUp()
	}
}

// finish sends what is left. While that makes progress it goes on; ctx ends it at once. What remains stays in the spool.
func (k *capture) finish(ctx context.Context) {
	k.beginEnd(ctx)
	k.finishing.Store(true)
	k.butler.Activate()
	k.report(k.butler.Wait())
	if n := k.butler.Dropped(); n > 0 {
		fmt.Fprintf(k.stderr, "daybook: %d bytes of output were not captured: the spool took nothing for a while; the places are marked in the streams\n", n)
	}
	err := k.out.Close(k.flush)
	k.endStreams()
	k.stopFlush()
	k.stopWait()
	k.outage.Wait()
	switch {
	case err == nil:
		ends := &endings{logs: daybookv1.NewLogsClient(k.link.conn), log: k.log}
		ends.add(k.project, k.prefix, k.butler.Streams())
		ends.await(ctx)
		k.awaitResume(ctx)
	case !k.refused.Done():
		k.tellSpooled()
	}
	k.resume.stop()
	end, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := k.link.Close(end); err != nil {
		k.log.Error("close", "error", err)
	}
}

// report tells the user what the Butler could not do. That streams were ended was our own wish.
func (k *capture) report(err error) {
	var abandoned *butler.AbandonedError
	if errors.As(err, &abandoned) {
		fmt.Fprintf(k.stderr, "daybook: %v\n", abandoned)
	}
	var loss *butler.LossError
	switch {
	case errors.As(err, &loss):
		err = loss
	case err == nil, errors.Is(err, context.Canceled), abandoned != nil:
		return
	}
	k.refused.Do(func() { fmt.Fprintf(k.stderr, "daybook: %v\n", err) })
}

// guardProgress ends the streams that are left, of programs that outlive the command, when nothing got into the spool or out of it
// for streamStall, and calls giveUp when nothing did for flushStall.
func (k *capture) guardProgress(ctx context.Context, giveUp func()) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		t := time.NewTicker(streamStall / 2)
		defer t.Stop()
		since := time.Now()
		for sent, pending := int64(-1), int64(-1); ; {
			s, p := k.out.Stats().SentBytes, k.out.Pending()
			// Until we finish, a command's last output may wait for our own stdout.
			waits := !k.finishing.Load() && !k.out.Busy()
			if s != sent || p != pending || waits {
				sent, pending, since = s, p, time.Now()
			}
			switch quiet := time.Since(since); {
			case quiet >= flushStall:
				giveUp()
				return
			case quiet >= streamStall:
				k.endStreams()
			}
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

// failure returns an error, which the user has been told, if the server refused or something was lost.
func (k *capture) failure() error {
	if k.refused.Done() {
		return &exitError{exitFailure, nil}
	}
	return nil
}

// awaitResume lets what earlier commands left be sent, even if our own was over at once.
func (k *capture) awaitResume(ctx context.Context) {
	tell := time.AfterFunc(outageNotice, func() {
		fmt.Fprintln(k.stderr, "daybook: sending what earlier commands left behind")
	})
	defer tell.Stop()
	ctx, cancel := context.WithTimeout(ctx, resumeLimit)
	defer cancel()
	k.resume.wait(ctx)
}

// hostOf returns host and port of a URL.
func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	return host
}
