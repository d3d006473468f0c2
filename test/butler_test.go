//go:build unix

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/filelock"
	"github.com/daybook-dev/daybook/internal/testkit"
)

// Programs below run find it, and their streams are below its prefix. What is a secret is in none of them.
func TestRunWithStreams(t *testing.T) {
	h := testkit.NewHouse(t)
	server := h.Serve()
	h.Setenv("DEPLOY_TOKEN", "hunter22hunter22")
	h.Setenv("LOGDOG_STREAM_PREFIX", "of/another/butler")
	result := filepath.Join(t.TempDir(), "result.json")
	script := fmt.Sprintf(`
		echo "token $DEPLOY_TOKEN"
		echo "key=abc123 err" >&2
		for i in 1 2 3; do echo "stream $i $DEPLOY_TOKEN $LOGDOG_STREAM_PREFIX" | %[1]s stream --name=many/$i --tag=i=$i; done
		printf '\003abc\000\020hunter22hunter22' | %[1]s stream --name=datagrams --type=datagram
		exit 7`, testkit.Binary(t))
	cmd := h.Command("run", "--prefix", "a/b", "--tag", "build=5", "--redact", `key=\w+`, "--stdout=out,tag=c=d", "--result-file", result, "--", "sh", "-c", script)
	var screen bytes.Buffer
	cmd.Stdout = &screen
	p := testkit.Start(t, cmd)
	if code := p.Wait(); code != 7 {
		t.Fatalf("exit code %d\n%s", code, p.Stderr)
	}
	if screen.String() != "token hunter22hunter22\n" {
		t.Errorf("the terminal shows %q", screen.String())
	}
	for name, want := range map[string]string{
		"out": "token ***\n", "stderr": "*** err\n", "many/1": "stream 1 *** a/b\n", "many/3": "stream 3 *** a/b\n",
	} {
		if got := h.Run("cat", "local/a/b/+/"+name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var r struct {
		ReturnCode int      `json:"return_code"`
		Command    []string `json:"command"`
		Streams    []string `json:"streams"`
	}
	b, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil || r.ReturnCode != 7 || !filepath.IsAbs(r.Command[0]) {
		t.Errorf("result %s, %v", b, err)
	}
	if diff := cmp.Diff([]string{"datagrams", "many/1", "many/2", "many/3", "out", "stderr"}, r.Streams); diff != "" {
		t.Error(diff)
	}
	tags := tagsOf(t, server, "local/a/b/+/out")
	if diff := cmp.Diff(map[string]string{"build": "5", "c": "d", "daybook.redacted": "1"}, tags); diff != "" {
		t.Error(diff)
	}
	if got := tagsOf(t, server, "local/a/b/+/many/2"); got["i"] != "2" || got["daybook.redacted"] != "1" {
		t.Errorf("tags %v", got)
	}
}

// A program that outlives the command, and holds a stream open, does not hold the run.
func TestStreamOfAnOrphan(t *testing.T) {
	h := testkit.NewHouse(t)
	h.Serve()
	seen := filepath.Join(t.TempDir(), "seen")
	script := fmt.Sprintf(`(echo begin; sleep 1000) 2>/dev/null | %s stream --name=orphan --tee >%s 2>/dev/null &
		until [ -s %[2]s ]; do sleep 0.01; done`, testkit.Binary(t), seen)
	begin := time.Now()
	p := testkit.Start(t, h.Command("run", "--prefix", "a/b", "--", "sh", "-c", script))
	if code := p.WaitFor(time.Minute); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.Stderr)
	}
	t.Logf("the run ended after %v", time.Since(begin))
	if got := h.Run("cat", "local/a/b/+/orphan"); got != "begin\n" {
		t.Errorf("the stream has %q", got)
	}
}

