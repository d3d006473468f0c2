package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

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
		{path: "/static/nothing.js", status: 404, contentType: "text/plain; charset=utf-8"},
		{path: "/api/v1/nothing", status: 404, contentType: "application/json"},
		{path: "/api/v1/version", status: 200, contentType: "application/json"},
		{path: "/api/v1/projects", status: 200, contentType: "application/json"},
		{path: "/api/v1/prefixes", status: 400, contentType: "application/json"},
		{path: "/api/v1/prefixes?project=local&page_size=x", status: 400, contentType: "application/json"},
		{path: "/api/v1/prefixes?project=broken", status: 500, contentType: "application/json"},
		{path: "/api/v1/streams?project=local", status: 200, contentType: "application/json"},
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
	if strings.Contains(shell, "{{version}}") {
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
		got := []string{body, res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition"), res.Header.Get(stateHeader), res.Header.Get(missingHeader), res.Trailer.Get(endHeader)}
		want := []string{test.body, test.contentType, test.disposition, test.state, test.missing, test.state}
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

func TestEntries(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 1500*time.Millisecond, "one\r\n<two>\xff\u2028\n")
	f.print(stream, 0, "lost\n")
	f.print(stream, 2*time.Second, "half")
	f.lose(stream, 1, 1)
	datagram := f.add("p/+/dg", logpb.StreamType_DATAGRAM)
	f.append(datagram, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("a"), Partial: &logpb.Datagram_Partial{Size: 5}}}
	})
	f.append(datagram, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("bc")}}
	})
	f.end(datagram, daybookv1.StreamState_INCOMPLETE, "gone")
	binary := f.add("p/+/bin", logpb.StreamType_BINARY)
	f.append(binary, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte{0, 255}}}
	})
	s := serve(t, f)
	const (
		first  = `{"i":0,"t":1500,"n":1,"l":[{"v":"one","d":"\r\n"},{"v":"<two>` + `\ufffd\u2028` + `","d":"\n"}]}`
		second = `{"i":0,"t":1500,"n":2,"l":[{"v":"<two>` + `\ufffd\u2028` + `","d":"\n"}]}`
		third  = `{"i":2,"t":2000,"n":4,"l":[{"v":"half","d":""}]}`
	)
	gone := []*daybookv1.IndexRange{{First: 1, Last: 1}}
	open := `"end":` + jsonOf(t, &daybookv1.FollowResponse_End{State: daybookv1.StreamState_OPEN, TerminalIndex: -1, Missing: gone}) + `,`
	for path, want := range map[string]string{
		stdout:                     `{"first":"0","next":"3",` + open + `"m":[[1,1]],"e":[` + first + `,` + third + `]}`,
		stdout + "?index=1":        `{"first":"1","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?index=3":        `{"first":"3","next":"3",` + open + `"e":[]}`,
		stdout + "?index=0.2":      `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?line=2":         `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?line=4":         `{"first":"1.4","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?line=400":       `{"first":"1.4","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?tail=2":         `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?until=1":        `{"first":"0","next":"0","e":[]}`,
		stdout + "?until=2":        `{"first":"0","next":"0.2","e":[{"i":0,"t":1500,"n":1,"l":[{"v":"one","d":"\r\n"}]}]}`,
		stdout + "?until=4":        `{"first":"0","next":"1","e":[` + first + `]}`,
		stdout + "?line=2&until=3": `{"first":"0.2","next":"1","e":[` + second + `]}`,
		"p/+/dg": `{"first":"0","next":"2","end":` +
			jsonOf(t, &daybookv1.FollowResponse_End{TerminalIndex: 1, State: daybookv1.StreamState_INCOMPLETE, Reason: "gone"}) + `,"e":[{"i":0,"t":0,"b":"YQ==","g":{"n":0,"i":0,"s":5,"last":false}},{"i":1,"t":0,"b":"YmM=","g":{"n":0,"i":0,"s":2,"last":true}}]}`,
		"p/+/bin?tail=5": `{"first":"0","next":"1","end":` +
			jsonOf(t, &daybookv1.FollowResponse_End{TerminalIndex: -1, State: daybookv1.StreamState_OPEN}) + `,"e":[{"i":0,"t":0,"b":"AP8="}]}`,
	} {
		if _, body := get(t, s.URL+"/api/v1/entries/local/"+path); body != want {
			t.Errorf("%s:\n got %s\nwant %s", path, body, want)
		}
	}
}

// jsonOf is how a message appears within an answer.
func jsonOf(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := messageJSON(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type page struct {
	First, Next string
	End         json.RawMessage
	E           []struct {
		I, N int64
		L    []struct{ V, D string }
	}
}

func loadPage(t *testing.T, s *httptest.Server, query string) (p page) {
	t.Helper()
	_, body := get(t, s.URL+"/api/v1/entries/local/"+stdout+"?"+query)
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}

// A long stream is read in pages that add up to the whole, and its lines are found in few steps.
func TestEntriesLong(t *testing.T) {
	t.Parallel()
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	for line, i := 0, 0; line < 40_000; i++ {
		var text strings.Builder
		for range 1 + i*i%70 { // uneven on purpose
			line++
			fmt.Fprintf(&text, "line %d %s\n", line, strings.Repeat("x", i%50))
		}
		f.print(stream, 0, text.String())
	}
	f.print(stream, 0, strings.Repeat("\n", 20_000)) // one entry of several pages
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	s := serve(t, f)
	lines, next, pages := int64(0), "0", 0
	for {
		p := loadPage(t, s, "index="+next)
		if p.First != next {
			t.Fatalf("page begins at %s, want %s", p.First, next)
		}
		for _, e := range p.E {
			if e.N != lines+1 {
				t.Fatalf("entry %d with line %d, want line %d", e.I, e.N, lines+1)
			}
			lines += int64(len(e.L))
		}
		pages++
		if next = p.Next; p.End != nil {
			break
		}
	}
	if lines != stream.meta.Lines || pages < 10 {
		t.Errorf("%d lines in %d pages, want %d", lines, pages, stream.meta.Lines)
	}
	for _, line := range []int64{1, 2, 37, 20_000, 39_999, 40_000, stream.meta.Lines - 10_000} {
		before := f.follows
		if e := loadPage(t, s, fmt.Sprintf("line=%d", line)).E[0]; e.N != line {
			t.Errorf("line %d was looked for and %d found", line, e.N)
		}
		if steps := f.follows - before; steps > 24 {
			t.Errorf("line %d took %d steps", line, steps)
		}
	}
	for _, tail := range []int64{1000, 21_000} {
		if p := loadPage(t, s, fmt.Sprintf("tail=%d", tail)); p.E[0].N != stream.meta.Lines-tail+1 {
			t.Errorf("tail %d begins at line %d of %d", tail, p.E[0].N, stream.meta.Lines)
		}
	}
}

// The fragments of one long line are found by its number, and the end of it is not sent whole.
func TestLongLine(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "first\n")
	for range 64 {
		f.print(stream, 0, strings.Repeat("y", 100_000))
	}
	f.print(stream, 0, "\nlast\n")
	s := serve(t, f)
	for query, want := range map[string]int64{"line=2": 1, "line=3": 65, "line=1": 0, "tail=10": 56} {
		if got := loadPage(t, s, query).E[0].I; got != want {
			t.Errorf("%s begins at %d, want %d", query, got, want)
		}
	}
}

// event is one server-sent event, as the standard says to parse it.
type event struct{ id, name, data string }

type events struct {
	t *testing.T
	r *bufio.Reader
	// comments counts those since the last event.
	comments int
}

func (e *events) next() event {
	e.t.Helper()
	var ev event
	for {
		line, err := e.r.ReadString('\n')
		if err != nil {
			e.t.Fatalf("read event: %v", err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			if ev.data != "" {
				return ev
			}
			ev = event{}
		case field == "":
			e.comments++
			if e.comments > 2 {
				return event{name: "comment"}
			}
		case field == "id":
			ev.id = value
		case field == "event":
			ev.name = value
		case field == "data":
			ev.data = value
		}
	}
}

func followEvents(t *testing.T, url string, headers ...string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		res.Body.Close()
	})
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("status %d, content type %q", res.StatusCode, got)
	}
	return &events{t: t, r: bufio.NewReader(res.Body)}
}

func (e *events) expect(want ...event) {
	e.t.Helper()
	for _, w := range want {
		got := e.next()
		if w.name == "state" && strings.Contains(got.data, w.data) {
			w.data = got.data
		}
		if got != w {
			e.t.Fatalf("got %+v\nwant %+v", got, w)
		}
	}
}

func TestFollow(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "one\ntwo\n")
	s := serve(t, f)
	url := s.URL + "/api/v1/follow/local/" + stdout
	e := followEvents(t, url)
	e.expect(
		event{name: "state", data: `"state":"OPEN"`},
		event{id: "1", data: `{"e":[{"i":0,"t":0,"n":1,"l":[{"v":"one","d":"\n"},{"v":"two","d":"\n"}]}]}`},
	)
	f.print(stream, 0, "three\n")
	e.expect(event{id: "2", data: `{"e":[{"i":1,"t":0,"n":3,"l":[{"v":"three","d":"\n"}]}]}`})
	f.cutAll()
	e.expect(event{name: "fault", data: `{"code":"transient","message":"the connection was cut"}`})

	// The browser comes again with the address it had and the last id it saw.
	e = followEvents(t, url+"?index=0", "Last-Event-ID", "2")
	e.expect(event{name: "state", data: `"state":"OPEN"`})
	f.print(stream, 0, "four\n")
	e.expect(event{id: "3", data: `{"e":[{"i":2,"t":0,"n":4,"l":[{"v":"four","d":"\n"}]}]}`})
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	e.expect(
		event{name: "state", data: `"state":"COMPLETE"`},
		event{name: "end", data: jsonOf(t, &daybookv1.FollowResponse_End{State: daybookv1.StreamState_COMPLETE, TerminalIndex: 2})},
	)
}

func TestFollowMissing(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	for range 6 {
		f.print(stream, 0, "x\n")
	}
	f.lose(stream, 1, 3)
	f.lose(stream, 5, 5)
	f.end(stream, daybookv1.StreamState_INCOMPLETE, "the machine died")
	e := followEvents(t, serve(t, f).URL+"/api/v1/follow/local/"+stdout+"?index=2")
	e.expect(
		event{name: "state", data: `"state":"INCOMPLETE"`},
		event{id: "5", data: `{"m":[[2,3]],"e":[{"i":4,"t":0,"n":5,"l":[{"v":"x","d":"\n"}]}]}`},
		event{id: "6", data: `{"m":[[5,5]],"e":[]}`},
		event{name: "end", data: jsonOf(t, &daybookv1.FollowResponse_End{
			State: daybookv1.StreamState_INCOMPLETE, TerminalIndex: 5, Reason: "the machine died",
			Missing: []*daybookv1.IndexRange{{First: 1, Last: 3}, {First: 5, Last: 5}},
		})},
	)
}

// A large backlog comes in events of limited size, all of it, in order.
func TestFollowBatches(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	line := strings.Repeat("z", 999) + "\n"
	for range 300 {
		f.print(stream, 0, strings.Repeat(line, 10))
	}
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	e := followEvents(t, serve(t, f).URL+"/api/v1/follow/local/"+stdout)
	next, count := int64(0), 0
	for {
		ev := e.next()
		if ev.name == "end" {
			break
		}
		if ev.name != "" {
			continue
		}
		if len(ev.data) > eventLimits.bytes+20_000 {
			t.Errorf("event of %d bytes", len(ev.data))
		}
		var data struct{ E []struct{ I int64 } }
		if err := json.Unmarshal([]byte(ev.data), &data); err != nil {
			t.Fatal(err)
		}
		for _, entry := range data.E {
			if entry.I != next {
				t.Fatalf("entry %d, want %d", entry.I, next)
			}
			next++
		}
		if ev.id != fmt.Sprint(next) {
			t.Fatalf("id %s after entry %d", ev.id, next-1)
		}
		count++
	}
	if next != 300 || count < 10 {
		t.Errorf("%d entries in %d events", next, count)
	}
}

// An entry of many lines is split between events, and a client may resume within it.
func TestFollowSplitEntry(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, strings.Repeat("\n", eventLimits.lines)+"a\nb")
	s := serve(t, f)
	url := s.URL + "/api/v1/follow/local/" + stdout
	e := followEvents(t, url)
	e.expect(event{name: "state", data: `"state":"OPEN"`})
	if got := e.next(); got.id != "0.5001" {
		t.Fatalf("first id %s", got.id)
	}
	rest := event{id: "1", data: `{"e":[{"i":0,"t":0,"n":5001,"l":[{"v":"a","d":"\n"},{"v":"b","d":""}]}]}`}
	e.expect(rest)
	e = followEvents(t, url, "Last-Event-ID", "0.5001")
	e.expect(event{name: "state", data: `"state":"OPEN"`}, rest)
}

// A stream that does not exist yet is waited for on demand, with heartbeats.
func TestFollowWait(t *testing.T) {
	f := newFake()
	s := serveOptions(t, f, func(h *handler) { h.heartbeat = time.Millisecond })
	e := followEvents(t, s.URL+"/api/v1/follow/local/"+stdout+"?wait=1&tail=10")
	if got := e.next(); got.name != "comment" {
		t.Fatalf("got %+v before there is a stream", got)
	}
	f.print(f.add(stdout, logpb.StreamType_TEXT), 0, "one\n")
	for {
		e.comments = 0
		if ev := e.next(); ev.id == "1" {
			return
		} else if ev.name != "comment" && ev.name != "state" {
			t.Fatalf("got %+v", ev)
		}
	}
}

// FuzzPaths holds that no path makes the handler fail in a way of its own.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{"/", "/logs/local/a/+/b?format=raw", "/api/v1/entries/local/a/+/b?line=9", "/v/?s=%2F", "/logs/%2B/+/+", "/static/..", "//x"} {
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
