//go:build unix

package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// authority is one that certifies servers on loopback.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	file string // its own certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// writePEM replaces a file at once.
func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// certify writes a certificate of a server on loopback, and its key.
func (a *authority) certify(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, "server.pem"), filepath.Join(a.dir, "server.key")
	writePEM(t, key, "PRIVATE KEY", keyDER)
	writePEM(t, cert, "CERTIFICATE", der)
	return cert, key
}

func (a *authority) trust() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots}
}

// guarded is a server that demands tokens, with TLS.
type guarded struct {
	ca     *authority
	server *testkit.House // has the data directory
	run    *testkit.Process
	addr   string
	secret []string // that no log may have
}

func serveGuarded(t *testing.T, flags ...string) *guarded {
	t.Helper()
	g := &guarded{ca: newAuthority(t), server: testkit.NewHouse(t)}
	cert, key := g.ca.certify(t, 2)
	args := []string{"--log-level", "debug", "serve", "--listen", "127.0.0.1:0", "--auth", "--tls-cert", cert, "--tls-key", key}
	g.run = g.server.Start(append(args, flags...)...)
	g.addr = g.run.Await(g.run.Stdout, regexp.MustCompile(`serving on https://(\S+)\n`))[1]
	return g
}

// token creates a token with the rights of whoever may read the data directory.
func (g *guarded) token(args ...string) string {
	token := strings.TrimSpace(g.server.Run(append([]string{"token", "create"}, args...)...))
	g.secret = append(g.secret, token)
	return token
}

// user is somebody on another machine, who has a token or none.
func (g *guarded) user(t *testing.T, token string) *testkit.House {
	t.Helper()
	h := testkit.NewHouse(t)
	h.Setenv("DAYBOOK_SERVER", "https://"+g.addr)
	h.Setenv("DAYBOOK_TLS_CA", g.ca.file)
	if token != "" {
		h.Setenv("DAYBOOK_TOKEN", token)
	}
	return h
}

// refused runs a command that must fail, and say why.
func refused(t *testing.T, h *testkit.House, why string, args ...string) {
	t.Helper()
	p := h.Start(args...)
	if code := p.Wait(); code == 0 || !strings.Contains(p.Stderr.String(), why) {
		t.Errorf("daybook %q: exit code %d, want a refusal that says %q\n%s", args, code, why, p.Stderr)
	}
}

// until waits for what comes with time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testkit.Patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", testkit.Patience, what)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t)
	writer := g.user(t, g.token("--name", "writer", "--project", "local", "--role", "writer"))
	reader := g.user(t, g.token("--name", "reader", "--project", "local", "--role", "reader"))
	elsewhere := g.user(t, g.token("--name", "elsewhere", "--project", "other,third", "--role", "reader,writer"))
	admin := g.user(t, g.token("--name", "admin", "--role", "admin"))
	nobody := g.user(t, "")

	// A Butler sends, a reader reads; each can do nothing else.
	content := text(1, 200_000)
	in := writer.Command("stream", "--prefix", "by/butler", "--name", "out")
	in.Stdin = content.Reader()
	if p := testkit.Start(t, in); p.Wait() != 0 {
		t.Fatalf("stream: %s", p.Stderr)
	}
	if p := writer.Start("run", "--prefix", "by/run", "--", "echo", "hello"); p.Wait() != 0 || strings.Contains(p.Stderr.String(), "kept on disk") {
		t.Fatalf("run: %s", p.Stderr)
	}
	for path, want := range map[string]io.Reader{"local/by/butler/+/out": content.Reader(), "local/by/run/+/stdout": strings.NewReader("hello\n")} {
		if err := reader.CompareCat(path, want); err != nil {
			t.Error(err)
		}
	}
	if got := reader.Run("ls", "--paths", "local/by/run"); !strings.Contains(got, "local/by/run/+/stdout") {
		t.Errorf("ls: %s", got)
	}
	cat := []string{"cat", "local/by/run/+/stdout"}
	refused(t, writer, "token:writer", cat...)
	refused(t, elsewhere, "token:elsewhere", cat...)
	refused(t, nobody, "token", cat...)
	refused(t, nobody, "token", "tail", "-f", "local/by/run/+/stdout")
	refused(t, nobody, "token", "ls", "local")
	refused(t, g.user(t, "dbk_wrong"), "not valid", cat...)
	refused(t, reader, "no administrator", "token", "ls")
	refused(t, writer, "no administrator", "token", "create", "--name", "mine", "--role", "admin")
	refused(t, reader, "token:reader", "journals", "list", "-l", "name:prefix=daybook")
	refused(t, writer, "token:writer", "journals", "read", "-l", "name:prefix=daybook")
	// What is refused is kept, and told.
	if p := reader.Start("run", "--prefix", "by/reader", "--", "echo", "kept"); p.Wait() != 0 || !strings.Contains(p.Stderr.String(), "refuses the output") {
		t.Errorf("a reader's run: %s", p.Stderr)
	}
	if got := admin.Run("journals", "list", "-l", "name:prefix=daybook"); !strings.Contains(got, "daybook/ingest/000") {
		t.Errorf("an administrator's journals: %s", got)
	}
	if got := admin.Run("token", "ls"); !strings.Contains(got, "elsewhere") || strings.Contains(got, "dbk_") {
		t.Errorf("the tokens:\n%s", got)
	}

	// A token ends when it is over, or revoked; so does what is under way with it.
	short := g.user(t, g.token("--name", "short", "--project", "local", "--role", "reader", "--expires", "2s"))
	busy := g.user(t, g.token("--name", "busy", "--project", "local", "--role", "writer"))
	open := busy.Command("stream", "--prefix", "by/busy", "--name", "out")
	pipe, feed := io.Pipe()
	defer feed.Close()
	open.Stdin = pipe
	testkit.Start(t, open)
	if _, err := io.WriteString(feed, "first\n"); err != nil {
		t.Fatal(err)
	}
	follow := reader.Start("tail", "-f", "local/by/busy/+/out")
	follow.Await(follow.Stdout, regexp.MustCompile("first\n"))
	admin.Run("token", "revoke", "reader")
	if code := follow.Wait(); code == 0 || !strings.Contains(follow.Stderr.String(), "not valid") {
		t.Errorf("tail with a token that was revoked: exit code %d, %s", code, follow.Stderr)
	}
	refused(t, reader, "not valid", cat...)
	until(t, "a token expires", func() bool {
		p := short.Start(cat...)
		return p.Wait() != 0 && strings.Contains(p.Stderr.String(), "not valid")
	})

	for _, secret := range g.secret {
		if strings.Contains(g.run.Stderr.String()+g.run.Stdout.String(), secret) {
			t.Error("the server's log has a token")
		}
	}
}

