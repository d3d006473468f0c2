//go:build !linux

package main

// dropPages does nothing where the system does not count a program's pages as its memory.
func dropPages() {}
