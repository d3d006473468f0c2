package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// gateway serves a cluster's gateway for the time of a test.
func (c *cluster) gateway(config broker.GatewayConfig) *httptest.Server {
	s := httptest.NewServer(c.broker.Gateway(config))
	c.t.Cleanup(s.Close)
	return s
}

type exchange struct {
	*http.Response
	body string
}

// do makes a request with headers given as name, value, ….
func do(t *testing.T, method, url string, body io.Reader, headers ...string) exchange {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return exchange{resp, string(content)}
}

func (e exchange) expect(t *testing.T, code int, body string) {
	t.Helper()
	if e.StatusCode != code || strings.TrimSuffix(e.body, "\n") != body {
		t.Errorf("%s %s: %d, %q; want %d, %q", e.Request.Method, e.Request.URL, e.StatusCode, e.body, code, body)
	}
}

func (e exchange) header(t *testing.T, name, want string) {
	t.Helper()
	if got := e.Header.Get(name); got != want {
		t.Errorf("%s %s: %s is %q, want %q", e.Request.Method, e.Request.URL, name, got, want)
	}
}

func TestGateway(t *testing.T) {
	c := one(t)
	base := c.gateway(broker.GatewayConfig{}).URL
	url := base + "/journals/test/journal"

	put := do(t, http.MethodPut, url, strings.NewReader("hello, world\n"))
	put.expect(t, http.StatusNoContent, "")
	put.header(t, "X-Commit-Begin", "0")
	put.header(t, "X-Commit-End", "13")
	put.header(t, "X-Write-Head", "13")
	put.header(t, "X-Commit-SHA1-Sum", "cd50d19784897085a8d0e3e413f8612b097c03f1")
	if !strings.HasSuffix(put.Header.Get("Location"), "/journals/test/journal") || !strings.Contains(put.Header.Get("X-Route-Token"), `suffix:"test"`) {
		t.Errorf("headers %v", put.Header)
	}
	do(t, http.MethodPut, url, strings.NewReader("again\n")).expect(t, http.StatusNoContent, "")
	do(t, http.MethodPut, url, nil).expect(t, http.StatusNoContent, "")

	get := do(t, http.MethodGet, url, nil)
	get.expect(t, http.StatusPartialContent, "hello, world\nagain")
	get.header(t, "Content-Range", "bytes 0-9223372036854775807/9223372036854775807")
	get.header(t, "X-Write-Head", "19")
	get.header(t, "X-Fragment-Name", "0000000000000000-000000000000000d-cd50d19784897085a8d0e3e413f8612b097c03f1.sz")
	if reason := get.Trailer.Get("X-Close-Error"); reason != "OFFSET_NOT_YET_AVAILABLE" {
		t.Errorf("the trailer is %q", reason)
	}
	for what, test := range map[string]struct {
		query, requested, content, contentRange string
	}{
		"offset":         {"?offset=7", "", "world\nagain", "bytes 7-9223372036854775807/9223372036854775807"},
		"not blocking":   {"?offset=7&block=false", "", "world\nagain", "bytes 7-9223372036854775807/9223372036854775807"},
		"range":          {"", "bytes=7-14", "world\nag", "bytes 7-14/9223372036854775807"},
		"range, block":   {"?block=true", "bytes=7-14", "world\nag", "bytes 7-14/9223372036854775807"},
		"open range":     {"", "bytes=13-", "again", "bytes 13-9223372036854775807/9223372036854775807"},
		"what we answer": {"", "bytes=13-9223372036854775807", "again", "bytes 13-9223372036854775807/9223372036854775807"},
		"last bytes":     {"", "bytes=-6", "again", "bytes 13-9223372036854775807/9223372036854775807"},
		"many last ones": {"", "bytes=-1000", "hello, world\nagain", "bytes 0-9223372036854775807/9223372036854775807"},
	} {
		var headers []string
		if test.requested != "" {
			headers = []string{"Range", test.requested}
		}
		resp := do(t, http.MethodGet, url+test.query, nil, headers...)
		if resp.expect(t, http.StatusPartialContent, test.content); t.Failed() {
			t.Fatal(what)
		}
		resp.header(t, "Content-Range", test.contentRange)
	}
	head := do(t, http.MethodHead, url+"?offset=3", nil)
	head.expect(t, http.StatusPartialContent, "")
	head.header(t, "Content-Range", "bytes 3-9223372036854775807/9223372036854775807")

	do(t, http.MethodGet, url+"?offset=19", nil).expect(t, http.StatusRequestedRangeNotSatisfiable, "OFFSET_NOT_YET_AVAILABLE")
	do(t, http.MethodGet, base+"/journals/test/none", nil).expect(t, http.StatusNotFound, "JOURNAL_NOT_FOUND")
	do(t, http.MethodPut, base+"/journals/test/none", strings.NewReader("x")).expect(t, http.StatusInternalServerError, "JOURNAL_NOT_FOUND")
	do(t, http.MethodGet, base+"/debug/ready", nil).expect(t, http.StatusOK, "ready")
}

