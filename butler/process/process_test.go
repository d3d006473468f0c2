//go:build unix

package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what a run left: its result, what went on to our stdout and stderr, and what was captured.
type outcome struct {
	Result
	passed, captured [2]string
}

// run runs a shell script with pipes for our stdout and stderr.
func run(t *testing.T, c Config) outcome {
	t.Helper()
	var out outcome
	var wg sync.WaitGroup
	var ends [2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = w
		wg.Go(func() {
			defer r.Close()
			b, _ := io.ReadAll(r)
			out.passed[i] = string(b)
		})
	}
	if c.Stdout == nil {
		c.Stdout = ends[0]
	}
	if c.Stderr == nil {
		c.Stderr = ends[1]
	}
	c.Capture = func(name string, r io.ReadCloser) error {
		i := 0
		if name == "stderr" {
			i = 1
		}
		wg.Go(func() {
			defer r.Close()
			b, err := io.ReadAll(r)
			if err != nil {
				t.Errorf("captured %s: %v", name, err)
			}
			out.captured[i] = string(b)
		})
		return nil
	}
	res, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ends {
		_ = w.Close()
	}
	wg.Wait()
	out.Result = res
	return out
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestOutputsAreKeptApart(t *testing.T) {
	o := run(t, Config{Args: sh("echo out; echo err >&2; printf 'tail'"), PTY: Never})
	want := [2]string{"out\ntail", "err\n"}
	if o.passed != want || o.captured != want || o.ExitCode != 0 {
		t.Fatalf("got %+v", o)
	}
}

func TestExitCodes(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
		if o := run(t, Config{Args: sh(script), PTY: Never}); o.ExitCode != want {
			t.Errorf("%s: exit code %d, want %d", script, o.ExitCode, want)
		}
	}
	if o := run(t, Config{Args: []string{"no-such-command-anywhere"}, PTY: Never}); o.ExitCode != 127 || o.Err == nil {
		t.Errorf("missing command: %+v", o)
	}
	if o := run(t, Config{Args: []string{t.TempDir()}, PTY: Never}); o.ExitCode != 126 {
		t.Errorf("a directory as command: %+v", o)
	}
}

// Files are run, or not, as a shell would.
func TestFilesAsCommands(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		content string
		code    int
		output  string
	}{
		"script without interpreter": {"echo \"$0\" $1; exit 5\n", 5, dir + "/script without interpreter x\n"},
		"empty":                      {"", 0, ""},
		"unknown interpreter":        {"#!/no/such/interpreter\n", 127, ""},
		"program of another machine": {"\x7fELF and so on", 126, ""},
		"binary":                     {"a\x00b", 126, ""},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(test.content), 0o755); err != nil {
			t.Fatal(err)
		}
		if o := run(t, Config{Args: []string{path, "x"}, PTY: Never}); o.ExitCode != test.code || o.captured[0] != test.output {
			t.Errorf("%s: %+v", name, o)
		}
	}
	t.Chdir(dir)
	t.Setenv("PATH", ":"+os.Getenv("PATH")) // the current directory
	if o := run(t, Config{Args: []string{"empty"}, PTY: Never}); o.ExitCode != 0 {
		t.Errorf("by the current directory in PATH: %+v", o)
	}
}

func TestBulkArrivesWhole(t *testing.T) {
	o := run(t, Config{Args: sh("head -c 20000000 /dev/zero | tr '\\0' x; echo end"), PTY: Never})
	want := strings.Repeat("x", 20000000) + "end\n"
	if o.passed[0] != want || o.captured[0] != want {
		t.Fatalf("passed %d bytes, captured %d, want %d", len(o.passed[0]), len(o.captured[0]), len(want))
	}
}

func TestPTY(t *testing.T) {
	o := run(t, Config{Args: sh("test -t 1 && test -t 2 && echo terminal; echo err >&2"), PTY: Always})
	want := [2]string{"terminal\r\n", "err\r\n"}
	if o.passed != want || o.captured != want {
		t.Fatalf("got %+v", o)
	}
	if o := run(t, Config{Args: sh("test -t 1 || echo pipe"), PTY: Auto}); o.captured[0] != "pipe\n" {
		t.Fatalf("a PTY without a terminal of ours: %+v", o)
	}
}

// TestTerminal runs a command with a terminal of ours: it gets one too, with our size, and our keys.
func TestTerminal(t *testing.T) {
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 43, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for !strings.Contains(screen.String(), "got typed") {
			n, err := ours.Read(buf)
			screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	})
	if _, err := io.WriteString(ours, "typed\n"); err != nil {
		t.Fatal(err)
	}
	o := run(t, Config{Args: sh("stty size; read line; echo got $line"), PTY: Auto, Stdin: theirs, Stdout: theirs, Stderr: theirs})
	wg.Wait()
	if !strings.Contains(o.captured[0], "43 132") || !strings.Contains(o.captured[0], "got typed") {
		t.Fatalf("captured %q, screen %q", o.captured[0], screen.String())
	}
}

