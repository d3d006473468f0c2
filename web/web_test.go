package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
)

const stdout = "user/host/make.2026/+/stdout"

// get requests a path without following redirects.
func get(t *testing.T, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "Mozilla/5.0")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: body: %v", url, err)
	}
	return res, string(body)
}

// post sends a body and returns the status and the answer.
func post(t *testing.T, url, contentType, body string) (int, string) {
	t.Helper()
	res, err := http.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestStatuses(t *testing.T) {
	f := newFake()
	f.print(f.add(stdout, logpb.StreamType_TEXT), 0, "hello\n")
	s := serve(t, f)
	for _, test := range []struct {
		path, agent, contentType string
		status                   int
		location                 string
	}{
		{path: "/", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/" + stdout, status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/user/host/make.2026/%2B/stdout", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/user/host/make.2026", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/user/host/make.2026/", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/" + stdout, agent: "curl/8", status: 200, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/" + stdout, agent: "Wget/1", status: 200, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/" + stdout, agent: "Python-urllib/3.11", status: 200, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/" + stdout + "?format=RAW", status: 200, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/" + stdout + "?format=html", agent: "curl/8", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/user/host/make.2026", agent: "curl/8", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/user/host/make.2026?format=raw", status: 400, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/nothing/+/here", status: 404, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/nothing/+/here", agent: "curl/8", status: 404, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/local/nothing", status: 404, contentType: "text/html; charset=utf-8"},
		{path: "/logs/local/a!/+/b", status: 400, contentType: "text/html; charset=utf-8"},
		{path: "/logs/Local/a/+/b?format=raw", status: 400, contentType: "text/plain; charset=utf-8"},
		{path: "/logs/", status: 302, location: "/"},
		{path: "/logs/local", status: 302, location: "/?project=local"},
		{path: "/logs/local/a/b/+", status: 302, location: "/logs/local/a/b"},
		{path: "/v/?s=local%2Fa:b%2F%2B%2Fstdout&s=other&x=1", status: 302, location: "/logs/local/a:b/+/stdout?x=1"},
		{path: "/v/?s=//evil.example/", status: 302, location: "/logs/evil.example"},
		{path: "/v/", status: 400, contentType: "text/html; charset=utf-8"},
		{path: "/nothing", status: 404, contentType: "text/html; charset=utf-8"},
		{path: "/rpcexplorer/", status: 200, contentType: "text/html; charset=utf-8"},
		{path: "/rpcexplorer/explorer.js", status: 200, contentType: "text/javascript; charset=utf-8"},
		{path: "/rpcexplorer/nothing", status: 404, contentType: "text/html; charset=utf-8"},
		{path: "/static/nothing.js", status: 404, contentType: "text/plain; charset=utf-8"},
		{path: "/api/v1/nothing", status: 404, contentType: "application/json"},
		{path: "/api/v1/version", status: 200, contentType: "application/json"},
		{path: "/api/v1/projects", status: 200, contentType: "application/json"},
		{path: "/api/v1/prefixes", status: 400, contentType: "application/json"},
		{path: "/api/v1/prefixes?project=local&page_size=x", status: 400, contentType: "application/json"},
		{path: "/api/v1/prefixes?project=broken", status: 500, contentType: "application/json"},
		{path: "/api/v1/streams?project=local", status: 200, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&since=yesterday", status: 400, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&type=voice", status: 400, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&state=unspecified", status: 400, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&state=state_unspecified", status: 400, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&state=stream_state_unspecified", status: 400, contentType: "application/json"},
		{path: "/api/v1/streams?project=local&tag=a=b&tag=a=c", status: 400, contentType: "application/json"},
		{path: "/api/v1/folders", status: 400, contentType: "application/json"},
		{path: "/api/v1/usage?project=A", status: 400, contentType: "application/json"},
		{path: "/api/v1/purge", status: 405},
		{path: "/api/v1/follow/local/" + stdout + "?format=xml", status: 400, contentType: "application/json"},
		{path: "/api/v1/stream/local/" + stdout, status: 200, contentType: "application/json"},
		{path: "/api/v1/stream/local/a/+/b", status: 404, contentType: "application/json"},
		{path: "/api/v1/stream/local/a", status: 400, contentType: "application/json"},
		{path: "/api/v1/follow/local/a/+/b", status: 404, contentType: "application/json"},
		{path: "/api/v1/follow/local/" + stdout + "?index=-1", status: 400, contentType: "application/json"},
		{path: "/api/v1/entries/local/" + stdout + "?index=0&line=1", status: 400, contentType: "application/json"},
		{path: "/api/v1/entries/local/" + stdout + "?line=0", status: 400, contentType: "application/json"},
		{path: "/api/v1/entries/local/" + stdout + "?until=x", status: 400, contentType: "application/json"},
	} {
		t.Run(test.agent+test.path, func(t *testing.T) {
			var headers []string
			if test.agent != "" {
				headers = []string{"User-Agent", test.agent}
			}
			res, body := get(t, s.URL+test.path, headers...)
			if res.StatusCode != test.status {
				t.Errorf("status %d, want %d", res.StatusCode, test.status)
			}
			if got := res.Header.Get("Location"); got != test.location {
				t.Errorf("location %q, want %q", got, test.location)
			}
			if got := res.Header.Get("Content-Type"); test.contentType != "" && got != test.contentType {
				t.Errorf("content type %q, want %q", got, test.contentType)
			}
			for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
				if res.Header.Get(name) == "" {
					t.Errorf("header %s is missing", name)
				}
			}
			if strings.Contains(body, "secret") {
				t.Errorf("tells of the server's inside: %s", body)
			}
			if test.status >= 400 && test.contentType == "application/json" {
				var e apiErrorBody
				if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code == "" || e.Message == "" {
					t.Errorf("error body %q: %v", body, err)
				}
			}
			if test.status >= 400 && strings.HasPrefix(test.contentType, "text/plain") && !strings.HasPrefix(body, "ERROR: ") {
				t.Errorf("error body %q", body)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	s := serve(t, newFake())
	res, err := http.Post(s.URL+"/api/v1/projects", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

// The shell refers to files that are there and may be cached for ever, and shows the version.
func TestAssets(t *testing.T) {
	s := serve(t, newFake())
	_, shell := get(t, s.URL)
	if !strings.Contains(shell, "v1.2.3 &lt;test&gt;") {
		t.Error("the shell lacks the version")
	}
	if strings.Contains(shell, "{{") {
		t.Error("the shell has a placeholder left")
	}
	count := 0
	for _, part := range strings.Split(shell, `"`) {
		if !strings.HasPrefix(part, "/static/") {
			continue
		}
		count++
		res, _ := get(t, s.URL+part)
		if res.StatusCode != 200 || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: status %d, %v", part, res.StatusCode, res.Header)
		}
	}
	if count < 3 {
		t.Errorf("the shell refers to %d files; a script, a style sheet and an icon are expected", count)
	}
	for _, bad := range []string{"<style", "style=", "onload="} {
		if strings.Contains(shell, bad) {
			t.Errorf("the shell has %s, which its own policy forbids", bad)
		}
	}
}

func TestRaw(t *testing.T) {
	f := newFake()
	text := f.add(stdout, logpb.StreamType_TEXT)
	f.print(text, 0, "one\ntwo\r\n\n")
	f.print(text, 0, "half")
	f.print(text, 0, " line\n<b>\xff\xfe\x00\n")
	f.print(text, 0, "no end")
	binary := f.add("p/+/a/b.bin", logpb.StreamType_BINARY)
	for _, b := range []string{"\x00\x01", "\xff"} {
		f.append(binary, 0, func(e *logpb.LogEntry) { e.Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte(b)}} })
	}
	f.end(binary, daybookv1.StreamState_COMPLETE, "")
	datagrams := f.add("p/+/dg", logpb.StreamType_DATAGRAM)
	for _, b := range []string{"a", "", "bc"} {
		f.append(datagrams, 0, func(e *logpb.LogEntry) {
			e.Content = &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte(b)}}
		})
	}
	f.lose(datagrams, 1, 1)
	f.end(datagrams, daybookv1.StreamState_INCOMPLETE, "the machine died")
	empty := f.add("p/+/empty", logpb.StreamType_TEXT)
	f.end(empty, daybookv1.StreamState_COMPLETE, "")
	s := serve(t, f)
	for _, test := range []struct{ path, body, contentType, disposition, state, missing string }{
		{stdout, "one\ntwo\r\n\nhalf line\n<b>\xff\xfe\x00\nno end", "text/plain; charset=utf-8", "", "OPEN", ""},
		{"p/+/a/b.bin", "\x00\x01\xff", "application/octet-stream", "attachment; filename=a_b.bin", "COMPLETE", ""},
		{"p/+/dg", "abc", "application/octet-stream", "attachment; filename=dg", "INCOMPLETE", "1-1"},
		{"p/+/empty", "", "text/plain; charset=utf-8", "", "COMPLETE", ""},
	} {
		res, body := get(t, s.URL+"/logs/local/"+test.path+"?format=raw")
		got := []string{
			body, res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition"), res.Header.Get(stateHeader), res.Header.Get(missingHeader),
			res.Trailer.Get(endHeader), res.Trailer.Get(endMissingHeader), res.Trailer.Get(endReasonHeader),
		}
		reason := map[bool]string{true: "the machine died"}[test.missing != ""]
		want := []string{test.body, test.contentType, test.disposition, test.state, test.missing, test.state, test.missing, reason}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.path, diff)
		}
		if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q", test.path, got)
		}
	}
	res, err := http.Head(s.URL + "/logs/local/" + stdout + "?format=raw")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.Header.Get(stateHeader) != "OPEN" || f.follows != 4 {
		t.Errorf("HEAD: %v, %d calls to Follow", res.Header, f.follows)
	}
}

