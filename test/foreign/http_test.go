//go:build unix

package foreign

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// token8 returns a token for a key and claims, made by hand.
func token8(t testing.TB, key []byte, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// scrape returns the sums of all metrics by name.
func scrape(t testing.TB, base string) map[string]float64 {
	t.Helper()
	resp, err := http.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	out := make(map[string]float64)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 {
			series, value = strings.TrimSpace(line)[:i], strings.TrimSpace(line)[i+1:]
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, err)
		}
		name, _, _ := strings.Cut(series, "{")
		out[name] += n
		out[series] = n
	}
	return out
}

// answer is an HTTP response that was read to its end.
type answer struct {
	*http.Response
	body string
}

// do makes an HTTP request as curl does, with headers given as name, value, ….
func do(t testing.TB, method, target string, body io.Reader, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
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
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(content)}
}

// say writes a request as it is, and returns the answer's status, zero if there was none.
func say(t testing.TB, addr, request string) int {
	t.Helper()
	conn := connect(t, addr, request)
	defer conn.Close()
	line, _ := bufio.NewReader(conn).ReadString('\n')
	var minor, code int
	if _, err := fmt.Sscanf(line, "HTTP/1.%d %d", &minor, &code); err != nil {
		return 0
	}
	return code
}

// Journals by HTTP are where the clients of other brokers look for them, and below /journals/, whatever their names.
func TestHTTP(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"), spec("logs/journal"))
	for i, test := range []struct{ path, journal string }{
		{"/acme/journal", "acme/journal"},
		{"/journals/acme/journal", "acme/journal"},
		{"/journals/logs/journal", "logs/journal"},
	} {
		at := server.URL + test.path
		_, before := c.readAll(object{"journal": test.journal, "offset": -1})
		head := before[0].num("write_head")
		put := do(t, http.MethodPut, at, strings.NewReader("by HTTP\n"))
		if put.StatusCode != http.StatusNoContent || put.Header.Get("X-Commit-Begin") != fmt.Sprint(head) || put.Header.Get("X-Commit-End") != fmt.Sprint(head+8) ||
			put.Header.Get("X-Write-Head") != fmt.Sprint(head+8) || len(put.Header.Get("X-Commit-Sha1-Sum")) != 40 {
			t.Fatalf("PUT %s: %s %v %s", at, put.Status, put.Header, put.body)
		}
		c.mustAppend(test.journal, "by gRPC\n")
		get := do(t, http.MethodGet, at+"?offset="+fmt.Sprint(head+3), nil)
		if get.StatusCode != http.StatusPartialContent || get.body != "HTTP\nby gRPC\n" || get.Trailer.Get("X-Close-Error") != "OFFSET_NOT_YET_AVAILABLE" ||
			get.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-9223372036854775807/9223372036854775807", head+3) ||
			!strings.HasSuffix(get.Header.Get("Location"), test.path) || !strings.Contains(get.Header.Get("X-Route-Token"), "members:") ||
			!strings.HasSuffix(get.Header.Get("X-Fragment-Name"), ".raw") {
			t.Errorf("GET %s: %s %v %v %q", at, get.Status, get.Header, get.Trailer, get.body)
		}
		if ranged := do(t, http.MethodGet, at, nil, "Range", "bytes=-5"); ranged.body != "gRPC\n" {
			t.Errorf("the last bytes: %q", ranged.body)
		}
		if got := do(t, http.MethodHead, at+"?offset=1", nil); got.StatusCode != http.StatusPartialContent || got.Header.Get("X-Write-Head") != fmt.Sprint(head+16) {
			t.Errorf("HEAD %s: %s %v", at, got.Status, got.Header)
		}
		// A tail comes as it is written.
		tail := bufio.NewReader(connect(t, server.Addr, "GET "+test.path+"?offset=-1&block=true HTTP/1.1\r\nHost: "+server.Addr+"\r\n\r\n"))
		c.blocked(i + 1)
		for i, want := range []string{"first\n", "second\n"} {
			c.mustAppend(test.journal, want)
			if i == 0 {
				resp, err := http.ReadResponse(tail, nil)
				if err != nil || resp.StatusCode != http.StatusPartialContent {
					t.Fatalf("tail %s: %v, %v", at, resp, err)
				}
				tail = bufio.NewReader(resp.Body)
			}
			if got, err := tail.ReadString('\n'); err != nil || got != want {
				t.Errorf("tail %s: %q, %v", at, got, err)
			}
		}
	}
	for path, want := range map[string]int{
		"/acme/none": http.StatusNotFound, "/journals/acme/none": http.StatusNotFound,
		"/acme/journal?offset=1000": http.StatusRequestedRangeNotSatisfiable, "/acme/journal?other=1": http.StatusBadRequest,
		"/": http.StatusOK, "/healthz": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusOK,
		"/debug/ready": http.StatusOK, "/debug/metrics": http.StatusOK, "/debug/vars": http.StatusOK, "/debug/pprof/": http.StatusOK,
		"/debug/pprof/goroutine": http.StatusOK, "/debug/none": http.StatusNotFound, "/v1/none": http.StatusNotFound,
	} {
		if got := do(t, http.MethodGet, server.URL+path, nil); got.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", path, got.Status, want)
		}
	}
	// People who go astray get a page.
	if got := do(t, http.MethodGet, server.URL+"/nowhere", nil, "Accept", "text/html,*/*"); got.StatusCode != http.StatusNotFound || !strings.Contains(got.body, "<html") {
		t.Errorf("a page: %s, %.100s", got.Status, got.body)
	}
	list := do(t, http.MethodPost, server.URL+"/v1/journals/list", strings.NewReader(`{"selector":{"include":{"labels":[{"name":"name","value":"acme/","prefix":true}]}}}`))
	var line struct {
		Result struct {
			Status   string
			Journals []struct{ Spec struct{ Name string } }
		}
	}
	if err := json.Unmarshal([]byte(list.body), &line); err != nil || line.Result.Status != "OK" || len(line.Result.Journals) != 1 || line.Result.Journals[0].Spec.Name != "acme/journal" {
		t.Errorf("list: %s, %v", list.body, err)
	}
	read := do(t, http.MethodPost, server.URL+"/v1/journals/read", strings.NewReader(`{"journal":"acme/journal","offset":3,"endOffset":"7"}`))
	if lines := strings.Split(strings.TrimSpace(read.body), "\n"); len(lines) != 2 || !strings.Contains(lines[1], "SFRUUA==") {
		t.Errorf("read: %s", read.body)
	}
	if old := say(t, server.Addr, "GET /acme/journal?offset=3 HTTP/1.0\r\nHost: localhost\r\n\r\n"); old != http.StatusPartialContent {
		t.Errorf("HTTP/1.0: %d", old)
	}
}

