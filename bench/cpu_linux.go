package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// ticksPerSecond is the unit of the times in /proc, which is the same on every platform that Go knows.
const ticksPerSecond = 100

// cpuSeconds returns the CPU time that a running process has taken.
func cpuSeconds(r *run, pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		r.Fatalf("%v", err)
	}
	// The second field, the name, may hold anything; the times are the 14th and 15th.
	_, rest, ok := bytes.Cut(stat, []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 13 {
		r.Fatalf("/proc/%d/stat: %q", pid, stat)
	}
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			r.Fatalf("/proc/%d/stat: %v", pid, err)
		}
		ticks += n
	}
	return ticks / ticksPerSecond
}