func TestRawFollow(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "one\n")
	s := serve(t, f)
	res, err := http.Get(s.URL + "/logs/local/" + stdout + "?format=raw&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := bufio.NewReader(res.Body)
	for _, want := range []string{"one\n", "two\n", "three\n"} {
		if want != "one\n" {
			f.print(stream, 0, want)
		}
		if got, err := body.ReadString('\n'); got != want || err != nil {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("read %q, %v at the end", rest, err)
	}
	if got := res.Trailer.Get(endHeader); got != "COMPLETE" {
		t.Errorf("trailer %q", got)
	}
}

// A response that was cut off does not look like a complete one.
func TestRawCut(t *testing.T) {
	f := newFake()
	f.print(f.add(stdout, logpb.StreamType_TEXT), 0, "one\n")
	s := serve(t, f)
	res, err := http.Get(s.URL + "/logs/local/" + stdout + "?format=raw&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := bufio.NewReader(res.Body)
	if _, err := body.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	f.cutAll()
	if rest, err := io.ReadAll(body); err == nil {
		t.Errorf("read %q and a regular end", rest)
	}
}

func TestDataAPI(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "hello\n")
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	f.add("other/+/stderr", logpb.StreamType_TEXT)
	s := serve(t, f)
	streamJSON := jsonOf(t, stream.meta)
	for _, want := range []string{`"project":"local"`, `"state":"COMPLETE"`, `"created":"2026-03-14T09:26:53Z"`, `"size":"6"`, `"endReason":""`, `"missing":[]`} {
		if !strings.Contains(streamJSON, want) {
			t.Errorf("the JSON of a stream lacks %s: %s", want, streamJSON)
		}
	}
	for path, want := range map[string]string{
		"version":                               `{"version":"v1.2.3 <test>"}` + "\n",
		"projects":                              `{"projects":["chromium","local"]}`,
		"stream/local/" + stdout:                streamJSON,
		"streams?project=local&pattern=user/**": `{"streams":[` + streamJSON + `],"nextPageToken":""}`,
		"prefixes?project=local&pattern=user/host/make.2026": `{"prefixes":[{"project":"local","prefix":"user/host/make.2026",` +
			`"created":"2026-03-14T09:26:53Z","streams":[` + streamJSON + `]}],"nextPageToken":""}`,
	} {
		if _, body := get(t, s.URL+"/api/v1/"+path); body != want {
			t.Errorf("%s:\n got %s\nwant %s", path, body, want)
		}
	}
	var page struct {
		Prefixes      []struct{ Prefix string }
		NextPageToken string
	}
	_, body := get(t, s.URL+"/api/v1/prefixes?project=local&page_size=1")
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Prefixes) != 1 || page.Prefixes[0].Prefix != "other" {
		t.Fatalf("first page: %s, %v", body, err)
	}
	_, body = get(t, s.URL+"/api/v1/prefixes?project=local&page_size=1&page_token="+page.NextPageToken)
	if !strings.Contains(body, "user/host/make.2026") || strings.Contains(body, "other") {
		t.Errorf("second page: %s", body)
	}
}

