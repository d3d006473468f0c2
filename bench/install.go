package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// install copies a program into a directory, as an installation does, and returns where it is. What a linker has just written is
// in the system's cache in pieces of up to 2 MiB, and a process that touches a byte of one has all of it in its memory: half of the
// program more than where it was copied, or read from a disk.
func install(program, dir string) (_ string, err error) {
	from, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer from.Close()
	path := filepath.Join(dir, "installed-"+filepath.Base(program))
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	// The pieces are as large as what is written at once.
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	return path, errors.Join(err, to.Close())
}
