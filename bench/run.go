package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// row is something that is measured.
type row struct {
	name    string
	measure func(*run)
}

// run is one measurement of a row. It is to the test kit what a test is, so that rows start servers and commands as
// tests do, and end with Fatalf when something goes wrong.
type run struct {
	ctx      context.Context
	bin      string
	tally    *tally
	failed   bool
	cleanups []func()
}

var _ testkit.TB = (*run)(nil)

// failure is what Fatalf unwinds with.
type failure struct{ error }

// measure runs a row once and cleans up after it.
func measure(ctx context.Context, bin string, row row, t *tally) (err error) {
	r := &run{ctx: ctx, bin: bin, tally: t}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = f.error
		}
		for _, f := range slices.Backward(r.cleanups) {
			f()
		}
	}()
	row.measure(r)
	return nil
}

// report adds a figure to the table.
func (r *run) report(name string, u unit, value float64) { r.tally.add(name, u, value, 0) }

// compare adds a figure and the baseline it is measured against.
func (r *run) compare(name string, u unit, value, baseline float64) {
	r.tally.add(name, u, value, baseline)
}

// house returns a fresh data directory.
func (r *run) house() *testkit.House { return testkit.NewHouseOf(r, r.bin) }

// Helper is there for testkit.TB.
func (r *run) Helper() {}

// Logf prints to stderr, which is not the table.
func (r *run) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// Fatalf ends the run.
func (r *run) Fatalf(format string, args ...any) {
	r.failed = true
	panic(failure{fmt.Errorf(format, args...)})
}

// Failed reports whether Fatalf was called.
func (r *run) Failed() bool { return r.failed }

// Cleanup registers a function to be called after the run, the last first.
func (r *run) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// TempDir returns a new directory that goes with the run.
func (r *run) TempDir() string {
	dir, err := os.MkdirTemp("", "daybook-bench-")
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			r.Logf("%v", err)
		}
	})
	return dir
}

// Context ends with the program.
func (r *run) Context() context.Context { return r.ctx }
