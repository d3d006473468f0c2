package main

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dropPages gives back the pages of the program's own code. Starting touches nearly all of its 20 MiB, a capture then needs a part
// of that; what is needed again is mapped again, from the system's cache.
func dropPages() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		var perms, path string
		var rest [3]string
		if n, _ := fmt.Sscanf(string(line), "%x-%x %s %s %s %s %s", &from, &to, &perms, &rest[0], &rest[1], &rest[2], &path); n < 7 {
			continue
		}
		// Code is as it is in the file; what is merely not to be written now may have been written by the loader.
		if path == program && perms == "r-xp" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
