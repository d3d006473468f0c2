package process

import (
	"errors"
	"os"
	"os/exec"
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

// passed only keeps Ctrl-C from ending us: the console sends it to the command as well.
var passed = []os.Signal{os.Interrupt}

// forward leaves them where they are.
func (s *Signals) forward(*os.Process, []*source, time.Duration) (stop func()) { return func() {} }

func kill(p *os.Process) { _ = p.Kill() }

func exitCode(s *os.ProcessState) (code, signal int) {
	if s == nil {
		return 127, 0
	}
	return s.ExitCode(), 0
}
