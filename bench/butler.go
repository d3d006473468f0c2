package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/daybook-dev/daybook/internal/testkit"
)

var tookBytes = regexp.MustCompile(`took (\d+) ns for (\d+) bytes`)

// measureButler measures a Butler in a process of its own: what passes through it, what that takes of the CPU, and its memory, which
// includes 4 MiB of data to read from at most.
func measureButler(r *run, w work) {
	w.report(r, nil)
}

// measureButlerToServer is measureButler with a server as the output, until everything is durable there.
func measureButlerToServer(r *run, w work) {
	s := r.house().Serve()
	w.Server, w.Spool = s.Addr, filepath.Join(r.TempDir(), "spool")
	w.report(r, s)
}

func (w *work) report(r *run, server *testkit.Server) {
	took, bytes, u := w.start(r, server)
	if w.Open > 0 {
		r.report("streams opened over the socket", perSecond, float64(w.Open)/took)
		r.report("CPU for a stream", seconds, u.cpu/float64(w.Open))
	} else {
		r.report("from streams", bytesPerSecond, bytes/took)
		r.report("CPU for a gigabyte", seconds, u.cpu/bytes*1e9)
	}
	r.report("peak memory, Butler", mebibytes, u.peak)
	if server != nil {
		r.report("server's CPU for a gigabyte", seconds, u.serverCPU/bytes*1e9)
	}
}

// start has a Butler work, and returns how many seconds it took for how many bytes.
func (w *work) start(r *run, server *testkit.Server) (took, bytes float64, u usageOfTwo) {
	arg, err := json.Marshal(w)
	if err != nil {
		r.Fatalf("%v", err)
	}
	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	if self, err = install(self, r.TempDir()); err != nil {
		r.Fatalf("%v", err)
	}
	if server != nil {
		u.serverCPU = -cpuSeconds(r, server.Pid())
	}
	p := testkit.Start(r, testkit.Command{Path: self, Args: []string{butlerArg, string(arg)}, Env: os.Environ()})
	if code := p.Wait(); code != 0 {
		r.Fatalf("the Butler ended with %d: %s", code, p.Stderr)
	}
	if server != nil {
		u.serverCPU += cpuSeconds(r, server.Pid())
	}
	figures := p.Await(p.Stdout, tookBytes)
	ns, _ := strconv.ParseFloat(figures[1], 64) // digits
	bytes, _ = strconv.ParseFloat(figures[2], 64)
	u.usage = usageOf(p)
	return ns / 1e9, bytes, u
}

// usageOfTwo is what a Butler and its server took.
type usageOfTwo struct {
	usage
	serverCPU float64
}

// usageOf returns what a process took that has ended, but for the time.
func usageOf(p *testkit.Process) usage {
	s := p.State()
	return usage{cpu: (s.UserTime() + s.SystemTime()).Seconds(), peak: float64(p.PeakMemory())}
}