// FuzzPaths holds that no path makes the handler fail in a way of its own.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{
		"/", "/logs/local/a/+/b?format=raw", "/api/v1/entries/local/a/+/b?line=9", "/v/?s=%2F", "/logs/%2B/+/+", "/static/..", "//x",
		"/api/v1/streams?project=p&tag=a=b&type=text&state=open&since=2026-03-14T09:26:53Z", "/api/v1/folders?project=p&parent=%2F", "/rpcexplorer/%2e%2e/x",
	} {
		f.Add(seed)
	}
	_, routes := newHandler(Config{Logs: dial(f, newFake()), Logger: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, path string) {
		if strings.ContainsAny(path, " \r\n") || !strings.HasPrefix(path, "/") {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewBufferString("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			return
		}
		w := &responseRecorder{header: make(http.Header)}
		routes.ServeHTTP(w, r)
		if w.status == http.StatusInternalServerError {
			t.Errorf("%s: status 500", path)
		}
	})
}

type responseRecorder struct {
	header http.Header
	status int
}

func (r *responseRecorder) Header() http.Header         { return r.header }
func (r *responseRecorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *responseRecorder) WriteHeader(status int)      { r.status = status }

// The address of a page is told before the stream's first byte gets to the server; who is fast is not turned away.
func TestStreamThatIsAboutToCome(t *testing.T) {
	f := newFake()
	s := serveOptions(t, f, func(h *handler) { h.hold = time.Minute })
	statuses := make(chan int, 3)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, path := range []string{"/logs/local/" + stdout, "/logs/local/" + stdout + "?format=raw", "/api/v1/stream/local/" + stdout} {
		wg.Go(func() {
			r, err := http.Get(s.URL + path)
			if err != nil {
				t.Error(err)
				statuses <- 0
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			statuses <- r.StatusCode
		})
	}
	f.end(f.add(stdout, logpb.StreamType_TEXT), daybookv1.StreamState_COMPLETE, "")
	for range 3 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}

// Raw bytes that cannot be finished end so that a client can tell.
func TestRawIsCutOff(t *testing.T) {
	f := newFake()
	f.print(f.add(stdout, logpb.StreamType_TEXT), 0, "one\n")
	s := serve(t, f)
	for _, address := range []string{"/logs/local/" + stdout + "?format=raw&follow=1", "/api/v1/follow/local/" + stdout + "?format=jsonl"} {
		res, err := http.Get(s.URL + address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body := bufio.NewReader(res.Body)
		if _, err := body.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		f.cutAll()
		if rest, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s ended with %q, %v", address, rest, err)
		}
		if len(res.Trailer[endHeader]) > 0 {
			t.Errorf("%s says that the stream has ended: %v", address, res.Trailer)
		}
	}
}