func TestTokenOfAServer(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t)
	token := g.token("--name", "reader", "--project", "local", "--role", "reader")

	// It may lie in a file that nobody else can read.
	h := g.user(t, "")
	config := filepath.Join(t.TempDir(), "config")
	h.Setenv("XDG_CONFIG_HOME", config)
	h.Setenv("HOME", config)
	dir := filepath.Join(config, "daybook", "tokens")
	if runtime.GOOS == "darwin" {
		dir = filepath.Join(config, "Library", "Application Support", "daybook", "tokens")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, strings.ReplaceAll(g.addr, ":", "_"))
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run("ls", "local")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, h, "chmod 600", "ls", "local")

	// It goes to nobody in plaintext, and to nobody who is not certified.
	refused(t, h, "plaintext", "ls", "local", "--server", "logs.example:4660", "--token", token)
	stranger := g.user(t, token)
	stranger.Setenv("DAYBOOK_TLS_CA", newAuthority(t).file)
	refused(t, stranger, "certificate", "ls", "local")
	plain := g.user(t, token)
	plain.Setenv("DAYBOOK_TLS_CA", "")
	refused(t, plain, "", "ls", "local", "--server", "http://"+g.addr)
}

func TestServersAreNotOpenByAccident(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	ca := newAuthority(t)
	cert, key := ca.certify(t, 2)
	for why, args := range map[string][]string{
		"--tls-cert":  {"--listen", "0.0.0.0:0"},
		"--insecure":  {"--listen", ":0"},
		"give both":   {"--listen", "127.0.0.1:0", "--tls-cert", cert},
		"certificate": {"--listen", "127.0.0.1:0", "--tls-cert", ca.file, "--tls-key", key},
		"no such":     {"--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key + ".gone"},
	} {
		p := h.Start(append([]string{"serve"}, args...)...)
		if code := p.WaitFor(testkit.Patience); code != 2 || !strings.Contains(p.Stderr.String(), why) {
			t.Errorf("serve %q: exit code %d, want a refusal that says %q\n%s", args, code, why, p.Stderr)
		}
	}
}

// get fetches a path and returns the status and the body.
func (g *guarded) get(t *testing.T, c *http.Client, path string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestBrowsersAndPrograms(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t)
	g.user(t, g.token("--name", "writer", "--project", "local", "--role", "writer")).Run("run", "--prefix", "a/b", "--", "echo", "hello")
	token := g.token("--name", "reader", "--project", "local", "--role", "reader")
	g.user(t, token).Run("tail", "-f", "local/a/b/+/stdout") // until it is there
	transport := &http.Transport{TLSClientConfig: g.ca.trust(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()

	program := &http.Client{Transport: transport}
	raw := "/logs/local/a/b/+/stdout?format=raw"
	if code, _ := g.get(t, program, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := g.get(t, program, raw); code != http.StatusUnauthorized {
		t.Errorf("raw without a token: %d", code)
	}
	if code, body := g.get(t, program, raw, "Authorization", "Bearer "+token); code != http.StatusOK || body != "hello\n" {
		t.Errorf("raw with a token: %d, %q", code, body)
	}
	if code, body := g.get(t, program, "/api/v1/streams?project=local", "Authorization", "Bearer "+token); code != http.StatusOK || !strings.Contains(body, "a/b/+/stdout") {
		t.Errorf("the data API: %d, %s", code, body)
	}
	if code, _ := g.get(t, program, "/metrics", "Authorization", "Bearer "+token); code != http.StatusForbidden {
		t.Errorf("metrics for a reader: %d", code)
	}
	scraper := g.token("--name", "scraper", "--role", "service")
	if code, body := g.get(t, program, "/metrics", "Authorization", "Bearer "+scraper); code != http.StatusOK || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics for a service: %d", code)
	}

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: transport, Jar: jar}
	page := "/logs/local/a/b/+/stdout"
	if code, body := g.get(t, browser, page, "Accept", "text/html"); code != http.StatusOK || !strings.Contains(body, `name="token"`) {
		t.Fatalf("the login: %d, %s", code, body)
	}
	resp, err := browser.PostForm("https://"+g.addr+"/login", url.Values{"token": {token}, "next": {page}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Request.URL.Path != page {
		t.Errorf("the login leads to %s with %s", resp.Request.URL, resp.Status)
	}
	if code, body := g.get(t, browser, raw); code != http.StatusOK || body != "hello\n" {
		t.Errorf("raw with a cookie: %d, %q", code, body)
	}
	g.server.Run("token", "revoke", "reader")
	until(t, "the cookie of a token that was revoked is refused", func() bool {
		code, _ := g.get(t, browser, "/api/v1/projects")
		return code == http.StatusUnauthorized
	})
}

func TestCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t)
	serial := func() int64 {
		c, err := tls.Dial("tcp", g.addr, g.ca.trust())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 2 {
		t.Fatalf("serial %d", n)
	}
	cert, _ := g.ca.certify(t, 3)
	until(t, "a new certificate is taken", func() bool { return serial() == 3 })
	// One that is broken is not.
	if err := os.WriteFile(cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "that the certificate is broken is told", func() bool {
		if n := serial(); n != 3 {
			t.Fatalf("serial %d", n)
		}
		return strings.Contains(g.run.Stderr.String(), "the one before stays in use")
	})
}

// A process without tokens knows the callers of those that have them, and shows its own token for itself.
func TestProcessesShareTheirCallers(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t, "--roles", "broker,coordinator,archivist,collector")
	writer, reader := g.token("--name", "writer", "--project", "local", "--role", "writer"), g.token("--name", "reader", "--project", "local", "--role", "reader")
	front := testkit.NewHouse(t)
	front.Setenv("DAYBOOK_TLS_CA", g.ca.file)
	front.Setenv("DAYBOOK_TOKEN", g.token("--name", "front", "--role", "service"))
	door := front.Serve("--auth", "--roles", "web", "--coordinator", "https://"+g.addr)
	user := func(token string) *testkit.House {
		h := testkit.NewHouse(t)
		h.Setenv("DAYBOOK_SERVER", door.Addr)
		h.Setenv("DAYBOOK_TOKEN", token)
		return h
	}
	if p := user(writer).Start("run", "--prefix", "by/front", "--", "echo", "hello"); p.Wait() != 0 || strings.Contains(p.Stderr.String(), "kept on disk") {
		t.Fatalf("run: %s", p.Stderr)
	}
	if got := user(reader).Run("tail", "-f", "local/by/front/+/stdout"); got != "hello\n" {
		t.Errorf("tail: %q", got)
	}
	refused(t, user(writer), "token:writer", "cat", "local/by/front/+/stdout")
	refused(t, user(""), "token", "cat", "local/by/front/+/stdout")
	refused(t, user("dbk_wrong"), "not valid", "cat", "local/by/front/+/stdout")
	for token, want := range map[string]int{reader: http.StatusOK, writer: http.StatusForbidden, "": http.StatusUnauthorized, "dbk_wrong": http.StatusUnauthorized} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, door.URL+"/logs/local/by/front/+/stdout?format=raw", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || want == http.StatusOK && string(body) != "hello\n" {
			t.Errorf("raw with %.8q: %s, %q, %v", token, resp.Status, body, err)
		}
	}
}
