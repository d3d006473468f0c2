//go:build unix

package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// page is the first line of run on stderr.
var page = regexp.MustCompile(`\Adaybook: (http://[^/]+)/logs/(local/(\S+)/\+/stdout)\n`)

// compareAfterFirstLine compares a stream with what run passed on to its stderr, whose first line is its own.
func compareAfterFirstLine(t *testing.T, h *testkit.House, path string, passed []byte) {
	t.Helper()
	_, rest, ok := bytes.Cut(passed, []byte("\n"))
	if !ok || !page.Match(passed) {
		t.Fatalf("stderr of run begins %.200q, want the address of the page", passed)
	}
	if err := h.CompareCat(path, bytes.NewReader(rest)); err != nil {
		t.Error(err)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testkit.Patience}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("get %s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// What a new user does in the first minute.
func TestFirstMinute(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)

	run := h.Start("run", "--", "go", "vet", "-n", "../internal/fault")
	if code := run.Wait(); code != 0 {
		t.Fatalf("run: exit code %d\n%s", code, run.Stderr)
	}
	match := page.FindStringSubmatch(run.Stderr.String())
	if match == nil {
		t.Fatalf("stderr of run begins %.200q, want the address of the page", run.Stderr)
	}
	path, prefix := match[2], match[3]

	server := h.Serve()
	for _, url := range []string{"/", "/logs/" + path, "/healthz", "/readyz"} {
		fetch(t, server.URL+url)
	}
	if err := h.CompareCat(path, strings.NewReader(run.Stdout.String())); err != nil {
		t.Error(err)
	}
	compareAfterFirstLine(t, h, "local/"+prefix+"/+/stderr", []byte(run.Stderr.String()))
	if got := h.Run("ls", "local"); !strings.Contains(got, path) {
		t.Errorf("ls does not show %s:\n%s", path, got)
	}
	server.Stop(30 * time.Second)

	// Without a server the same is still there.
	if err := h.CompareCat(path, strings.NewReader(run.Stdout.String())); err != nil {
		t.Errorf("without a server: %v", err)
	}
	if got := h.Run("version"); !strings.Contains(got, "daybook") {
		t.Errorf("version: %q", got)
	}
}

func TestSolo(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	c := runWriter(t, h, "solo", testkit.Writer{Stdout: text(1, 2<<20), Stderr: text(2, 3000), Exit: 5})
	c.finish(t)
	c.check(t)
}

// The page's address works while a solo run goes on, and others on the same directory see its streams.
func TestSoloIsSeenByOthers(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	gate := testkit.NewGate(t)
	c := runWriter(t, h, "solo/first", testkit.Writer{Stdout: text(1, 40_000), Gate: gate.Addr()})
	gate.Await(c.Process)
	match := c.Await(c.Stderr, page)
	follower := h.Start("tail", "-f", c.path("stdout"))
	follower.Await(follower.Stdout, regexp.MustCompile(`^1 `))
	fetch(t, match[1]+"/logs/"+match[2])

	other := runWriter(t, h, "solo/second", testkit.Writer{Stdout: text(2, 40_000)})
	other.finish(t)
	other.check(t)
	if got := list(t, h, "local/solo/**"); len(got) != 4 {
		t.Errorf("ls: %v, want four streams", got)
	}
	gate.Open()
	c.finish(t)
	c.check(t)
	other.check(t)
}

// The process that has the system in it ends first; the others go on without loss.
func TestSoloHolderLeaves(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	var captures []*capture
	var gates []*testkit.Gate
	for i := range 4 {
		gate := testkit.NewGate(t)
		w := testkit.Writer{Stdout: text(uint64(i), 200_000), Gate: gate.Addr()}
		c := runWriter(t, h, fmt.Sprintf("leave/%d", i), w)
		gate.Await(c.Process)
		captures, gates = append(captures, c), append(gates, gate)
	}
	for i, c := range captures {
		gates[i].Open()
		c.finish(t)
	}
	for _, c := range captures {
		c.check(t)
	}
}

func TestServerAppearsDuringSoloRun(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	gate := testkit.NewGate(t)
	c := runWriter(t, h, "appears", testkit.Writer{Stdout: text(1, 400_000), Stderr: text(2, 1000), Gate: gate.Addr()})
	gate.Await(c.Process)
	h.Serve()
	gate.Open()
	c.finish(t)
	c.checkUntilArchived(t)
}

func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	second := h.Start("serve", "--listen", "127.0.0.1:0")
	if code := second.Wait(); code == 0 {
		t.Error("a second server on the same directory was not refused")
	}
	if !strings.Contains(second.Stderr.String(), h.Data) {
		t.Errorf("the refusal does not name the directory: %s", second.Stderr)
	}
	fetch(t, server.URL+"/readyz")
}

