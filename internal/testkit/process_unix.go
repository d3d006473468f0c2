//go:build unix

package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// ownGroup makes the process the leader of a group, which killGroup ends as a whole.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithUs(cmd.SysProcAttr)
}

// killGroup ends the process and what it started. That there is nothing left to end is the usual case.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

func exitCode(s *os.ProcessState) int {
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return s.ExitCode()
}

// terminate is how a program is asked to end.
const terminate = syscall.SIGTERM

// raise ends the calling process by a signal.
func raise(sig int) {
	s := syscall.Signal(sig)
	signal.Reset(s)
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		fmt.Fprintln(os.Stderr, "testkit: raise:", err)
		os.Exit(125)
	}
	select {} // until the signal arrives
}
