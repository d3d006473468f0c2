package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropPages gives back the pages of the program's own file. Starting touches nearly all of its 50 MiB, a capture then needs a part
// of that; what is needed again is mapped again, from the system's cache.
func dropPages() {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return
	}
	var from, to uintptr // of the program's file, and not to be written
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 6 && strings.Contains(f[0], "-"):
			from, to = 0, 0
			if f[5] == program && f[1][1] != 'w' {
				_, _ = fmt.Sscanf(f[0], "%x-%x", &from, &to)
			}
		case from < to && f[0] == "Anonymous:" && f[1] == "0":
			// What the loader wrote before it was not to be written any more would have been counted.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
