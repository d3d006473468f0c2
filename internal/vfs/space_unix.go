//go:build linux || darwin

package vfs

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// SpaceOf asks the operating system for the space of a directory's file system.
func SpaceOf(dir string) (Space, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(dir, &s)
		if err == nil {
			return Space{Free: bytesOf(s.Bavail, uint64(s.Bsize)), Total: bytesOf(s.Blocks, uint64(s.Bsize))}, nil
		}
		if err != unix.EINTR {
			return Space{}, fmt.Errorf("ask for the space of %s: %w", dir, err)
		}
	}
}

// bytesOf multiplies without overflow: some network file systems say they are boundless.
func bytesOf(blocks, size uint64) int64 {
	if size != 0 && blocks > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(blocks * size)
}
