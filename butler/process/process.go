// Package process runs a command with its output both where it would go anyway and captured.
//
// To the command nothing changes: the output reaches our stdout and stderr untouched and at once, the exit code, signals and
// the terminal's size pass through, and where it would have a terminal it gets one of its own (a PTY). What it writes to
// stdout and to stderr is handed to the Butler as two readers. The Butler may push back, as a slow terminal would.
//
// Run is called once per command, by one goroutine; it waits for all goroutines it starts.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Mode says when the command gets a PTY.
type Mode string

// The modes. Auto gives a PTY for each of stdout and stderr that is a terminal of ours.
const (
	Auto   Mode = "auto"
	Always Mode = "always"
	Never  Mode = "never"
)

// linger is how long after the command's end its output may pause before it counts as over. Without a limit, a process left
// in the background with our pipe as its stdout would hold us for ever.
const linger = time.Second

// lingerMost is how long one that goes on writing there is captured.
const lingerMost = 3 * time.Second

// Config says what to run.
type Config struct {
	// Args is the command and its arguments; the command is looked up in PATH.
	Args []string
	// Env is the command's environment; nil is ours.
	Env []string
	PTY Mode
	// Stdin, Stdout and Stderr are ours. The command inherits Stdin unless it gets a PTY.
	Stdin, Stdout, Stderr *os.File
	// Capture is called for "stdout" and for "stderr", before the command starts. The reader then belongs to the callee,
	// which closes it.
	Capture func(name string, r io.ReadCloser) error
	// Signals are passed on to the command; nil is as if they were caught when Run is called.
	Signals *Signals
	// Grace is how long after a SIGTERM, which is passed on, the command may take to end before it is killed, with what it
	// started and still is in its process group; zero or less is for ever. Windows has no SIGTERM.
	Grace time.Duration
	// Started is called when the command runs; Ended when it has ended, and the rest of its output is awaited. Both are optional.
	Started, Ended func()
}

// Result tells how the command ended.
type Result struct {
	// ExitCode is what a shell would report: the command's, 128 plus the signal that killed it, 126 or 127 if it could not
	// be started.
	ExitCode int
	// Signal is the number of the signal that killed it; zero if none did.
	Signal int
	// Err says why the command could not be started.
	Err error
}

// source is one of the two outputs on its way from the command.
type source struct {
	name  string
	from  *os.File // our end of the pipe or PTY
	child *os.File // the command's end; nil once given away
	to    *os.File
	pty   bool
	feed  *feed

	mu sync.Mutex
	// ended is when the command ended, so that only what is left in its pipe is awaited; owed is how much of that was its own.
	ended time.Time
	owed  int
}

// Run runs the command to its end. An error means that capturing could not be set up; the command was not started then.
// ctx's end kills the command.
func Run(ctx context.Context, c Config) (Result, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = c.Env
	if errors.Is(cmd.Err, exec.ErrDot) && runtime.GOOS != "windows" {
		cmd.Err = nil // who has the current directory in PATH wants it
	}

	var sources []*source
	defer func() {
		for _, s := range sources {
			s.close()
		}
	}()
	for _, o := range []struct {
		name string
		to   *os.File
	}{{"stdout", c.Stdout}, {"stderr", c.Stderr}} {
		s, err := open(o.name, o.to, c.PTY)
		if err != nil {
			return Result{}, fmt.Errorf("open a pipe for the command's %s: %w", o.name, err)
		}
		sources = append(sources, s)
	}
	for _, s := range sources {
		if err := c.Capture(s.name, s.feed); err != nil {
			return Result{}, fmt.Errorf("capture the command's %s: %w", s.name, err)
		}
	}

	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, sources[0].child, sources[1].child
	term, err := attach(cmd, c.Stdin, sources)
	if err != nil {
		return Result{}, fmt.Errorf("set up the command's terminal: %w", err)
	}
	defer term.restore()

	signals := c.Signals
	if signals == nil {
		signals = CatchSignals()
		defer signals.Stop()
	}
	if s := signals.early(); s != nil {
		if c.Ended != nil {
			c.Ended()
		}
		return killedBy(s), nil
	}
	err = cmd.Start()
	if sh := byShell(cmd, err); sh != nil {
		cmd = sh
		err = cmd.Start()
	}
	if err != nil {
		return Result{ExitCode: startCode(err), Err: err}, nil
	}
	if c.Started != nil {
		c.Started()
	}
	stopSignals := signals.forward(cmd.Process, sources, c.Grace)
	defer stopSignals()
	stopKill := context.AfterFunc(ctx, func() { kill(cmd.Process) })
	defer stopKill()
	term.start()

	var pumps sync.WaitGroup
	for _, s := range sources {
		_ = s.child.Close() // the command has its own; ours would keep the pipe open
		s.child = nil
		pumps.Go(s.pump)
	}
	_ = cmd.Wait() // the state tells
	for _, s := range sources {
		s.linger()
	}
	if c.Ended != nil {
		c.Ended()
	}
	pumps.Wait()

	code, signal := exitCode(cmd.ProcessState)
	return Result{ExitCode: code, Signal: signal}, nil
}

