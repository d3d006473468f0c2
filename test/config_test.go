//go:build unix

package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/testkit"
)

// configured is a server with a configuration that changes.
type configured struct {
	*testkit.Server
	t    *testing.T
	h    *testkit.House
	file string
}

func serveConfigured(t *testing.T, text string) *configured {
	t.Helper()
	c := &configured{t: t, h: testkit.NewHouse(t), file: filepath.Join(t.TempDir(), "daybook.yaml")}
	c.write(text)
	c.Server = c.h.Serve("--config", c.file)
	return c
}

func (c *configured) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.file, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// take replaces the file, tells the server, and waits for what it says.
func (c *configured) take(text, says string) {
	c.t.Helper()
	c.write(text)
	c.Signal(syscall.SIGHUP)
	c.Await(c.Stderr, regexp.MustCompile(says))
}

// metric returns the line of /metrics that begins with a name.
func (c *configured) metric(name string) string {
	c.t.Helper()
	resp, err := http.Get(c.URL + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// claim registers a prefix, and returns the status and what it says.
func (c *configured) claim(project, prefix string, expiration time.Duration) (codes.Code, string) {
	c.t.Helper()
	conn, err := client.Dial(c.Addr)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	r := &logdog.RegisterPrefixRequest{Project: project, Prefix: prefix}
	if expiration > 0 {
		r.Expiration = durationpb.New(expiration)
	}
	_, err = logdog.NewRegistrationClient(conn).RegisterPrefix(c.t.Context(), r)
	return status.Code(err), status.Convert(err).Message()
}

// origin returns what a browser is told when a page of an origin calls a service, with a token or without.
func (c *configured) origin(service, origin, token string) (code int, allowed string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.URL+"/prpc/"+service, strings.NewReader("{}"))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Origin", origin)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Access-Control-Allow-Origin")
}

// A running server takes a file that changes, and keeps what it has when the file is broken.
func TestConfigurationOfARunningServer(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := serveConfigured(t, "projects: {local: }\n")
	if code, _ := c.claim("ci", "p/1", 0); code != codes.Unauthenticated {
		t.Errorf("a project that is not there: %v", code)
	}
	const page = "https://ui.example.com"
	if code, allowed := c.origin("logdog.Logs/Get", page, ""); code != http.StatusForbidden || allowed != "" {
		t.Errorf("a page of another origin: %d, %q", code, allowed)
	}

	// Everything below takes effect in the running server.
	bucket := filepath.Join(t.TempDir(), "archive")
	const rest = "projects:\n  local:\n  ci: {archive: {bucket: 'file://%s', stream_range: 1}, prefix_expiration: 1h, quotas: {prefixes_per_hour: 2}}\n"
	good := "service: {prefix_expiration: 0, allowed_origins: ['" + page + "']}\n" + fmt.Sprintf(rest, bucket)
	c.take(good, "has changed")
	if code, allowed := c.origin("logdog.Logs/Get", page, ""); code == http.StatusForbidden || allowed != page {
		t.Errorf("a page that may: %d, %q", code, allowed)
	}
	if code, allowed := c.origin("logdog.Logs/Get", page, "dbk_bad"); code != http.StatusUnauthorized || allowed != page {
		t.Errorf("a page that may, with a bad token, cannot read why: %d, %q", code, allowed)
	}
	if code, allowed := c.origin("logdog.Services/LoadStream", page, ""); code != http.StatusForbidden || allowed != "" {
		t.Errorf("a page that may, of another service: %d, %q", code, allowed)
	}
	if code, allowed := c.origin("logdog.Services/LoadStream", page, "dbk_bad"); code != http.StatusUnauthorized || allowed != "" {
		t.Errorf("a page that may, of another service with a bad token: %d, %q", code, allowed)
	}
	c.h.Run("run", "--project", "ci", "--prefix", "p/1", "--", "seq", "100000")
	checkArchives(t, bucket)
	if got := c.h.Run("cat", "ci/p/1/+/stdout"); !strings.HasPrefix(got, "1\n2\n") || !strings.HasSuffix(got, "\n100000\n") {
		t.Errorf("cat prints %d bytes", len(got))
	}
	if code, _ := c.claim("local", "p/1", 0); code != codes.InvalidArgument {
		t.Errorf("without any time to register streams: %v", code)
	}
	if code, text := c.claim("local", "p/1", time.Hour); code != codes.OK {
		t.Errorf("with the time of the request: %v %s", code, text)
	}
	if code, text := c.claim("ci", "p/2", 0); code != codes.OK {
		t.Errorf("the second prefix: %v %s", code, text)
	}
	if code, text := c.claim("ci", "p/3", 0); code != codes.ResourceExhausted || !strings.Contains(text, "prefixes_per_hour") {
		t.Errorf("one prefix too many: %v %s", code, text)
	}
	over := c.h.Start("run", "--project", "ci", "--prefix", "p/3", "--", "echo", "kept")
	if code := over.Wait(); code != 0 || !strings.Contains(over.Stderr.String(), "the server refuses the output: the quota prefixes_per_hour of project ci is used up") {
		t.Errorf("run beyond the quota: exit code %d, %s", code, over.Stderr)
	}
	version := c.metric("daybook_config_info")

	// A broken file changes nothing.
	c.take("projects:\n  local:\n  ci: {retention: 30 days}\nfoo:\n", `(?s)daybook.yaml:3:19: retention.*daybook.yaml:4:1: `)
	if got := c.metric("daybook_config_last_reload_successful"); got != "daybook_config_last_reload_successful 0" {
		t.Errorf("metrics: %q", got)
	}
	if got := c.metric("daybook_config_info"); got != version {
		t.Errorf("metrics: %q, not %q", got, version)
	}
	if code, _ := c.claim("ci", "p/3", 0); code != codes.ResourceExhausted {
		t.Errorf("the version before does not stay: %v", code)
	}
	if resp, err := http.Get(c.URL + "/readyz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the server is not ready: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}

	// What is archived stays where it is, and is found there, when the bucket is another one. Here, nobody sends a signal.
	c.write("projects: {ci: }\n")
	c.Await(c.Stderr, regexp.MustCompile(`(?s)has changed.*has changed`))
	if got := c.h.Run("cat", "ci/p/1/+/stdout"); !strings.HasPrefix(got, "1\n2\n") || !strings.HasSuffix(got, "\n100000\n") {
		t.Errorf("cat prints %d bytes", len(got))
	}
	if code, _ := c.claim("local", "p/1", 0); code != codes.Unauthenticated {
		t.Errorf("a project that was taken away: %v", code)
	}
	c.Stop(testkit.Patience)
}

// checkArchives waits for the archives of two streams in a directory, whose indexes list every entry.
func checkArchives(t *testing.T, dir string) {
	t.Helper()
	var found []string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testkit.Patience); len(found) != 2; <-tick.C {
		var err error
		if found, err = filepath.Glob(dir + "/ci/*/*/*.index"); err != nil || time.Now().After(deadline) {
			t.Fatalf("the bucket of the project has %v, %v", found, err)
		}
	}
	places := archive.NewPlaces(bucket.NewMem("none"), nil)
	defer places.Close()
	most := 0
	for _, index := range found {
		entries := "file://" + strings.TrimSuffix(index, ".index") + ".entries.zst"
		b, err := places.Of(t.Context(), entries)
		if err != nil {
			t.Fatal(err)
		}
		s, err := archive.Open(t.Context(), b, entries, "file://"+index)
		if err != nil {
			t.Fatal(err)
		}
		listed := len(s.Index().GetEntries())
		if listed != int(s.Index().GetLogEntryCount()) {
			t.Errorf("the index of %d entries lists %d", s.Index().GetLogEntryCount(), listed)
		}
		most = max(most, listed)
	}
	if most < 3 {
		t.Errorf("no archive has more than %d entries, so that all indexes look alike", most)
	}
}