func TestSignalsPassThrough(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer r.Close()
		// The command says when its trap is set.
		if _, err := io.ReadFull(r, make([]byte, len("ready\n"))); err != nil {
			t.Error(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, r)
	})
	o := run(t, Config{Args: sh("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done"), PTY: Never, Stdout: w})
	_ = w.Close()
	wg.Wait()
	if o.ExitCode != 7 || o.captured[0] != "ready\ncaught\n" {
		t.Fatalf("got %+v", o)
	}
}

// What comes before the command does is not lost: the command is not started.
func TestSignalBeforeTheCommand(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1} { // which whoever started us does not ignore
		s := CatchSignals()
		_ = syscall.Kill(os.Getpid(), sig)
		for len(s.c) == 0 {
			runtime.Gosched()
		}
		ended := false
		o := run(t, Config{Args: sh("echo started"), PTY: Never, Signals: s, Ended: func() { ended = true }})
		s.Stop()
		if o.ExitCode != 128+int(sig) || o.Signal != int(sig) || o.passed[0] != "" || !ended {
			t.Errorf("%v: got %+v", sig, o)
		}
	}
}

// A signal that we ignore is ignored by the command, too.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer func() { // Reset alone leaves it ignored in the eyes of signal.Ignored
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGHUP)
		signal.Stop(c)
	}()
	o := run(t, Config{Args: sh("kill -HUP $$; echo lives"), PTY: Never})
	if o.ExitCode != 0 || o.captured[0] != "lives\n" {
		t.Errorf("got %+v", o)
	}
}

func TestBackgroundProcessDoesNotHold(t *testing.T) {
	begin := time.Now()
	o := run(t, Config{Args: sh("sleep 1000 & echo $!"), PTY: Never})
	var pid int
	_, _ = fmt.Sscan(o.captured[0], &pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if d := time.Since(begin); d > 30*time.Second {
		t.Fatalf("held for %v", d)
	}
	if o.ExitCode != 0 {
		t.Fatalf("got %+v", o)
	}
}

func TestReaderGoesAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	o := run(t, Config{Args: []string{"yes"}, PTY: Never, Stdout: w})
	if o.ExitCode != 128+int(syscall.SIGPIPE) {
		t.Fatalf("exit code %d, want that of a broken pipe", o.ExitCode)
	}
}

// A command that does not heed SIGTERM is killed, with what it started.
func TestGrace(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, len("ready\n"))); err != nil {
			t.Error(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, r)
	})
	o := run(t, Config{
		Args: sh("trap '' TERM; sleep 1000 & echo ready; wait; sleep 1000"), PTY: Never, Stdout: w, Grace: 50 * time.Millisecond,
	})
	_ = w.Close()
	wg.Wait()
	if o.ExitCode != 128+int(syscall.SIGKILL) || o.Signal != int(syscall.SIGKILL) {
		t.Fatalf("got %+v", o)
	}
}

// A Butler that is slow makes the command wait, and loses nothing.
func TestFeedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		want := bytes.Repeat([]byte("0123456789"), feedSize/4)
		written := false
		go func() {
			_, _ = f.Write(want)
			written = true
			f.CloseWrite()
		}()
		synctest.Wait()
		if written {
			t.Fatal("more than the ring holds was taken")
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	})
}

// When the Butler has gone, writing is free.
func TestFeedWithoutReader(t *testing.T) {
	f := newFeed()
	_ = f.Close()
	if n, err := f.Write(make([]byte, 3*feedSize)); n != 3*feedSize || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := f.Read(make([]byte, 1)); err == nil {
		t.Error("a closed feed was read")
	}
}

// A process left in the background that goes on writing to our pipe does not hold us either, and what the command itself wrote
// is there.
func TestBackgroundProcessThatWrites(t *testing.T) {
	o := run(t, Config{Args: sh("(while echo tick; do sleep 0.05; done) & echo $! >&2; head -c 300000 /dev/zero | tr '\\0' x"), PTY: Never})
	var pid int
	_, _ = fmt.Sscan(o.captured[1], &pid)
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	if n := strings.Count(o.captured[0], "x"); n != 300000 || o.ExitCode != 0 {
		t.Fatalf("%d bytes, exit code %d", n, o.ExitCode)
	}
}
