package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

const stamperArg = "bench-stamper"

// runAsStamper is the command whose lines are followed: each is the time of its own writing. It reports whether the
// process was started as one.
func runAsStamper(args []string) bool {
	if len(args) != 3 || args[0] != stamperArg {
		return false
	}
	rate, rerr := strconv.Atoi(args[1])
	n, nerr := strconv.Atoi(args[2])
	if rerr != nil || nerr != nil || rate < 1 {
		fmt.Fprintf(os.Stderr, "bench: %q: want a rate and a number of lines\n", args)
		os.Exit(2)
	}
	start := time.Now()
	var line []byte
	for i := range n {
		// Lines keep to the schedule, so that one that is late does not delay the next.
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		line = append(strconv.AppendInt(line[:0], time.Now().UnixNano(), 10), '\n')
		if _, err := os.Stdout.Write(line); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	return true
}

// measureFollow measures the time from a command's write of a line to its arrival in a follower: `daybook tail -f` and the
// pipe behind it.
func measureFollow(r *run, rate, duration int) {
	h := r.house()
	h.Serve()
	out, in, err := os.Pipe()
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer out.Close()
	tail := h.Command("tail", "-f", "local/stamps/+/stdout")
	tail.Stdout = in
	follower := testkit.Start(r, tail)
	in.Close() // the follower has its own

	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	n := rate * duration
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer null.Close()
	command := h.Command("run", "--prefix", "stamps", "--", self, stamperArg, strconv.Itoa(rate), strconv.Itoa(n))
	command.Stdout = null
	writer := testkit.Start(r, command)

	delays := make([]time.Duration, 0, n)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		now := time.Now().UnixNano()
		written, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			r.Fatalf("follower: %v", err)
		}
		delays = append(delays, time.Duration(now-written))
	}
	if code := writer.Wait(); code != 0 {
		r.Fatalf("run: exit code %d\n%s", code, writer.Stderr)
	}
	if code := follower.Wait(); code != 0 || len(delays) != n {
		r.Fatalf("tail: exit code %d, %d lines of %d\n%s", code, len(delays), n, follower.Stderr)
	}
	slices.Sort(delays)
	r.report("write to follower, p50", seconds, quantile(delays, 0.50))
	r.report("write to follower, p99", seconds, quantile(delays, 0.99))
}
