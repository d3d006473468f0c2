//go:build unix

package test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket/cloud"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/store/storetest"
)

// machines is a system whose roles are processes of their own, each with nothing but its own data directory, on a PostgreSQL
// and an object store that they share.
type machines struct {
	pg      *testkit.Postgres
	archive string

	broker, front, other   *testkit.Server // front and other are Coordinators
	collectors, archivists []*testkit.Server

	// user is where commands run. They know the address of the front and nothing else; those of guest know the other's.
	user, guest *testkit.House
}

func startMachines(t *testing.T) *machines {
	t.Helper()
	store := storetest.StartS3(t)
	m := &machines{pg: testkit.NewPostgres(t), archive: string(store.Store("company/logs"))}
	database := m.pg.Database(t)
	serve := func(roles string, flags ...string) *testkit.Server {
		h := testkit.NewHouse(t)
		if roles != "broker" && roles != "web" {
			h.Setenv("DAYBOOK_STATE", database)
			h.Setenv("DAYBOOK_ENTRIES", database)
			h.Setenv("DAYBOOK_ARCHIVE", m.archive)
		}
		return h.Serve(append([]string{"--roles", roles}, flags...)...)
	}
	m.broker = serve("broker")
	m.front = serve("coordinator,web", "--journals", m.broker.URL)
	m.other = serve("coordinator,web", "--journals", m.broker.URL)
	for range 2 {
		m.collectors = append(m.collectors, serve("collector", "--coordinator", m.front.Addr, "--journals", m.broker.Addr))
		m.archivists = append(m.archivists, serve("archivist", "--coordinator", m.front.Addr))
	}
	m.user = testkit.NewHouse(t)
	m.user.Setenv("DAYBOOK_SERVER", m.front.Addr)
	m.guest = testkit.NewHouse(t)
	m.guest.Setenv("DAYBOOK_SERVER", m.other.Addr)
	return m
}

// archived counts the objects of the archive.
func (m *machines) archived(t *testing.T) int {
	t.Helper()
	u, err := url.Parse(m.archive)
	if err != nil {
		t.Fatal(err)
	}
	b, err := cloud.Open(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n := 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// Roles on several machines: whoever dies in the middle, and the database with it, every byte comes back, and none twice.
func TestRolesOnSeveralMachines(t *testing.T) {
	m := startMachines(t)
	n := int(size(10, 200))
	gate := testkit.NewGate(t)
	captures, processes, followers := make([]*capture, n), make([]*testkit.Process, n), make([]*testkit.Process, n)
	for i := range captures {
		w := testkit.Writer{Stdout: text(uint64(i), size(100_000, 1<<20)), Stderr: text(uint64(n+i), 1000), Gate: gate.Addr()}
		captures[i] = runWriter(t, m.user, fmt.Sprintf("machines/%d", i), w)
		processes[i] = captures[i].Process
		followers[i] = []*testkit.House{m.user, m.guest}[i%2].Start("tail", "-f", captures[i].path("stdout"))
	}
	gate.Await(processes...)
	for _, f := range followers {
		f.Await(f.Stdout, regexp.MustCompile(`^.`)) // what came before the gate has gone all the way
	}

	// In the middle of all outputs everybody dies, the one after the other; one Collector and one Archivist are left.
	m.collectors[0].Kill()
	m.archivists[0].Kill()
	m.front.Kill()
	m.broker.Kill()
	gate.Open()
	m.pg.Kill()
	m.broker.Restart()
	m.pg.Restart(t)
	m.front.Restart()
	m.collectors[0].Restart()
	m.collectors[1].Kill()
	m.archivists[0].Restart()
	m.archivists[1].Kill()
	for _, c := range captures {
		c.finish(t)
	}
	m.user.Run("flush") // what commands left behind that did not wait for so long
	m.collectors[1].Restart()
	m.archivists[1].Restart()

	for i, f := range followers {
		if code := f.Wait(); code != 0 {
			t.Errorf("follower of %s: exit code %d\n%s", captures[i].prefix, code, f.Stderr)
		}
		if err := testkit.Compare(captures[i].w.Stdout.Reader(), strings.NewReader(f.Stdout.String())); err != nil {
			t.Errorf("follower of %s: %v", captures[i].prefix, err)
		}
	}
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, c := range captures {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c.check(t)
		})
	}
	wg.Wait()
	for _, c := range captures {
		c.checkUntilArchived(t)
	}
	if got := m.archived(t); got < 4*n {
		t.Errorf("the archive has %d objects, want two for each of %d streams", got, 2*n)
	}
	if got := len(list(t, m.user, "local/machines/**")); got != 2*n {
		t.Errorf("ls shows %d streams, want %d", got, 2*n)
	}
	for _, s := range append(append([]*testkit.Server{m.front, m.other, m.broker}, m.collectors...), m.archivists...) {
		fetch(t, s.URL+"/readyz")
		if !strings.Contains(fetch(t, s.URL+"/metrics"), "process_cpu_seconds_total") {
			t.Errorf("%s has no metrics", s.URL)
		}
	}
	// In order, too: those who ask before those who answer.
	for _, s := range append(append(m.collectors, m.archivists...), m.front, m.other, m.broker) {
		s.Stop(30 * time.Second)
	}
}

