//go:build unix

package test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/daybook-dev/daybook/internal/testkit"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command []string
		want    int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 3"}, 3},
		{[]string{"sh", "-c", "exit 255"}, 255},
		{[]string{"sh", "-c", "kill -TERM $$"}, 143},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137},
		{[]string{"daybook-test-no-such-command"}, 127},
		{[]string{plain}, 126},
	} {
		p := h.Start(append([]string{"run", "--"}, test.command...)...)
		if code := p.Wait(); code != test.want {
			t.Errorf("run %q: exit code %d, want %d\n%s", test.command, code, test.want, p.Stderr)
		}
	}
	for _, args := range [][]string{{"run"}, {"run", "--"}, {"run", "--prefix", "not//valid", "--", "true"}, {"no-such-command"}} {
		if code := h.Start(args...).Wait(); code != 2 {
			t.Errorf("daybook %q: exit code %d, want 2", args, code)
		}
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	// Below nohup SIGHUP is ignored, by our children too, unless we take it.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for name, sig := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP} {
		script := `sleep 1000 >/dev/null 2>&1 & p=$!; trap 'kill $p; echo got it; exit 9' ` + name + `; echo ready; wait`
		p := h.Start("run", "--prefix", "signal/"+name, "--", "sh", "-c", script)
		p.Await(p.Stdout, regexp.MustCompile("ready\n"))
		p.Signal(sig)
		if code := p.Wait(); code != 9 {
			t.Errorf("SIG%s: exit code %d, want 9\n%s", name, code, p.Stderr)
		}
		if err := h.CompareCat("local/signal/"+name+"/+/stdout", strings.NewReader("ready\ngot it\n")); err != nil {
			t.Error(err)
		}
	}
}

func TestStdinReachesTheCommand(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	content := testkit.Content{Kind: testkit.Random, Seed: 1, Size: 1 << 20}
	cmd := h.Command("run", "--prefix", "stdin", "--", "cat")
	cmd.Stdin = content.Reader()
	if code := testkit.Start(t, cmd).Wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if err := h.CompareCat("local/stdin/+/stdout", content.Reader()); err != nil {
		t.Error(err)
	}
}

func TestPTY(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	for mode, want := range map[string]int{"always": 0, "never": 1, "auto": 1} { // our own output is no terminal
		p := h.Start("run", "--pty="+mode, "--", "sh", "-c", "test -t 1")
		if code := p.Wait(); code != want {
			t.Errorf("--pty=%s: test -t 1 says %d, want %d\n%s", mode, code, want, p.Stderr)
		}
	}
}

// Below a shell with a terminal, a run in the background goes on as its command would alone; brought to the foreground, it has the keys.
func TestJobInTheBackground(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	c := h.Command("run", "--", "sh", "-c", "echo be''gun; until test -e "+h.Data+".go; do sleep 0.01; done; read x; echo got''ten $x")
	shell := exec.Command("sh", "-i")
	shell.Env = append(c.Env, "PS1=$ ", "HISTFILE=")
	terminal, err := pty.Start(shell)
	if err != nil {
		t.Fatal(err)
	}
	screen := testkit.NewOutput()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(screen, terminal) }) // until the shell is gone
	defer func() {
		_ = shell.Process.Kill() // if it did not end
		_ = shell.Wait()
		_ = terminal.Close()
		wg.Wait()
	}()
	say := func(line, want string) {
		t.Helper()
		if _, err := io.WriteString(terminal, line+"\n"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
		defer cancel()
		if _, err := screen.Await(ctx, regexp.MustCompile(want)); err != nil {
			t.Fatalf("%v\n%s", err, screen)
		}
	}
	say("'"+c.Path+"' '"+strings.Join(c.Args, "' '")+"' &", "begun")
	if err := os.WriteFile(h.Data+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	say("jobs; echo lis''ted", "listed")
	if strings.Contains(screen.String(), "Stopped") {
		t.Fatalf("it was stopped:\n%s", screen)
	}
	say("fg", "(?s)listed.*until test")
	say("typed", `gotten typed\s+\$ `) // what is typed before the prompt may be the run's
	say("stty -a; echo rest''ored", "(?s) icanon.*restored")
	say("exit", "")
}

// A prefix belongs to the run that registered it.
func TestPrefixIsUsedOnce(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	first := runWriter(t, h, "once", testkit.Writer{Stdout: text(1, 5000)})
	first.finish(t)
	second := runWriter(t, h, "once", testkit.Writer{Stdout: text(2, 5000)})
	second.finish(t) // the command runs all the same
	if !strings.Contains(second.Stderr.String(), "daybook: ") || second.Stderr.String() == first.Stderr.String() {
		t.Errorf("the user was not told: %s", second.Stderr)
	}
	first.check(t)
}

// The server cannot be reached at all: the command does not notice, and its output arrives later.
func TestServerOutOfReach(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	proxy := testkit.NewProxy(t, server.Addr)
	h.Setenv("DAYBOOK_SERVER", proxy.Addr())
	gate := testkit.NewGate(t)
	c := runWriter(t, h, "reach", testkit.Writer{Stdout: text(1, 600_000), Stderr: text(2, 100), Gate: gate.Addr()})
	gate.Await(c.Process)
	proxy.Refuse()
	proxy.Cut()
	gate.Open()
	c.finish(t)
	proxy.Accept()
	h.Run("flush")
	c.checkUntilArchived(t)
}
