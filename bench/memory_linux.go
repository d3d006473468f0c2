package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// residentMemory returns how much memory a running process takes.
func residentMemory(r *run, pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		r.Fatalf("%v", err)
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		r.Fatalf("/proc/%d/statm: %q", pid, statm)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		r.Fatalf("/proc/%d/statm: %v", pid, err)
	}
	return pages * int64(os.Getpagesize())
}