// What makes no sense is refused before anything is done.
func TestGatewayRefusals(t *testing.T) {
	c := one(t)
	base := c.gateway(broker.GatewayConfig{}).URL
	for _, test := range []struct {
		method, path, requested string
		code                    int
	}{
		{http.MethodGet, "/journals/test/journal?ofset=1", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?offset=x", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?offset=-2", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?offset=9223372036854775808", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?offset=1&offset=2", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?block=perhaps", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?a=1;b=2", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal?offset=1", "bytes=1-", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "bytes=3-2", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "bytes=1-2,4-5", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "bytes=-0", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "bytes=-", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "bytes=9223372036854775808-", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/journal", "lines=1-2", http.StatusBadRequest},
		{http.MethodPut, "/journals/test/journal?offset=1", "", http.StatusBadRequest},
		{http.MethodPut, "/journals/test/journal?a=1;b=2", "", http.StatusBadRequest},
		{http.MethodPut, "/journals/test/journal?%zz", "", http.StatusBadRequest},
		{http.MethodPost, "/journals/test/journal", "", http.StatusBadRequest},
		{http.MethodDelete, "/journals/test/journal", "", http.StatusBadRequest},
		{http.MethodOptions, "/journals/test/journal", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/../journal", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test/../../journal", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test//journal", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/test%2F..%2F..%2Fjournal", "", http.StatusBadRequest},
		{http.MethodPut, "/journals/..%2F..%2Fetc/passwd", "", http.StatusBadRequest},
		{http.MethodPut, "/journals/test/journal;a;b", "", http.StatusBadRequest},
		{http.MethodGet, "/journals/", "", http.StatusBadRequest},
		{http.MethodGet, "/test/journal", "", http.StatusNotFound},
		{http.MethodGet, "/v1/other", "", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", "", http.StatusNotFound},
	} {
		var headers []string
		if test.requested != "" {
			headers = []string{"Range", test.requested}
		}
		if resp := do(t, test.method, base+test.path, nil, headers...); resp.StatusCode != test.code {
			t.Errorf("%s %s, %s: %d, %q", test.method, test.path, test.requested, resp.StatusCode, resp.body)
		}
	}
	if state, err := c.log.Load(t.Context(), "test/journal"); err != nil || state.Head != 0 {
		t.Errorf("something was appended: %v, %v", state, err)
	}
}

func TestGatewayCompatiblePaths(t *testing.T) {
	c := one(t)
	base := c.gateway(broker.GatewayConfig{Prefix: "/"}).URL
	do(t, http.MethodPut, base+"/test/journal", strings.NewReader("x")).expect(t, http.StatusNoContent, "")
	do(t, http.MethodGet, base+"/test/journal;meta=1", nil).expect(t, http.StatusPartialContent, "x")
}

// A tail by HTTP gets what is appended while it waits, as it comes.
func TestGatewayTail(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "before")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.gateway(broker.GatewayConfig{}).URL+"/journals/test/journal?offset=2&block=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	buf := make([]byte, 100)
	for _, want := range []string{"fore", "one", "two", "three"} {
		if want != "fore" {
			c.mustAppend("test/journal", want)
		}
		if n, err := io.ReadFull(resp.Body, buf[:len(want)]); err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v; want %q", buf[:n], err, want)
		}
	}
	if err := c.broker.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if got := resp.Trailer.Get("X-Close-Error"); got != "the broker has ended the read" {
		t.Errorf("the trailer is %q", got)
	}
}

// A body that was not read to its end is not committed, whatever was cut off and how.
func TestBrokenUploads(t *testing.T) {
	c := one(t)
	server := c.gateway(broker.GatewayConfig{})
	const path = "PUT /journals/test/journal HTTP/1.1\r\nHost: x\r\n"
	large := string(make([]byte, 3<<20))
	for what, request := range map[string]string{
		"cut length":         path + "Content-Length: 100\r\n\r\nabc",
		"cut large":          path + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(large)+1, large),
		"cut chunk":          path + "Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
		"no last chunk":      path + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"malformed chunk":    path + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
		"no length":          "PUT /journals/test/journal HTTP/1.0\r\nHost: x\r\n\r\nabc",
		"two lengths":        path + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		"length and chunked": path + "Content-Length: 300\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			if resp.StatusCode < 400 {
				t.Errorf("%s: %s", what, resp.Status)
			}
			_ = resp.Body.Close()
		}
		_ = conn.Close()
	}
	if resp := c.mustAppend("test/journal"); resp.GetCommit().GetEnd() != 0 {
		t.Errorf("something was committed: %v", resp)
	}
}

// An upload that stalls is cut off, and its connection does not stay.
func TestStalledUpload(t *testing.T) {
	c := startWith(t, t.TempDir(), disklog.Options{}, broker.Config{MinAppendRate: 1 << 20})
	t.Cleanup(c.stop)
	c.create("test/journal")
	conn, err := net.Dial("tcp", c.gateway(broker.GatewayConfig{}).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "PUT /journals/test/journal HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(body), "1048576 bytes a second") {
		t.Errorf("%s, %q, %v", resp.Status, body, err)
	}
}

