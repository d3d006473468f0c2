//go:build unix

// Package test holds the tests of the whole system: real processes, real engines, real network.
//
// They begin with what a user does and end with what a user sees. DAYBOOK_TEST_LARGE=1 (make test-large) runs them at full
// size.
package test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == burstArg {
		if err := runBurst(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// The client of Pub/Sub has it in its imports, for as long as the process lives.
	testkit.Main(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

var large = os.Getenv("DAYBOOK_TEST_LARGE") != ""

// size chooses between the size of every run and the full one.
func size(small, full int64) int64 {
	if large {
		return full
	}
	return small
}

// capture is a Writer under `daybook run`.
type capture struct {
	*testkit.Process
	h      *testkit.House
	w      testkit.Writer
	prefix string
	passed string // file with what came out of `daybook run` itself
}

// runWriter starts a Writer under `daybook run`.
func runWriter(t *testing.T, h *testkit.House, prefix string, w testkit.Writer) *capture {
	t.Helper()
	c := &capture{h: h, w: w, prefix: prefix, passed: filepath.Join(t.TempDir(), "stdout")}
	f, err := os.Create(c.passed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // the process has its own
	cmd := c.h.Command(append([]string{"run", "--prefix", c.prefix, "--"}, c.w.Args()...)...)
	cmd.Stdout = f
	c.Process = testkit.Start(t, cmd)
	return c
}

// finish waits for the command and checks that its exit code and its output came through.
func (c *capture) finish(t *testing.T) {
	t.Helper()
	want := c.w.Exit
	if c.w.Signal != 0 {
		want = 128 + c.w.Signal
	}
	if code := c.Wait(); code != want {
		t.Errorf("%s: exit code %d, want %d\n%s", c.prefix, code, want, c.Stderr)
	}
	f, err := os.Open(c.passed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := testkit.Compare(c.w.Stdout.Reader(), f); err != nil {
		t.Errorf("%s: stdout of run: %v", c.prefix, err)
	}
}

// check compares both streams, as cat prints them, with what the command wrote.
func (c *capture) check(t *testing.T) {
	t.Helper()
	if err := c.h.CompareCat(c.path("stdout"), c.w.Stdout.Reader()); err != nil {
		t.Error(err)
	}
	if err := c.h.CompareCat(c.path("stderr"), c.w.Stderr.Reader()); err != nil {
		t.Error(err)
	}
}

// checkUntilArchived compares again and again until both streams are archived, and once after that.
func (c *capture) checkUntilArchived(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(testkit.Patience); !t.Failed(); {
		states := map[string]int{}
		for _, s := range list(t, c.h, "local/"+c.prefix) {
			states[s.state]++
		}
		c.check(t)
		if states["complete"] == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not archived within %v: %v", c.prefix, testkit.Patience, states)
		}
	}
}

func (c *capture) path(name string) string { return "local/" + c.prefix + "/+/" + name }

// stream is a line of ls.
type stream struct{ path, state string }

// list is what ls prints.
func list(t *testing.T, h *testkit.House, pattern string) []stream {
	t.Helper()
	var streams []stream
	lines := bufio.NewScanner(strings.NewReader(h.Run("ls", "--limit", "0", pattern)))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) >= 2 && f[0] != "PATH" {
			streams = append(streams, stream{f[0], f[1]})
		}
	}
	return streams
}

// text is a Content of n bytes of lines, different for each seed.
func text(seed uint64, n int64) testkit.Content {
	return testkit.Content{Kind: testkit.Lines, Seed: seed, Size: n}
}
