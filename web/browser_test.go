package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// TestBrowser drives the pages in a real browser. The script tells the fake Coordinator what to do over HTTP. With
// DAYBOOK_SCREENSHOTS=<directory> it leaves pictures of the pages there.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing; `make setup` installs it")
	}
	const file = "e2e/viewer.mjs"
	if _, err := os.Stat(file); err != nil { // which also lets `go test` know that the result depends on the script
		t.Fatal(err)
	}
	f := newFake()
	fill(f)
	s := serve(t, f)
	explored := explorable(t, f)
	mux := http.NewServeMux()
	control := func(path string, do func(r *http.Request)) {
		mux.HandleFunc("POST "+path, func(_ http.ResponseWriter, r *http.Request) { do(r) })
	}
	stream := func(r *http.Request) *fakeStream {
		path := r.FormValue("path")
		f.mu.Lock()
		found := f.find("local", path)
		f.mu.Unlock()
		if found == nil {
			found = f.add(path, logpb.StreamType_TEXT)
		}
		return found
	}
	control("/print", func(r *http.Request) { f.print(stream(r), 3*time.Second, r.FormValue("text")) })
	control("/flood", func(r *http.Request) {
		lines, _ := strconv.Atoi(r.FormValue("lines"))
		printNumbers(f, stream(r), lines)
	})
	control("/end", func(r *http.Request) { f.end(stream(r), daybookv1.StreamState_COMPLETE, "") })
	// fail ends the calls to the Coordinator with an error; drop closes the browser's connections.
	control("/fail", func(*http.Request) { f.cutAll() })
	control("/drop", func(*http.Request) { s.CloseClientConnections() })
	controller := httptest.NewServer(mux)
	defer controller.Close()

	script := exec.CommandContext(t.Context(), "node", file)
	script.Env = append(os.Environ(), "VIEWER="+s.URL, "EXPLORED="+explored, "CONTROL="+controller.URL, "CHROMIUM="+chromium, "PROFILE="+t.TempDir(),
		fmt.Sprintf("PATIENCE=%d", testkit.Patience.Milliseconds()))
	out, err := script.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// explorable serves the pages with calls by HTTP and a login beside them, as a server does, and returns its address.
func explorable(t *testing.T, f *fakeLogs) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	calls := prpc.NewServer(prpc.Config{Logger: log})
	daybookv1.RegisterLogsServer(calls, f)
	mux := http.NewServeMux()
	mux.Handle("/", Handler(Config{Logs: dial(t, f), Login: func() bool { return true }, Logger: log}))
	login := NewLogin(func(_ context.Context, token string) (string, error) {
		if token != "right" {
			return "", fault.New(fault.Unauthenticated, "no")
		}
		return "token:reader", nil
	})
	mux.Handle("/login", login)
	mux.Handle("/logout", login)
	mux.Handle(prpc.Prefix, calls)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// printNumbers adds lines that tell their own number.
func printNumbers(f *fakeLogs, s *fakeStream, lines int) {
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "line %d of a stream that goes on and on\n", s.lines+uint64(i%200)+1)
		if i%200 == 199 || i == lines-1 {
			f.print(s, time.Duration(s.lines)*time.Millisecond, text.String())
			text.Reset()
		}
	}
}

// fill makes a few streams such as a day brings.
func fill(f *fakeLogs) {
	done := func(path, text string, state daybookv1.StreamState, reason string) {
		s := f.add(path, logpb.StreamType_TEXT)
		f.print(s, 0, text)
		f.end(s, state, reason)
	}
	done("ci/linux/nightly/2041/+/steps/fetch/stdout", "fetched 14 repositories\n", daybookv1.StreamState_COMPLETE, "")
	done("ci/linux/nightly/2041/+/steps/build/stdout", strings.Repeat("CC src/file.o\n", 1200), daybookv1.StreamState_COMPLETE, "")
	done("ci/linux/nightly/2041/+/steps/build/stderr", "warning: unused variable\n", daybookv1.StreamState_COMPLETE, "")

	lost := f.add("ci/mac/nightly/877/+/stdout", logpb.StreamType_TEXT)
	for i := range 9 {
		f.print(lost, time.Duration(i)*time.Second, fmt.Sprintf("step %d\n  done\n", i+1))
	}
	f.lose(lost, 3, 4)
	f.lose(lost, 7, 7)
	f.end(lost, daybookv1.StreamState_INCOMPLETE, "the machine stopped reporting")

	binary := f.add("user/laptop/tar.20260314-092653.k2f9/+/stdout", logpb.StreamType_BINARY)
	f.append(binary, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: make([]byte, 123_456)}}
	})
	f.end(binary, daybookv1.StreamState_COMPLETE, "")

	printNumbers(f, f.add("long/+/stdout", logpb.StreamType_TEXT), 100_000)
	printNumbers(f, f.add("sought/+/stdout", logpb.StreamType_TEXT), 20_000)

	wide := f.add("wide/+/stdout", logpb.StreamType_TEXT)
	f.print(wide, 0, "first\nbegin: ")
	for range 64 {
		f.print(wide, 0, strings.Repeat("y", 100_000))
	}
	f.print(wide, 0, "\nthe last line\n")

	build := "user/laptop/make.20260314-101500.x7d1/+/"
	s := f.add(build+"stdout", logpb.StreamType_TEXT)
	s.meta.Desc.Tags = map[string]string{"branch": "main", "commit": "<b>4f1c</b>"}
	f.print(s, 12*time.Millisecond, "\x1b[1m==> configure\x1b[0m\nchecking for a C compiler... \x1b[32myes\x1b[0m\r\nchecking for libssl... \x1b[31mno\x1b[0m (see https://example.com/ssl.)\n")
	f.print(s, 640*time.Millisecond, "\n   0%\r  50%\r 100% downloaded\n<b>markup</b> & \x1b]0;title\x07bytes \xff\xfe, a bell \x07, \x1b[38;5;208morange\x1b[0m, \x1b[38;2;120;90;220mviolet\x1b[m, \x1b[7minverse\x1b[m, \x1b[1;37;41m FAIL \x1b[m, \x1b[42m PASS \x1b[m\n")
	f.print(s, 1900*time.Millisecond, "g++ -O2 "+strings.Repeat("-Iinclude/some/rather/long/path ", 14)+"-c main.cc\n")
	for i := range 60 {
		f.print(s, 2*time.Second+time.Duration(i)*35*time.Millisecond, fmt.Sprintf("\x1b[2m[%2d/60]\x1b[0m CXX obj/module_%02d.o\n", i+1, i))
	}
	e := f.add(build+"stderr", logpb.StreamType_TEXT)
	f.print(e, time.Second, "main.cc:12:5: \x1b[1;35mwarning:\x1b[0m unused variable \x1b[1m‘x’\x1b[0m\n")
	f.add(build+"empty", logpb.StreamType_TEXT)
}
