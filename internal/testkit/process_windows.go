package testkit

import (
	"os"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

// killGroup ends the process. That it has ended already is the usual case.
func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func exitCode(s *os.ProcessState) int { return s.ExitCode() }

// terminate ends a program at once, as there is no way to ask.
var terminate = os.Kill

// raise ends the calling process as if by a signal; there are none here.
func raise(sig int) { os.Exit(128 + sig) }