// A page of another origin cannot have the user's browser append, nor read; and no name that resolves to us makes it ours.
func TestPagesOfOthers(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"))
	evil := []string{"Origin", "http://evil.example"}
	for _, test := range []struct {
		what, method, path string
		headers            []string
		want               int
	}{
		{"PUT, by origin", http.MethodPut, "/acme/journal", evil, http.StatusForbidden},
		{"PUT, by site", http.MethodPut, "/journals/acme/journal", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"PUT, of another port", http.MethodPut, "/journals/acme/journal", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"PUT, of no origin", http.MethodPut, "/journals/acme/journal", []string{"Origin", "null"}, http.StatusForbidden},
		{"POST, a simple request", http.MethodPost, "/v1/journals/read", append(evil, "Content-Type", "text/plain"), http.StatusForbidden},
		{"POST, a form", http.MethodPost, "/acme/journal", append(evil, "Content-Type", "application/x-www-form-urlencoded"), http.StatusForbidden},
		{"PUT, our own", http.MethodPut, "/acme/journal", []string{"Origin", server.URL, "Sec-Fetch-Site", "same-origin"}, http.StatusNoContent},
		{"PUT, no browser", http.MethodPut, "/acme/journal", nil, http.StatusNoContent},
		{"PUT, a name that resolves to us", http.MethodPut, "/acme/journal", []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
		{"GET, a name that resolves to us", http.MethodGet, "/acme/journal", []string{"Host", "evil.example:8080"}, http.StatusMisdirectedRequest},
		{"profiles, a name that resolves to us", http.MethodGet, "/debug/pprof/", []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(test.headers); i += 2 {
			req.Header.Set(test.headers[i], test.headers[i+1])
		}
		if host := req.Header.Get("Host"); host != "" {
			req.Host = host
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s, %v", test.what, resp.Status, resp.Header)
		}
	}
	// What a browser asks before it sends anything that is not simple.
	if pre := do(t, http.MethodOptions, server.URL+"/acme/journal", nil, "Origin", "http://evil.example", "Access-Control-Request-Method", "PUT"); pre.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight: %v", pre.Header)
	}
	// What a journal holds is no page of ours.
	c.mustAppend("acme/journal", "<script>")
	if got := do(t, http.MethodGet, server.URL+"/acme/journal", nil); got.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(got.Header.Get("Content-Security-Policy"), "sandbox") || got.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("content comes as %v", got.Header)
	}
	if got, _ := c.readAll(object{"journal": "acme/journal"}); got != "xx<script>" {
		t.Errorf("the journal has %q", got)
	}
}

