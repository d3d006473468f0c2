//go:build unix && !linux

package testkit

import "syscall"

// dieWithUs knows only Linux's way to do it.
func dieWithUs(*syscall.SysProcAttr) {}
