package testkit

import (
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// start starts a Writer as a process.
func start(t *testing.T, w Writer) *Process {
	t.Helper()
	args := w.Args()
	return Start(t, Command{Path: args[0], Args: args[1:], Env: os.Environ()})
}

func TestWriter(t *testing.T) {
	w := Writer{
		Stdout: Content{Kind: Random, Seed: 1, Size: 300_000},
		Stderr: Content{Kind: Lines, Seed: 2, Size: 1001},
		Exit:   7,
	}
	p := start(t, w)
	if code := p.Wait(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if err := Compare(w.Stdout.Reader(), strings.NewReader(p.Stdout.String())); err != nil {
		t.Error(err)
	}
	if err := Compare(w.Stderr.Reader(), strings.NewReader(p.Stderr.String())); err != nil {
		t.Error(err)
	}
}

func TestGate(t *testing.T) {
	g := NewGate(t)
	w := Writer{Stdout: Content{Kind: Lines, Seed: 1, Size: 1000}, Gate: g.Addr()}
	a, b := start(t, w), start(t, w)
	g.Await(a, b)
	for _, p := range []*Process{a, b} {
		if n := len(p.Stdout.String()); n > 500 {
			t.Errorf("%d bytes before the gate opened", n)
		}
	}
	if runtime.GOOS == "linux" && a.PeakMemory() < 1<<20 {
		t.Errorf("peak memory %d bytes", a.PeakMemory())
	}
	g.Open()
	for _, p := range []*Process{a, b} {
		if code := p.Wait(); code != 0 || len(p.Stdout.String()) != 1000 {
			t.Errorf("exit code %d, %d bytes", code, len(p.Stdout.String()))
		}
	}
}

func TestKillAndAwait(t *testing.T) {
	g := NewGate(t)
	p := start(t, Writer{Stdout: Content{Kind: Lines, Seed: 1, Size: 1000}, Gate: g.Addr()})
	if match := p.Await(p.Stdout, regexp.MustCompile(`(?m)^(\d+) .*\n`)); match[1] != "1" {
		t.Errorf("match %q", match)
	}
	p.Kill()
	if code := p.WaitFor(time.Second); code != 128+9 && runtime.GOOS != "windows" {
		t.Errorf("exit code %d after kill -9", code)
	}
}

func TestWriterEndsBySignal(t *testing.T) {
	if code := start(t, Writer{Signal: 15}).Wait(); code != 128+15 {
		t.Errorf("exit code %d, want 143", code)
	}
}