// A Butler serves programs until it is stopped, and what is open then ends.
func TestButler(t *testing.T) {
	h := testkit.NewHouse(t)
	h.Serve()
	socket := filepath.Join(t.TempDir(), "butler")
	out := testkit.NewOutput()
	cmd := h.Command("butler", "--prefix", "long/running", "--listen", "unix:"+socket)
	cmd.Stdout = out
	b := testkit.Start(t, cmd)
	m, err := out.Await(t.Context(), regexp.MustCompile(`LOGDOG_STREAM_SERVER_PATH=(.*)\n`))
	if err != nil {
		t.Fatal(err)
	}
	if m[1] != "unix:"+socket {
		t.Errorf("address %s", m[1])
	}
	h.Setenv("LOGDOG_STREAM_SERVER_PATH", m[1])
	stream := h.Command("stream", "--name", "one", "--tee")
	stream.Stdin = strings.NewReader("hello\n")
	var copied bytes.Buffer
	stream.Stdout = &copied
	if code := testkit.Start(t, stream).Wait(); code != 0 || copied.String() != "hello\n" {
		t.Errorf("exit code %d, copied %q", code, copied.String())
	}
	taken := h.Command("stream", "--name", "one")
	taken.Stdin = strings.NewReader("again\n")
	if p := testkit.Start(t, taken); p.Wait() == 0 || !strings.Contains(p.Stderr.String(), "duplicate") {
		t.Errorf("a name was taken twice: %s", p.Stderr)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	open := h.Command("stream", "--name", "open", "--tee")
	open.Stdin = r
	seen := testkit.NewOutput()
	open.Stdout = seen
	op := testkit.Start(t, open)
	_ = r.Close()
	if _, err := w.WriteString("still there\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := seen.Await(t.Context(), regexp.MustCompile("still there")); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, h, "local/long/running/+/open", "still there\n")
	b.Signal(syscall.SIGTERM)
	if code := b.WaitFor(time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, b.Stderr)
	}
	_ = w.Close()
	op.WaitFor(time.Minute)
	for name, want := range map[string]string{"one": "hello\n", "open": "still there\n"} {
		if got := h.Run("cat", "local/long/running/+/"+name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// Without a Butler, stream captures by itself.
func TestStreamAlone(t *testing.T) {
	h := testkit.NewHouse(t)
	h.Serve()
	cmd := h.Command("stream", "--prefix", "a/b", "--type", "binary", "--content-type", "image/png")
	cmd.Stdin = strings.NewReader("\x89PNG\r\n")
	if p := testkit.Start(t, cmd); p.Wait() != 0 {
		t.Fatal(p.Stderr)
	}
	if got := h.Run("cat", "local/a/b/+/stdin"); got != "\x89PNG\r\n" {
		t.Errorf("%q", got)
	}
	for _, bad := range [][]string{
		{"stream", "--name", "a//b"},
		{"stream", "--tag", "=x"},
		{"stream", "--redact", "("},
		{"run", "--tag", "a b=c", "--", "true"},
		{"run", "--stdout", "a//b", "--", "true"},
		{"butler", "--listen", "udp:127.0.0.1:0"},
		{"butler", "--listen", "tcp4:0.0.0.0:0"},
		{"run", "--spool-limit", "x", "--", "true"},
	} {
		if p := testkit.Start(t, h.Command(bad...)); p.Wait() == 0 {
			t.Errorf("%q went well", bad)
		}
	}
}

// What is left in spools is listed, sent by flush, and ends with a reason.
func TestSpoolOfAKilledRun(t *testing.T) {
	h := testkit.NewHouse(t)
	s := h.Serve()
	p := testkit.Start(t, h.Command("run", "--prefix", "a/b", "--", "sh", "-c", "echo one; while kill -0 $PPID 2>/dev/null; do sleep 0.01; done"))
	awaitOutput(t, h, "local/a/b/+/stdout", "one\n")
	s.Stop(time.Minute)
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if got := h.Run("spool", "ls"); !strings.Contains(got, "local/a/b") || !strings.Contains(got, "left behind") || !strings.Contains(got, "1 spools") {
		t.Errorf("spool ls: %s", got)
	}
	h.Serve()
	h.Run("flush")
	if got := h.Run("tail", "-f", "local/a/b/+/stdout"); got != "one\n" {
		t.Errorf("%q", got)
	}
	awaitNoSpools(t, h) // the new server sends it too, and may be a moment behind
}

// The next Butler sends everything that earlier ones left, however short its own life is.
func TestNextButlerSendsWhatIsLeft(t *testing.T) {
	h := testkit.NewHouse(t)
	h.Serve()
	var runs []*testkit.Process
	for i := range 8 {
		runs = append(runs, h.Start("run", "--prefix", fmt.Sprintf("left/%d", i), "--", "sh", "-c", "echo one; while kill -0 $PPID 2>/dev/null; do sleep 0.01; done"))
		awaitOutput(t, h, fmt.Sprintf("local/left/%d/+/stdout", i), "one\n")
	}
	for _, p := range runs {
		p.Signal(syscall.SIGKILL)
		p.Wait()
	}
	cmd := h.Command("stream", "--prefix", "next")
	cmd.Stdin = strings.NewReader("x\n")
	if p := testkit.Start(t, cmd); p.Wait() != 0 {
		t.Fatal(p.Stderr)
	}
	if got := h.Run("spool", "ls"); !strings.HasPrefix(got, "0 spools") {
		t.Fatalf("spool ls: %s", got)
	}
	for i := range runs {
		if got := h.Run("tail", "-f", fmt.Sprintf("local/left/%d/+/stdout", i)); got != "one\n" {
			t.Errorf("%d: %q", i, got)
		}
	}
}

// A server that does not start, be it another process's or our own, neither holds a command nor loses its output.
func TestServerThatDoesNotStart(t *testing.T) {
	for name, stop := range map[string]func(h *testkit.House) (start func()){
		"another one": func(h *testkit.House) func() {
			lock, err := filelock.TryLock(filepath.Join(h.Data, "LOCK"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = lock.Unlock() }
		},
		"ours": func(h *testkit.House) func() {
			config := filepath.Join(h.Data, "config.yaml")
			if err := os.WriteFile(config, []byte("no: [such setting"), 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { _ = os.Remove(config) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testkit.NewHouse(t)
			h.Run("ls") // makes the directory
			start := stop(h)
			p := h.Start("run", "--prefix", "a/b", "--", "sh", "-c", "echo one; exit 7")
			if code := p.Wait(); code != 7 || p.Stdout.String() != "one\n" || !strings.Contains(p.Stderr.String(), "there is no server") || !strings.Contains(p.Stderr.String(), "daybook: local/a/b/+/stdout\n") {
				t.Errorf("exit code %d, %s%s", code, p.Stdout, p.Stderr)
			}
			start()
			h.Run("flush")
			if got := h.Run("cat", "local/a/b/+/stdout"); got != "one\n" {
				t.Errorf("%q", got)
			}
		})
	}
}

// A spool that cannot be read keeps no other one back, is shown, and can be given up.
func TestUnreadableSpool(t *testing.T) {
	h := testkit.NewHouse(t)
	s := h.Serve()
	var runs []*testkit.Process
	for i := range 3 {
		runs = append(runs, testkit.Start(t, h.Command("run", "--prefix", fmt.Sprintf("left/%d", i), "--", "sh", "-c", "echo one; while kill -0 $PPID 2>/dev/null; do sleep 0.01; done")))
		awaitOutput(t, h, fmt.Sprintf("local/left/%d/+/stdout", i), "one\n")
	}
	s.Stop(time.Minute)
	for _, p := range runs {
		p.Signal(syscall.SIGKILL)
		p.Wait()
	}
	claims, err := filepath.Glob(filepath.Join(h.Data, "spool", "local", "left_1-*", "butler.json"))
	if err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
	if err := os.Truncate(claims[0], 0); err != nil { // as a power cut may leave it
		t.Fatal(err)
	}
	name := filepath.Base(filepath.Dir(claims[0]))
	p := testkit.Start(t, h.Command("flush"))
	if code := p.Wait(); code != 1 || !strings.Contains(p.Stdout.String(), "2 spools sent") || !strings.Contains(p.Stderr.String(), "daybook spool drop "+name) {
		t.Errorf("flush: exit code %d, %s%s", code, p.Stdout, p.Stderr)
	}
	for _, i := range []int{0, 2} {
		if got := h.Run("tail", "-f", fmt.Sprintf("local/left/%d/+/stdout", i)); got != "one\n" {
			t.Errorf("%d: %q", i, got)
		}
	}
	if got := h.Run("spool", "ls"); !strings.Contains(got, "unreadable") || !strings.Contains(got, name) || !strings.Contains(got, "1 spools") {
		t.Errorf("spool ls: %s", got)
	}
	h.Run("spool", "drop", name)
	if got := h.Run("spool", "ls"); !strings.HasPrefix(got, "0 spools") {
		t.Errorf("spool ls: %s", got)
	}
}

// flush says where the rest goes that is not for its server.
func TestFlushOfAnotherServer(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	if p := h.Start("run", "--server", "127.0.0.1:1", "--", "echo", "one"); p.Wait() != 0 {
		t.Fatal(p.Stderr)
	}
	p := h.Start("flush")
	if code := p.Wait(); code != 0 || !strings.Contains(p.Stdout.String(), "0 spools sent") || !strings.Contains(p.Stderr.String(), "1 more are for other servers") {
		t.Errorf("exit code %d, %s%s", code, p.Stdout, p.Stderr)
	}
}

// What no server will take can be given up, by name, unless its owner lives.
func TestSpoolDrop(t *testing.T) {
	h := testkit.NewHouse(t)
	s := h.Serve()
	p := testkit.Start(t, h.Command("run", "--prefix", "drop/me", "--", "sh", "-c", "echo one; while kill -0 $PPID 2>/dev/null; do sleep 0.01; done"))
	awaitOutput(t, h, "local/drop/me/+/stdout", "one\n")
	drop := func(name string) int { return testkit.Start(t, h.Command("spool", "drop", name)).Wait() }
	if drop("local/drop/me") == 0 {
		t.Error("dropped the spool of one that lives")
	}
	s.Stop(time.Minute)
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if drop("local/drop/you") == 0 {
		t.Error("dropped what is not there")
	}
	if got := h.Run("spool", "drop", "local/drop/me"); !strings.Contains(got, "dropped") || !strings.Contains(got, "local/drop/me") {
		t.Errorf("spool drop: %s", got)
	}
	if got := h.Run("spool", "ls"); !strings.HasPrefix(got, "0 spools") {
		t.Errorf("spool ls: %s", got)
	}
}

// tagsOf returns the tags of a stream.
func tagsOf(t *testing.T, s *testkit.Server, path string) map[string]string {
	t.Helper()
	resp, err := http.Get(s.URL + "/api/v1/stream/" + strings.ReplaceAll(path, "+", "%2B"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var v struct {
		Desc struct{ Tags map[string]string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return v.Desc.Tags
}

// awaitOutput waits until readers see some text of a stream.
func awaitOutput(t *testing.T, h *testkit.House, path, text string) {
	t.Helper()
	p := h.Start("tail", "-f", path)
	if _, err := p.Stdout.Await(t.Context(), regexp.MustCompile(regexp.QuoteMeta(text))); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	p.Wait()
}
