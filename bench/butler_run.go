package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// printerArg makes this program a command that prints.
const printerArg = "print"

// printer returns the path of that command.
func printer(r *run) string {
	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	return self
}

// runAsPrinter is that command: it prints a million lines of 80 bytes, or a hundred lines while it computes for about a second. It
// reports whether the process was started as one.
func runAsPrinter(args []string) bool {
	if len(args) != 2 || args[0] != printerArg {
		return false
	}
	switch args[1] {
	case "lines":
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		lines := linesOf80(4 << 20)
		for left := 80_000_000; left > 0; left -= len(lines) {
			_, _ = w.Write(lines[:min(left, len(lines))]) // Flush says it again
		}
		if err := w.Flush(); err != nil {
			os.Exit(1)
		}
	case "busy":
		var sum [sha256.Size]byte
		for range 100 {
			for range 100_000 {
				sum = sha256.Sum256(sum[:])
			}
			if _, err := fmt.Printf("%x\n", sum); err != nil {
				os.Exit(1)
			}
		}
	}
	return true
}

// measureRun compares `daybook run -- COMMAND`, into a file and with a server beside, with the command into a file.
func measureRun(r *run, command string, args ...string) {
	dir := r.TempDir()
	plain, passed := filepath.Join(dir, "plain"), filepath.Join(dir, "passed")
	base := timed(r, testkit.Command{Path: command, Args: args, Env: os.Environ()}, plain)

	h := r.house()
	server := h.Serve()
	serverCPU := -cpuSeconds(r, server.Pid())
	got := timed(r, h.Command(append([]string{"run", "--prefix", "bench", "--", command}, args...)...), passed)
	serverCPU += cpuSeconds(r, server.Pid())

	r.compare("wall", seconds, got.wall, base.wall)
	r.compare("CPU, server's included", seconds, got.cpu+serverCPU, base.cpu)
	r.report("server's CPU", seconds, serverCPU)
	r.report("peak memory, run", mebibytes, got.peak)

	want, err := os.Open(plain)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer want.Close()
	if err := h.CompareCat("local/bench/+/stdout", want); err != nil {
		r.Fatalf("%v", err)
	}
}

// measureRunIntoCat compares `daybook run -- COMMAND | cat` with `COMMAND | cat`.
func measureRunIntoCat(r *run, command string) {
	null := func(c testkit.Command) usage {
		start := time.Now()
		p := testkit.Start(r, c)
		if code := p.Wait(); code != 0 {
			r.Fatalf("%q: exit code %d\n%s", c.Args, code, p.Stderr)
		}
		u := usageOf(p)
		u.wall = time.Since(start).Seconds()
		return u
	}
	base := null(testkit.Command{Path: "sh", Args: []string{"-c", command + " | cat >/dev/null"}, Env: os.Environ()})

	h := r.house()
	server := h.Serve()
	serverCPU := -cpuSeconds(r, server.Pid())
	run := h.Command()
	got := null(testkit.Command{Path: "sh", Args: []string{"-c", `"$0" run -- ` + command + " | cat >/dev/null", run.Path}, Env: run.Env})
	serverCPU += cpuSeconds(r, server.Pid())
	r.compare("wall", seconds, got.wall, base.wall)
	r.compare("CPU, server's included", seconds, got.cpu+serverCPU, base.cpu)
}