// Rules of access apply from when they are taken.
func TestConfiguredAccess(t *testing.T) {
	t.Parallel()
	c := serveConfigured(t, "projects: {local: , ci: }\n")
	if code, text := c.claim("ci", "p/1", 0); code != codes.OK {
		t.Fatalf("%v %s", code, text)
	}
	c.take("projects:\n  local: {access: [{principals: [anonymous], roles: [reader, writer]}]}\n  ci:\n", "has changed")
	if code, _ := c.claim("ci", "p/2", 0); code != codes.Unauthenticated {
		t.Errorf("a project without grants: %v", code)
	}
	if code, text := c.claim("local", "p/2", 0); code != codes.OK {
		t.Errorf("a project with: %v %s", code, text)
	}
	c.Stop(testkit.Patience)
}

// The commands tell everything that is wrong with a file, and what applies.
func TestConfigCommands(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "daybook.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		p := h.Start(args...)
		if code := p.Wait(); code != want {
			t.Errorf("%v: exit code %d, not %d: %s", args, code, want, p.Stderr)
		}
		return p.Stdout.String(), p.Stderr.String()
	}
	run(2, "config", "check", file)
	if out, _ := run(0, "config", "check"); !strings.Contains(out, "defaults") {
		t.Errorf("without a file: %s", out)
	}
	write("projects:\n  local: {retention: soon}\n  CI: {}\n")
	out, problems := run(1, "config", "check", file)
	want := file + ":2:22: retention: \"soon\" is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s\n" +
		file + ":3:3: project \"CI\" does not begin with a lower-case letter\n"
	if out != "" || problems != want {
		t.Errorf("check prints %q and %q, not %q", out, problems, want)
	}
	_, refusal := run(2, "serve", "--listen", "127.0.0.1:0", "--config", file)
	if !strings.Contains(refusal, strings.TrimSpace(want)) {
		t.Errorf("serve prints %q", refusal)
	}

	write("projects: {ci: {retention: 720h, quotas: {bytes_per_day: 1048576}}}\n")
	if out, _ := run(0, "config", "check", file); !strings.HasPrefix(out, file+": good; 1 project, version ") {
		t.Errorf("check prints %q", out)
	}
	out, _ = run(0, "config", "show", file)
	const shown = "service:\n  prefix_expiration: 7d\n  allowed_origins: []\n  administrators: []\n  services: []\n" +
		"projects:\n  ci:\n    retention: 30d\n    purge_grace: 7d\n    quotas:\n      bytes_per_day: 1MiB\n"
	if out != shown {
		t.Errorf("show prints %q, not %q", out, shown)
	}

	// A file in the data directory is used by itself: by the commands, by a server, and by a command that runs without one.
	if err := os.MkdirAll(h.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Data, "config.yaml"), []byte("projects: {ci: }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(0, "config", "check"); !strings.Contains(out, "config.yaml: good") {
		t.Errorf("check prints %q", out)
	}
	h.Run("run", "--project", "ci", "--prefix", "p/1", "--", "echo", "hello")
	if got := h.Run("cat", "ci/p/1/+/stdout"); got != "hello\n" {
		t.Errorf("cat prints %q", got)
	}
}