func TestLargeUpload(t *testing.T) {
	c := one(t)
	url := c.gateway(broker.GatewayConfig{}).URL + "/journals/test/journal"
	content := make([]byte, 20<<20+77)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	do(t, http.MethodPut, url, bytes.NewReader(content)).expect(t, http.StatusNoContent, "")
	do(t, http.MethodPut, url, io.MultiReader(bytes.NewReader(content[:200_000]))).expect(t, http.StatusNoContent, "")
	if got := do(t, http.MethodGet, url, nil).body; got != string(content)+string(content[:200_000]) {
		t.Error("content differs")
	}
}

// post makes a request to the JSON gateway, and returns the lines of the answer.
func post(t *testing.T, url, body string, headers ...string) (exchange, []map[string]any) {
	t.Helper()
	e := do(t, http.MethodPost, url, strings.NewReader(body), headers...)
	var lines []map[string]any
	for d := json.NewDecoder(strings.NewReader(e.body)); d.More(); {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatalf("%v: %s", err, e.body)
		}
		lines = append(lines, line)
	}
	return e, lines
}

func TestJSONGateway(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "content")
	base := c.gateway(broker.GatewayConfig{AllowOrigins: []string{"https://good.example"}}).URL
	e, lines := post(t, base+"/v1/journals/list", `{"selector":{"include":{"labels":[{"name":"name","value":"test/journal"}]}},"unknown":1}`)
	if e.StatusCode != http.StatusOK || len(lines) != 1 || !strings.Contains(e.body, `"test/journal"`) || !strings.Contains(e.body, `"journals"`) {
		t.Errorf("list: %d %s", e.StatusCode, e.body)
	}
	if _, lines = post(t, base+"/v1/journals/list", ""); len(lines) != 1 {
		t.Errorf("list with an empty body: %v", lines)
	}
	e, lines = post(t, base+"/v1/journals/read", `{"journal":"test/journal","offset":"2","endOffset":7}`)
	if len(lines) != 2 || lines[1]["result"].(map[string]any)["content"] != "bnRlbnQ=" || lines[0]["result"].(map[string]any)["writeHead"] != "7" {
		t.Errorf("read: %d %s", e.StatusCode, e.body)
	}
	e, lines = post(t, base+"/v1/journals/read", `{"journal":"test/none"}`)
	if e.StatusCode != http.StatusOK || lines[0]["result"].(map[string]any)["status"] != "JOURNAL_NOT_FOUND" {
		t.Errorf("read of no journal: %d %s", e.StatusCode, e.body)
	}
	e, lines = post(t, base+"/v1/journals/read", `{"journal":"test/journal","offset":-5}`)
	if e.StatusCode != http.StatusBadRequest || lines[0]["error"].(map[string]any)["grpcCode"] != 3.0 {
		t.Errorf("invalid read: %d %s", e.StatusCode, e.body)
	}
	for _, body := range []string{`{`, `{"offset":"x"}`, strings.Repeat(" ", 2<<20)} {
		if e, lines = post(t, base+"/v1/journals/read", body); e.StatusCode != http.StatusBadRequest || lines[0]["code"] != 3.0 {
			t.Errorf("malformed read: %d %s", e.StatusCode, e.body)
		}
	}
	if got := do(t, http.MethodGet, base+"/v1/journals/list", nil); got.StatusCode != http.StatusNotImplemented {
		t.Errorf("GET: %d", got.StatusCode)
	}
	for origin, want := range map[string]string{"https://good.example": "https://good.example", "https://bad.example": ""} {
		e := do(t, http.MethodOptions, base+"/v1/journals/list", nil, "Origin", origin)
		e.expect(t, http.StatusOK, "")
		e.header(t, "Access-Control-Allow-Origin", want)
		code := http.StatusOK
		if want == "" {
			code = http.StatusForbidden
		}
		if e := do(t, http.MethodPost, base+"/v1/journals/read", strings.NewReader(`{"journal":"test/journal"}`), "Origin", origin, "Sec-Fetch-Site", "cross-site"); e.StatusCode != code {
			t.Errorf("a page of %s: %d, want %d", origin, e.StatusCode, code)
		}
	}
}

// A response ends rather than to leave out what was trimmed.
func TestGatewayJump(t *testing.T) {
	c := one(t)
	small := spec("test/small")
	small.Fragment.Length = 1024
	c.apply(&protocol.ApplyRequest_Change{Upsert: small})
	for range 4 {
		c.mustAppend("test/small", string(make([]byte, 2000)))
	}
	if err := c.broker.Trim(t.Context(), "test/small", 4000); err != nil {
		t.Fatal(err)
	}
	url := c.gateway(broker.GatewayConfig{}).URL + "/journals/test/small"
	e := do(t, http.MethodGet, url, nil)
	if e.header(t, "Content-Range", "bytes 4000-9223372036854775807/9223372036854775807"); len(e.body) != 4000 {
		t.Errorf("%d bytes", len(e.body))
	}
}

// A canceled request ends its read.
func TestGatewayClientGone(t *testing.T) {
	c := one(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.gateway(broker.GatewayConfig{}).URL+"/journals/test/journal?block=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("%s", resp.Status)
	}
}