// A role that cannot work says why, and says that it can when it can again. Calls for roles that are elsewhere are passed on.
func TestReadinessNamesTheRole(t *testing.T) {
	t.Parallel()
	broker := testkit.NewHouse(t).Serve("--roles", "broker")
	rest := testkit.NewHouse(t).Serve("--roles", "coordinator,collector,archivist", "--journals", broker.Addr)
	web := testkit.NewHouse(t).Serve("--roles", "web", "--coordinator", rest.URL)

	user := testkit.NewHouse(t)
	user.Setenv("DAYBOOK_SERVER", web.Addr)
	c := runWriter(t, user, "by/web", testkit.Writer{Stdout: text(1, 100_000)})
	c.finish(t)
	c.checkUntilArchived(t)
	for _, path := range []string{"/logs/" + c.path("stdout"), "/api/v1/streams?project=local"} {
		fetch(t, web.URL+path)
	}
	if code, body := get(t, web.URL+"/journals/daybook/ingest/000?offset=0"); code != http.StatusPartialContent || body == "" {
		t.Errorf("the journal by way of the pages' process: %d with %d bytes", code, len(body))
	}
	if got := user.Run("journals", "list", "--selector", "daybook.dev/ingest"); !strings.Contains(got, "daybook/ingest/000") {
		t.Errorf("journals list: %s", got)
	}

	awaitReadiness(t, rest, "ready")
	broker.Kill()
	awaitReadiness(t, rest, "collector: cannot reach the brokers at "+broker.Addr)
	awaitReadiness(t, web, "ready")
	broker.Restart()
	awaitReadiness(t, rest, "ready")
	rest.Kill()
	awaitReadiness(t, web, "web: cannot reach the coordinator at "+rest.Addr)
}

// A process that the others do not know is not ready, and says what it lacks.
func TestReadinessOfAStranger(t *testing.T) {
	t.Parallel()
	database := testkit.Database(t)
	front := testkit.NewHouse(t).Serve("--roles", "broker,coordinator,archivist,web", "--entries", database, "--auth")
	h := testkit.NewHouse(t)
	stranger := h.Start("serve", "--listen", "127.0.0.1:0", "--roles", "collector", "--entries", database, "--coordinator", front.Addr)
	url := stranger.Await(stranger.Stdout, regexp.MustCompile(`serving on (\S+)`))[1]
	awaitReadiness(t, &testkit.Server{URL: url},
		"collector: the coordinator at "+front.Addr+" refuses: anonymous is not one of the services; give a token of the role service")
}

// awaitReadiness waits until /readyz says something.
func awaitReadiness(t *testing.T, s *testkit.Server, want string) {
	t.Helper()
	for deadline := time.Now().Add(testkit.Patience); ; time.Sleep(20 * time.Millisecond) {
		_, body := get(t, s.URL+"/readyz")
		if strings.TrimSpace(body) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz says %q, want %q", body, want)
		}
	}
}

// get gets a page, whatever its status.
func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testkit.Patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// systemd learns when a process of some roles can be used and when it stops.
func TestServeNotifies(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	await := systemd(t, h)
	s := h.Serve("--roles", "broker")
	await("READY=1")
	s.Signal(syscall.SIGTERM)
	await("STOPPING=1")
	s.Wait()
}

// A process that cannot start says what to do about it, and no password.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	const secret = "open-sesame"
	for _, tc := range []struct{ flags, want string }{
		{"--roles=collector", "say with --coordinator"},
		{"--roles=broker,coordinator,web", "--entries postgres://"},
		{"--state=mysql://user:" + secret + "@db/daybook", "give postgres://"},
		{"--state=postgres://user:" + secret + "@127.0.0.1:1/daybook", "connection refused"},
		{"--entries=postgres://127.0.0.1:1/daybook?user=u&password=" + secret, "connection refused"},
		{"--state=postgres://user:" + secret + "@[/daybook", "this is no URL"},
		{"--archive=s3://bucket/logs?region=x&secret=" + secret, "does not know the argument"},
	} {
		p := testkit.NewHouse(t).Start("serve", "--log-level=debug", "--listen=127.0.0.1:0", tc.flags)
		if code := p.Wait(); code == 0 {
			t.Errorf("%s: exit code 0", tc.flags)
		}
		all := p.Stderr.String() + p.Stdout.String()
		if !strings.Contains(all, tc.want) {
			t.Errorf("%s: want %q in\n%s", tc.flags, tc.want, all)
		}
		if strings.Contains(all, secret) {
			t.Errorf("%s: the password is in\n%s", tc.flags, all)
		}
	}
}
