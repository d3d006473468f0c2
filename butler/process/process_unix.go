//go:build unix

package process

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func wantPTY(mode Mode, to *os.File) bool {
	return mode == Always || mode == Auto && term.IsTerminal(int(to.Fd()))
}

func openPTY() (ours, theirs *os.File, err error) { return pty.Open() }

// terminal is our side of the command's PTYs: their size, and our terminal's keys.
type terminal struct {
	size    *os.File // a terminal of ours, the model of the size; nil if there is none
	ptys    []*os.File
	keys    *os.File // our stdin, when it feeds the PTY
	state   *term.State
	wake    *os.File // closing it ends the copying of keys
	resized chan os.Signal
	wg      sync.WaitGroup
}

// attach gives the command its PTYs: the first is its controlling terminal, in a session of its own.
func attach(cmd *exec.Cmd, stdin *os.File, sources []*source) (*terminal, error) {
	t := &terminal{}
	var theirs *os.File
	for _, s := range sources {
		if !s.pty {
			continue
		}
		t.ptys = append(t.ptys, s.from)
		if theirs == nil {
			theirs = s.child
		}
	}
	if theirs == nil {
		cmd.SysProcAttr = groupAttr()
		return t, nil
	}
	for _, f := range []*os.File{stdin, sources[0].to, sources[1].to} {
		if f != nil && term.IsTerminal(int(f.Fd())) {
			t.size = f
			break
		}
	}
	t.resize()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	if theirs != sources[0].child {
		cmd.SysProcAttr.Ctty = 2
	}
	if stdin != nil && term.IsTerminal(int(stdin.Fd())) {
		cmd.Stdin = theirs
		t.keys = stdin
	}
	return t, nil
}

// start begins to pass on keys and size changes; restore ends it.
func (t *terminal) start() {
	if len(t.ptys) == 0 {
		return
	}
	if t.size != nil {
		t.resized = make(chan os.Signal, 1)
		signal.Notify(t.resized, syscall.SIGWINCH)
		t.resize() // it may have changed since attach
		t.wg.Go(func() {
			for range t.resized {
				t.resize()
			}
		})
	}
	if t.keys == nil {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return // the command runs without keys; it can be interrupted by a signal
	}
	t.wake = w
	raw := t.takeKeys()
	t.wg.Go(func() {
		defer r.Close()
		t.copyKeys(r, raw)
	})
}

// takeKeys makes our terminal pass on every key as it is. It reports false while we are in the background, where the keys are somebody
// else's, and whoever touches them is stopped.
func (t *terminal) takeKeys() bool {
	if inBackground(t.keys) {
		return false
	}
	state, err := term.MakeRaw(int(t.keys.Fd()))
	if err != nil {
		return false
	}
	if t.state == nil {
		t.state = state
	}
	return true
}

// inBackground reports whether another job than ours has a terminal, if it is one that tells jobs apart.
func inBackground(f *os.File) bool {
	pgrp, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp != unix.Getpgrp()
}

// backgroundLook is how often a job in the background, which nobody tells, looks whether it is in the foreground.
const backgroundLook = 200 * time.Millisecond

// copyKeys copies from our terminal until cancel becomes readable. A read of a terminal cannot be interrupted, hence the poll. raw
// says that we have the keys.
func (t *terminal) copyKeys(cancel *os.File, raw bool) {
	buf := make([]byte, 4096)
	for {
		if raw = raw && !inBackground(t.keys) || t.takeKeys(); !raw {
			fds := []unix.PollFd{{Fd: int32(cancel.Fd()), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, int(backgroundLook.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) || fds[0].Revents != 0 {
				return
			}
			continue
		}
		fds := []unix.PollFd{{Fd: int32(t.keys.Fd()), Events: unix.POLLIN}, {Fd: int32(cancel.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if inBackground(t.keys) {
			continue
		}
		n, err := t.keys.Read(buf)
		if n > 0 {
			if _, err := t.ptys[0].Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *terminal) resize() {
	if t.size == nil {
		return
	}
	for _, p := range t.ptys {
		_ = pty.InheritSize(t.size, p)
	}
}

func (t *terminal) restore() {
	if t.resized != nil {
		signal.Stop(t.resized)
		close(t.resized)
	}
	if t.wake != nil {
		_ = t.wake.Close()
	}
	t.wg.Wait()
	if t.state != nil && !inBackground(t.keys) {
		_ = term.Restore(int(t.keys.Fd()), t.state)
	}
}

// groupAttr puts the command into a process group of its own when there is no terminal, so that signals reach all of it. With
// a terminal it must stay in ours, which is the one that may read from the terminal and gets its Ctrl-C.
func groupAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: !haveTerminal()}
}

func haveTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	// The terminal's keys reach us only if we are in its foreground.
	pgrp, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// passed are the signals that the command gets in our stead, and SIGPIPE, which is ours: Write reports it.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE}

// forward passes on what is sent to us. Ctrl-C of a terminal reaches the command without our help.
func (s *Signals) forward(p *os.Process, sources []*source, grace time.Duration) (stop func()) {
	shared := !sources[0].pty && !sources[1].pty && haveTerminal()
	var patience *time.Timer
	done := make(chan struct{})
	var wg sync.WaitGroup
	pass := func(sig os.Signal) {
		switch {
		case sig == syscall.SIGPIPE:
		case shared && (sig == syscall.SIGINT || sig == syscall.SIGQUIT):
		case shared:
			_ = p.Signal(sig)
		default:
			_ = syscall.Kill(-p.Pid, sig.(syscall.Signal))
		}
		if sig == syscall.SIGTERM && grace > 0 && patience == nil {
			patience = time.AfterFunc(grace, func() { kill(p) })
		}
	}
	wg.Go(func() {
		for {
			select {
			case sig := <-s.c:
				pass(sig)
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		if patience != nil {
			patience.Stop()
		}
	}
}

// kill kills the command, and what it started as far as it is in its process group.
func kill(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // if it has none of its own, there is no such group
	_ = p.Kill()
}

func exitCode(s *os.ProcessState) (code, signal int) {
	if s == nil {
		return 127, 0
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), int(ws.Signal())
	}
	return s.ExitCode(), 0
}
