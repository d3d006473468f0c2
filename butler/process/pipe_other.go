//go:build !linux

package process

import "os"

func openPipe() (r, w *os.File, err error) { return os.Pipe() }
