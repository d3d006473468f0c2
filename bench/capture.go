package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// measureCapture compares `daybook run -- seq` with seq into a file: five million lines, 39 MB. The time ends when the
// command's user has the prompt back. The CPU time is that of everything that worked for it, the server included.
func measureCapture(r *run, withServer bool) {
	const lines = "5000000"
	dir := r.TempDir()
	plain, passed := filepath.Join(dir, "plain"), filepath.Join(dir, "passed")

	base := timed(r, testkit.Command{Path: "seq", Args: []string{"1", lines}, Env: os.Environ()}, plain)

	h := r.house()
	var server *testkit.Server
	var serverCPU float64
	if withServer {
		server = h.Serve()
		serverCPU = -cpuSeconds(r, server.Pid())
	}
	got := timed(r, h.Command("run", "--prefix", "seq", "--", "seq", "1", lines), passed)
	if withServer {
		serverCPU += cpuSeconds(r, server.Pid())
	}

	r.compare("wall", seconds, got.wall, base.wall)
	r.compare("CPU", seconds, got.cpu+serverCPU, base.cpu)
	r.report("peak memory, run", mebibytes, got.peak)
	if withServer {
		r.report("peak memory, server", mebibytes, float64(server.PeakMemory()))
	}

	want, err := os.Open(plain)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer want.Close()
	if err := h.CompareCat("local/seq/+/stdout", want); err != nil {
		r.Fatalf("%v", err)
	}
}

// usage is what a command took.
type usage struct{ wall, cpu, peak float64 }

// timed runs a command with its standard output in a file.
func timed(r *run, c testkit.Command, stdout string) usage {
	f, err := os.Create(stdout)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer f.Close()
	c.Stdout = f
	start := time.Now()
	p := testkit.Start(r, c)
	if code := p.Wait(); code != 0 {
		r.Fatalf("%s %q: exit code %d\n%s", c.Path, c.Args, code, p.Stderr)
	}
	wall := time.Since(start).Seconds()
	s := p.State()
	return usage{wall: wall, cpu: (s.UserTime() + s.SystemTime()).Seconds(), peak: float64(p.PeakMemory())}
}
