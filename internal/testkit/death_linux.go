package testkit

import "syscall"

// dieWithUs ends the process when the test run ends without cleaning up: killed, or out of time. The system watches the
// thread that started it, and the Go runtime keeps its threads.
func dieWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
