package main

import (
	"bytes"
	"os"
	"path/filepath"
	"time"
)

const (
	rawTime  = time.Second
	rawBlock = 4 << 10
	rawFile  = 64 << 20
)

// rawSyncs writes a block and syncs it, over and over, into a file whose space was written before, and returns how long
// each took.
func rawSyncs(r *run) []time.Duration {
	f, err := os.Create(filepath.Join(r.TempDir(), "raw"))
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, rawFile)); err != nil {
		r.Fatalf("%v", err)
	}
	if err := f.Sync(); err != nil {
		r.Fatalf("%v", err)
	}
	block := bytes.Repeat([]byte("x"), rawBlock)
	var times []time.Duration
	start := time.Now()
	for offset := int64(0); time.Since(start) < rawTime; offset = (offset + rawBlock) % rawFile {
		before := time.Now()
		if _, err := f.WriteAt(block, offset); err != nil {
			r.Fatalf("%v", err)
		}
		if err := syncData(f); err != nil {
			r.Fatalf("sync: %v", err)
		}
		times = append(times, time.Since(before))
	}
	return times
}