// Signals are those that are sent to us and meant for the command.
type Signals struct{ c chan os.Signal }

// CatchSignals keeps the signals that are passed on to commands, and a broken pipe, from ending us until Stop. A command that was not
// started when one came is not started any more, and its Result is that of a command which the signal killed.
func CatchSignals() *Signals {
	s := &Signals{c: make(chan os.Signal, 16)}
	for _, sig := range passed {
		if sig == syscall.SIGPIPE || !signal.Ignored(sig) { // nohup stays nohup
			signal.Notify(s.c, sig)
		}
	}
	return s
}

// early returns a signal that has come, or nil.
func (s *Signals) early() os.Signal {
	for {
		select {
		case sig := <-s.c:
			if sig != syscall.SIGPIPE { // ours: Write reports it
				return sig
			}
		default:
			return nil
		}
	}
}

// Stop lets them end us again.
func (s *Signals) Stop() { signal.Stop(s.c) }

// killedBy is the result of a command that a signal killed.
func killedBy(s os.Signal) Result {
	n, ok := s.(syscall.Signal)
	if !ok {
		n = syscall.SIGINT
	}
	return Result{ExitCode: 128 + int(n), Signal: int(n)}
}

func open(name string, to *os.File, mode Mode) (*source, error) {
	s := &source{name: name, to: to, feed: newFeed()}
	var err error
	if wantPTY(mode, to) {
		s.pty = true
		s.from, s.child, err = openPTY()
	} else {
		s.from, s.child, err = openPipe()
	}
	return s, err
}

// pump moves output until it ends. Our own stdout comes first: the command must not see that it is captured.
func (s *source) pump() {
	defer s.feed.CloseWrite()
	defer s.from.Close() // whoever still writes there is to learn that nobody reads
	buf := make([]byte, 256<<10)
	for {
		n, err := s.from.Read(buf)
		if n > 0 {
			if _, werr := s.to.Write(buf[:n]); werr != nil {
				// Whoever read our output went away. The command is to learn that as it would without us: by a broken pipe.
				_, _ = s.feed.Write(buf[:n])
				return
			}
			_, _ = s.feed.Write(buf[:n]) // never fails
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && n > 0 && s.extend(n) {
				continue
			}
			return // the end: io.EOF, or EIO of a PTY without any user, or nothing came for long after the command ended
		}
		if !s.extend(n) {
			return
		}
	}
}

// linger begins the time limits, once the command has ended.
func (s *source) linger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.owed = time.Now(), pending(s.from)
	_ = s.from.SetReadDeadline(s.ended.Add(linger))
}

// extend renews the limit for silence after n bytes came. It reports whether more is awaited: what others write after the command's
// end is not for ever.
func (s *source) extend(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.IsZero() {
		return true
	}
	s.owed -= n
	if s.owed <= 0 && time.Since(s.ended) >= lingerMost {
		return false
	}
	_ = s.from.SetReadDeadline(time.Now().Add(linger))
	return true
}

func (s *source) close() {
	if s.child != nil {
		_ = s.child.Close()
	}
	if s.from != nil {
		_ = s.from.Close()
	}
	s.feed.CloseWrite()
}

// byShell returns the command for a script that does not name its interpreter, which is the shell then, as POSIX has it for execvp. It
// returns nil if that is not why the command could not be started.
func byShell(cmd *exec.Cmd, err error) *exec.Cmd {
	if !errors.Is(err, syscall.ENOEXEC) || isBinary(cmd.Path) {
		return nil
	}
	sh := exec.Command("/bin/sh", append([]string{cmd.Path}, cmd.Args[1:]...)...)
	sh.Env, sh.Stdin, sh.Stdout, sh.Stderr, sh.SysProcAttr = cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr
	return sh
}

// isBinary reports whether a file is none for a shell, or cannot be read.
func isBinary(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	head := make([]byte, 128)
	n, err := io.ReadFull(f, head)
	return err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || bytes.IndexByte(head[:n], 0) >= 0 ||
		bytes.HasPrefix(head, []byte("\x7fELF"))
}

// startCode is what a shell reports for a command that it cannot start.
func startCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return 127
	}
	return 126
}