// Paths that mean something else to a file system, to a browser or to a multiplexer are refused, as they are: no redirect makes
// another path of them.
func TestHostilePaths(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"))
	for _, method := range []string{"GET", "PUT", "HEAD"} {
		for path, want := range map[string]int{
			"/acme/../journal":                          http.StatusBadRequest,
			"/journals/acme/../acme/journal":            http.StatusBadRequest,
			"/journals/../acme/journal":                 http.StatusBadRequest,
			"/journals/../../../../etc/passwd":          http.StatusBadRequest,
			"/journals/%2e%2e/%2e%2e/etc/passwd":        http.StatusBadRequest,
			"/journals/acme%2f..%2f..%2fjournal":        http.StatusBadRequest,
			"/..%2f..%2fetc/passwd":                     http.StatusBadRequest,
			"/journals/acme//journal":                   http.StatusBadRequest,
			"/acme//journal":                            http.StatusBadRequest,
			"/journals/acme/journal/":                   http.StatusBadRequest,
			"/journals/./acme/journal":                  http.StatusBadRequest,
			"/journals/acme/journal%00":                 http.StatusBadRequest,
			"/journals/acme/journal%0d%0aX:%20y":        http.StatusBadRequest,
			"/journals/acme/journal;a;b":                http.StatusBadRequest,
			"/journals/acme/journal;../x":               http.StatusBadRequest,
			"/journals/acme/journal;":                   http.StatusBadRequest,
			"/journals/acme/journal?a=1;b=2":            http.StatusBadRequest,
			"/journals/acme/journal?%zz=1":              http.StatusBadRequest,
			"/journals/%zz":                             http.StatusBadRequest,
			"/journals/acme%5c..%5cjournal":             http.StatusBadRequest,
			"/journals/":                                http.StatusBadRequest,
			"/journals/abc":                             http.StatusBadRequest,
			"/journals/" + strings.Repeat("x", 513):     http.StatusBadRequest,
			"/journals/" + strings.Repeat("x/", 40000):  http.StatusRequestHeaderFieldsTooLarge,
			"http://evil.example/journals/acme/journal": http.StatusMisdirectedRequest,
		} {
			request := method + " " + path + " HTTP/1.1\r\nHost: " + server.Addr + "\r\nContent-Length: 1\r\n\r\nx"
			if got := say(t, server.Addr, request); got != want {
				t.Errorf("%s %.80s: %d, want %d", method, path, got, want)
			}
		}
	}
	// An encoded percent sign is one: the name is odd, and there is no such journal.
	if got := say(t, server.Addr, "GET /journals/acme/%252e%252e/journal HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != http.StatusNotFound {
		t.Errorf("encoded twice: %d", got)
	}
	for what, request := range map[string]string{
		"no host":             "GET /acme/journal HTTP/1.1\r\n\r\n",
		"two hosts":           "GET /acme/journal HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
		"a bomb of headers":   "GET /acme/journal HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A: bcdefghijklmnopqrstuvwxyz\r\n", 20_000) + "\r\n",
		"one huge header":     "GET /acme/journal HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("b", 1<<20) + "\r\n\r\n",
		"another method":      "DELETE /acme/journal HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a tunnel":            "CONNECT acme/journal HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"smuggled":            "PUT /acme/journal HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a negative length":   "PUT /acme/journal HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
		"a length of a novel": "PUT /acme/journal HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"no HTTP at all":      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a greeting in TLS\r\n\r\n",
	} {
		if got := say(t, server.Addr, request); got != 0 && got < 400 {
			t.Errorf("%s: %d", what, got)
		}
	}
	if got := c.mustAppend("acme/journal").sub("commit").num("end"); got != 0 {
		t.Errorf("something was appended: %d", got)
	}
}
