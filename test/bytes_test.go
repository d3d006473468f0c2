//go:build unix

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// writers are commands with every kind of output.
func writers() map[string]testkit.Writer {
	m := map[string]testkit.Writer{
		"empty":  {},
		"killed": {Stdout: text(1, 100_001), Stderr: text(2, 999), Signal: int(syscall.SIGKILL)},
		"failed": {Stdout: text(3, 100_001), Stderr: text(4, 50_000), Exit: 3},
		// Five million lines of the generator are 75 MB.
		"many-lines":     {Stdout: text(5, size(3<<20, 75_000_000))},
		"one-line-large": {Stdout: testkit.Content{Kind: testkit.OneLine, Seed: 6, Size: size(12<<20, 100_000_000)}},
	}
	for i, kind := range testkit.Kinds {
		m[string(kind)] = testkit.Writer{
			Stdout: testkit.Content{Kind: kind, Seed: uint64(i), Size: size(700_001, 20_000_001)},
			Stderr: testkit.Content{Kind: kind, Seed: uint64(100 + i), Size: 10_001},
		}
	}
	return m
}

// Every output comes back byte for byte, before, while and after it is archived.
func TestEveryByteComesBack(t *testing.T) {
	h := testkit.NewHouse(t)
	server := h.Serve()
	t.Run("writers", func(t *testing.T) {
		for name, w := range writers() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := runWriter(t, h, "bytes/"+name, w)
				c.finish(t)
				c.checkUntilArchived(t)
				t.Logf("peak memory of run: %d MiB", c.PeakMemory()>>20)
			})
		}
	})
	t.Logf("peak memory of the server: %d MiB", server.PeakMemory()>>20)
}

// A kill -9 of the server in the middle of the output loses nothing, repeats nothing, and does not hold the command.
func TestServerKilledInTheMiddle(t *testing.T) {
	for name, w := range writers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testkit.NewHouse(t)
			server := h.Serve()
			gate := testkit.NewGate(t)
			w.Gate = gate.Addr()
			c := runWriter(t, h, "killed/"+name, w)
			gate.Await(c.Process)
			server.Kill()
			gate.Open()
			server.Restart()
			c.finish(t)
			c.checkUntilArchived(t)
		})
	}
}

// The server dies again and again while output flows.
func TestServerKilledManyTimes(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	w := testkit.Writer{Stdout: text(1, size(8<<20, 200<<20)), Stderr: testkit.Content{Kind: testkit.Random, Seed: 2, Size: 1 << 20}}
	c := runWriter(t, h, "storm", w)
	kills := 0
	for ended := false; !ended; kills++ {
		server.Kill()
		server.Restart()
		select {
		case <-c.Done():
			ended = true
		default:
		}
	}
	c.finish(t)
	h.Run("flush") // if nothing got through for so long that the run left it
	c.check(t)
	t.Logf("%d kills", kills)
}

// Many commands at once, and a kill -9 of the server in the middle of all.
func TestManyCommandsAtOnce(t *testing.T) {
	n := int(size(12, 500))
	h := testkit.NewHouse(t)
	server := h.Serve()
	gate := testkit.NewGate(t)
	captures, processes := make([]*capture, n), make([]*testkit.Process, n)
	for i := range captures {
		w := testkit.Writer{Stdout: text(uint64(i), 20_000), Stderr: text(uint64(n+i), 1000), Gate: gate.Addr()}
		captures[i] = runWriter(t, h, fmt.Sprintf("many/%d", i), w)
		processes[i] = captures[i].Process
	}
	gate.Await(processes...)
	server.Kill()
	gate.Open()
	server.Restart()

	var peak int64
	for _, c := range captures {
		c.finish(t)
		peak = max(peak, c.PeakMemory())
	}
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, c := range captures {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c.check(t)
		})
	}
	wg.Wait()
	if got := len(list(t, h, "local/many/**")); got != 2*n {
		t.Errorf("ls shows %d streams, want %d", got, 2*n)
	}
	t.Logf("peak memory: server %d MiB, run at most %d MiB", server.PeakMemory()>>20, peak>>20)
}

// The output of a real build, which is not the same twice, comes back as it passed through.
func TestRealBuild(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	packages := "unicode/utf8"
	if large {
		packages = "std"
	}
	h.Setenv("GOCACHE", t.TempDir())
	passed, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	cmd := h.Command("run", "--prefix", "build", "--", "go", "build", "-a", "-v", "-x", packages)
	cmd.Stderr = passed
	run := testkit.Start(t, cmd)
	if code := run.Wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	// The first line is our own.
	want, err := os.ReadFile(passed.Name())
	if err != nil {
		t.Fatal(err)
	}
	compareAfterFirstLine(t, h, "local/build/+/stderr", want)
	t.Logf("peak memory: server %d MiB, run %d MiB", server.PeakMemory()>>20, run.PeakMemory()>>20)
}
