//go:build !linux

package main

// residentMemory is known on Linux only.
func residentMemory(r *run, _ int) int64 {
	r.Fatalf("the memory of a process is measured on Linux only")
	return 0
}
