package testkit

import (
	"context"
	"fmt"
	"regexp"
	"sync"
)

// Output keeps what a process writes and wakes those who wait for something in it.
type Output struct {
	mu      sync.Mutex
	buf     []byte
	changed chan struct{} // closed and replaced by each write
}

// NewOutput returns an empty Output.
func NewOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write appends p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, p...)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

// String returns everything written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}

// Await returns the first match of re and of its groups, once there is one. It looks at the whole output after each
// write, so it is for the few lines that programs say about themselves.
func (o *Output) Await(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		o.mu.Lock()
		match, changed := re.FindStringSubmatch(string(o.buf)), o.changed
		o.mu.Unlock()
		if match != nil {
			return match, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("await %q in output: %w", re, context.Cause(ctx))
		}
		select {
		case <-changed:
		case <-ctx.Done(): // the output is looked at once more, for what was written last
		}
	}
}
