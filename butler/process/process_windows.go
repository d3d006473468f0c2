package process

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"
)

// A command on Windows gets pipes; a mode that demands a PTY fails when it is opened.
func wantPTY(mode Mode, _ *os.File) bool { return mode == Always }

func openPTY() (ours, theirs *os.File, err error) {
	return nil, nil, errors.New("PTYs are not offered on Windows; use --pty=never")
}

// terminal has nothing to do where there are no PTYs.
type terminal struct{}

func attach(*exec.Cmd, *os.File, []*source) (*terminal, error) { return &terminal{}, nil }
func (*terminal) start()                                       {}
func (*terminal) restore()                                     {}

// forwardSignals only keeps Ctrl-C from ending us: the console sends it to the command as well.
func forwardSignals(*os.Process, []*source, time.Duration) (stop func()) {
	c := make(chan os.Signal, 16)
	signal.Notify(c, os.Interrupt)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range c { //nolint:revive // nothing to do but to take it
		}
	})
	return func() {
		signal.Stop(c)
		close(c)
		wg.Wait()
	}
}

func kill(p *os.Process) { _ = p.Kill() }

func exitCode(s *os.ProcessState) (code, signal int) {
	if s == nil {
		return 127, 0
	}
	return s.ExitCode(), 0
}