func TestServerWithoutAuthenticationStaysOnLoopback(t *testing.T) {
	t.Parallel()
	p := testkit.NewHouse(t).Start("serve", "--listen", "0.0.0.0:0")
	if code := p.Wait(); code == 0 || !strings.Contains(p.Stderr.String(), "listen on 127.0.0.1") {
		t.Errorf("exit code %d: %s", code, p.Stderr)
	}
}

// SIGTERM ends the server in order and in time, with a command in the middle of its output.
func TestOrderedShutdown(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	gate := testkit.NewGate(t)
	c := runWriter(t, h, "shutdown", testkit.Writer{Stdout: text(1, 400_000), Gate: gate.Addr()})
	follower := h.Start("tail", "-f", c.path("stdout"))
	gate.Await(c.Process)
	server.Stop(30 * time.Second)
	gate.Open()
	server.Restart()
	c.finish(t)
	if code := follower.Wait(); code != 0 {
		t.Errorf("tail: exit code %d\n%s", code, follower.Stderr)
	}
	if err := testkit.Compare(c.w.Stdout.Reader(), strings.NewReader(follower.Stdout.String())); err != nil {
		t.Errorf("tail: %v", err)
	}
	c.check(t)
}

// A follower that began before the stream existed has all of it when the stream ends, also when the server died meanwhile.
func TestTailFollows(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%t", kill), func(t *testing.T) {
			t.Parallel()
			h := testkit.NewHouse(t)
			server := h.Serve()
			before := h.Start("tail", "-f", "local/tail/+/stdout")
			gate := testkit.NewGate(t)
			content := testkit.Content{Kind: testkit.InvalidUTF8, Seed: 1, Size: 1 << 20}
			c := runWriter(t, h, "tail", testkit.Writer{Stdout: content, Gate: gate.Addr()})
			gate.Await(c.Process)
			between := h.Start("tail", "-f", "local/tail/+/stdout")
			// What was written before the gate is seen before the gate opens.
			before.Await(before.Stdout, regexp.MustCompile(`(?s)^.{100}`))
			if kill {
				server.Kill()
				server.Restart()
			}
			gate.Open()
			c.finish(t)
			after := h.Start("tail", "-f", "local/tail/+/stdout")
			for name, p := range map[string]*testkit.Process{"before": before, "between": between, "after": after} {
				if code := p.Wait(); code != 0 {
					t.Errorf("tail from %s: exit code %d\n%s", name, code, p.Stderr)
				}
				if err := testkit.Compare(content.Reader(), strings.NewReader(p.Stdout.String())); err != nil {
					t.Errorf("tail from %s: %v", name, err)
				}
			}
		})
	}
}

func TestReadersOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	for _, args := range [][]string{{"cat", "local/none/+/stdout"}, {"cat", "no path"}, {"tail", "local/none/+/stdout"}} {
		p := h.Start(args...)
		if code := p.Wait(); code == 0 || p.Stdout.String() != "" || !strings.HasPrefix(p.Stderr.String(), "daybook: ") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, p.Stdout, p.Stderr)
		}
	}
	if got := list(t, h, "local"); len(got) != 0 {
		t.Errorf("ls of nothing: %v", got)
	}
}
