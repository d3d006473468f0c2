package vfs

import (
	"fmt"
	"math"

	"golang.org/x/sys/windows"
)

// SpaceOf asks the operating system for the space of a directory's file system.
func SpaceOf(dir string) (Space, error) {
	path, err := windows.UTF16PtrFromString(dir)
	var free, total uint64
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(path, &free, &total, nil)
	}
	if err != nil {
		return Space{}, fmt.Errorf("ask for the space of %s: %w", dir, err)
	}
	return Space{Free: int64(min(free, math.MaxInt64)), Total: int64(min(total, math.MaxInt64))}, nil
}
