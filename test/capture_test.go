//go:build unix

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// burst is how many streams a program opens before it ends.
const burst = 1000

// A program that opens 1,000 streams as LogDog's clients do, and is gone at once, loses none, though the run ends with it.
func TestBurstOfStreams(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("this test needs python3: ", err)
	}
	h := testkit.NewHouse(t)
	h.Serve()
	for name, command := range map[string][]string{
		"python": {python, "testdata/burst.py", fmt.Sprint(burst)},
		"go":     {os.Args[0], burstArg},
	} {
		p := h.Start(append([]string{"run", "--prefix", "burst/" + name, "--"}, command...)...)
		if code := p.Wait(); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", name, code, p.Stderr)
		}
		streams := list(t, h, "local/burst/"+name+"/+/many/**")
		if len(streams) != burst {
			t.Errorf("%s: %d streams, want %d", name, len(streams), burst)
		}
		for _, i := range []int{0, 1, burst / 2, burst - 1} {
			want := fmt.Sprintf("all that stream %d says\n", i)
			if got := h.Run("cat", fmt.Sprintf("local/burst/%s/+/many/%d", name, i)); got != want {
				t.Errorf("%s: stream %d has %q", name, i, got)
			}
		}
		// Every line is of the same length but for the number.
		sizes := h.Run("ls", "--limit", "0", "local/burst/"+name+"/+/many/**")
		if n := strings.Count(sizes, " B"); n != burst {
			t.Errorf("%s: %d streams with a size", name, n)
		}
		if strings.Contains(sizes, " 0 B") {
			t.Errorf("%s: empty streams:\n%s", name, sizes)
		}
	}
}

const burstArg = "open-many-streams"

// runBurst is the program.
func runBurst() error {
	protocol, path, _ := strings.Cut(os.Getenv("LOGDOG_STREAM_SERVER_PATH"), ":")
	var wg sync.WaitGroup
	var errs [8]error
	for worker := range errs {
		wg.Go(func() {
			for i := worker; i < burst; i += len(errs) {
				conn, err := net.Dial(protocol, path)
				if err == nil {
					_, err = conn.Write(append(hello(fmt.Sprintf(`{"name":"many/%d"}`, i)), fmt.Sprintf("all that stream %d says\n", i)...))
				}
				if err != nil {
					errs[worker] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...) // the connections end with the process
}

// hello is a handshake of the first version with a short header.
func hello(header string) []byte {
	b := []byte("BTLR1\x1e")
	n := len(header)
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), header...)
}

// Clients that are broken or hostile harm neither the Butler nor the streams of others.
func TestHostilePrograms(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b, path := startButler(t, h, "--prefix", "hostile")
	dial := func(data ...[]byte) net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		for _, d := range data {
			if _, err := conn.Write(d); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		}
		return conn
	}
	good := dial(hello(`{"name":"good"}`), []byte("before\n"))
	for _, bad := range [][]byte{
		nil,
		{0},
		[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("BTLR1"), []byte("BTLR1\x1e\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), []byte("BTLR1\x1e\x10{"),
		hello(`{"name":"good"}`), hello(`{"name":"a//b"}`), hello(`{"name":"tags","tags":{"a b":"c"}}`), hello(`[]`),
	} {
		dial(bad)
	}
	for i, lengths := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\x7f", "\x80"} {
		name := fmt.Sprintf("datagrams/%d", i)
		_ = dial(hello(fmt.Sprintf(`{"name":%q,"type":"datagram"}`, name)), []byte("\x02ok"+lengths)).Close()
	}
	_ = dial(hello(`{"name":"cut"}`), []byte("one\ncut \xe2\x82")).Close()
	if _, err := good.Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	_ = good.Close()
	_ = dial(hello(`{"name":"last"}`), []byte("last\n")).Close()
	awaitOutput(t, h, "local/hostile/+/last", "last\n")
	begin := time.Now()
	b.Signal(syscall.SIGTERM) // while there are handshakes that are half open
	if code := b.WaitFor(time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, b.Stderr)
	}
	t.Logf("stopped within %v", time.Since(begin))
	for name, want := range map[string]string{"good": "before\nafter\n", "last": "last\n", "cut": "one\ncut \xe2\x82"} {
		if got := h.Run("cat", "local/hostile/+/"+name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	broken := h.Start("tail", "-f", "local/hostile/+/datagrams/0")
	if broken.Wait(); !strings.Contains(broken.Stderr.String(), "ended early: cut off: datagram") {
		t.Errorf("the reason of the end: %s", broken.Stderr)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// startButler starts a Butler and returns it with the path of its socket.
func startButler(t *testing.T, h *testkit.House, flags ...string) (*testkit.Process, string) {
	t.Helper()
	b := h.Start(append([]string{"butler"}, flags...)...)
	return b, b.Await(b.Stdout, regexp.MustCompile(`LOGDOG_STREAM_SERVER_PATH=unix:(.*)\n`))[1]
}

// systemd learns when a Butler is ready and when it stops.
func TestButlerNotifies(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	await := systemd(t, h)
	b, _ := startButler(t, h, "--prefix", "notify")
	await("READY=1")
	b.Signal(syscall.SIGTERM)
	await("STOPPING=1")
	b.Wait()
}

// systemd makes what is started in the house from now on take the test for systemd. The function that it returns waits to be told
// something.
func systemd(t *testing.T, h *testkit.House) (await func(want string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "s"))
	return func(want string) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
		buf := make([]byte, 1024)
		n, err := conn.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), want) {
			t.Fatalf("%q, %v, want %s", buf[:n], err, want)
		}
	}
}

// A prefix that is taken is an error where capturing is all there is to do.
func TestPrefixIsTaken(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	first, _ := startButler(t, h, "--prefix", "taken")
	second := h.Start("butler", "--prefix", "taken")
	cmd := h.Command("stream", "--prefix", "taken")
	cmd.Stdin = strings.NewReader("x\n")
	for _, p := range []*testkit.Process{second, testkit.Start(t, cmd)} {
		if code := p.WaitFor(time.Minute); code != 1 || !strings.Contains(p.Stderr.String(), "already registered") {
			t.Errorf("exit code %d: %s", code, p.Stderr)
		}
	}
	first.Signal(syscall.SIGTERM)
	if code := first.Wait(); code != 0 {
		t.Errorf("the first: exit code %d\n%s", code, first.Stderr)
	}
}

// A run below a run has streams of its own, and the outer one captures what it prints. The socket of a Butler that is gone disturbs nobody.
func TestRunBelowRun(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	h.Setenv("LOGDOG_STREAM_SERVER_PATH", "unix:/nonexistent/butler")
	h.Setenv("LOGDOG_NAMESPACE", "of/the/outer")
	bin := testkit.Binary(t)
	inner := fmt.Sprintf(`echo one; echo two | %s stream --name mine; echo "$LOGDOG_STREAM_PREFIX [$LOGDOG_NAMESPACE]"`, bin)
	p := h.Start("run", "--prefix", "outer", "--", bin, "run", "--prefix", "inner", "--", "sh", "-c", inner)
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.Stderr)
	}
	for path, want := range map[string]string{
		"outer/+/stdout": "one\ninner []\n", "inner/+/stdout": "one\ninner []\n", "inner/+/mine": "two\n",
	} {
		if got := h.Run("cat", "local/"+path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Nothing of a secret is in any file, nor in the debug log, whatever it comes by and whoever is killed.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%t", kill), func(t *testing.T) {
			t.Parallel()
			h := testkit.NewHouse(t)
			proxy := testkit.NewProxy(t, h.Serve().Addr)
			h.Setenv("DAYBOOK_SERVER", proxy.Addr())
			h.Setenv("DAYBOOK_LOG_LEVEL", "debug")
			h.Setenv("DEPLOY_TOKEN", "s3cret-of-the-environment")
			h.Setenv("DATABASE", "postgres://me:s3cret-of-the-url@host/db")
			secrets := []string{"s3cret", "run-time-valu", "k3y-1"}
			dir, err := filepath.Abs("../clients/python")
			if err != nil {
				t.Fatal(err)
			}
			script := fmt.Sprintf(`
				printf 's3cret-of'; sleep 0.1; printf -- '-the-environment\n'; echo "url s3cret-of-the-url pattern k3y-123456"
				echo 's3cret-of-the-environment' | %[1]s stream --name mine --tag 'tag=is s3cret-of-the-environment'
				PYTHONPATH=%[2]s python3 -c 'import daybook_stream as d; d.add_redaction("run-time-value"); s = d.open_text("python"); s.write("a run-time-"); s.write("value\n"); s.close()' || exit 1
				echo ready >&2
				[ %[3]t = false ] || while kill -0 $PPID 2>/dev/null; do sleep 0.01; done`, testkit.Binary(t), dir, kill)
			if kill {
				proxy.Refuse() // so that all is in the spool
				proxy.Cut()
			}
			p := h.Start("run", "--prefix", "secret", "--redact", "k3y-[0-9]+", "--pty=always", "--", "sh", "-c", script)
			p.Await(p.Stderr, regexp.MustCompile("ready\r\n"))
			if kill {
				awaitSpool(t, h)
				p.Signal(syscall.SIGKILL)
			}
			if code := p.Wait(); !kill && code != 0 {
				t.Fatalf("exit code %d\n%s", code, p.Stderr)
			}
			for _, s := range secrets {
				if strings.Contains(p.Stderr.String(), s) {
					t.Errorf("the log has %q:\n%s", s, p.Stderr)
				}
			}
			searchFiles(t, h.Data, secrets)
			if kill {
				proxy.Accept()
				h.Run("flush")
			}
			want := "***\r\nurl *** pattern ***\r\n"
			if got := h.Run("cat", "local/secret/+/stdout"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if got := h.Run("cat", "local/secret/+/python"); got != "a ***\n" {
				t.Errorf("%q", got)
			}
			searchFiles(t, h.Data, secrets)
		})
	}
}

// searchFiles fails if a file below a directory has what must not be there.
func searchFiles(t *testing.T, dir string, secrets []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // gone meanwhile
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		files++
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s has %q", path, s)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// awaitSpool waits until what was written has been in the spools for a while.
func awaitSpool(t *testing.T, h *testkit.House) {
	t.Helper()
	for last, same := "", 0; same < 3; {
		got := regexp.MustCompile(`\d+ spools, .*`).FindString(h.Run("spool", "ls"))
		if got == last && !strings.HasPrefix(got, "0") {
			same++
		} else {
			last, same = got, 0
		}
	}
}

// Whoever is killed, in whatever order: what the Butler had is there, once, and streams that nobody ended end with a reason.
func TestKillsInEveryOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"run", "server"}, {"server", "run"}, {"butler", "server"}, {"server", "butler"}, {"run", "resume", "server"}} {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			h := testkit.NewHouse(t)
			server := h.Serve()
			const path = "local/killed/+/stdout"
			content := text(1, 50_000)
			var p *testkit.Process
			if slices.Contains(order, "butler") {
				b, socket := startButler(t, h, "--prefix", "killed")
				conn, err := net.Dial("unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.Copy(conn, io.MultiReader(bytes.NewReader(hello(`{"name":"stdout"}`)), content.Reader())); err != nil {
					t.Fatal(err)
				}
				p = b
			} else {
				gate := testkit.NewGate(t)
				content.Size = 100_000 // of which a half comes before the gate
				w := testkit.Writer{Stdout: content, Gate: gate.Addr()}
				p = h.Start(append([]string{"run", "--prefix", "killed", "--"}, w.Args()...)...)
				gate.Await(p)
			}
			awaitSize(t, h, path, 50_000)
			for _, who := range order {
				switch who {
				case "server":
					server.Kill()
				case "resume":
					// Any Butler of the same user sends what is left.
					cmd := h.Command("stream", "--prefix", "another")
					cmd.Stdin = strings.NewReader("x\n")
					if r := testkit.Start(t, cmd); r.Wait() != 0 {
						t.Fatal(r.Stderr)
					}
					awaitNoSpools(t, h)
				default:
					p.Signal(syscall.SIGKILL)
					p.Wait()
				}
			}
			server.Restart()
			h.Run("flush")
			tail := h.Start("tail", "-f", path)
			tail.Wait()
			if !strings.Contains(tail.Stderr.String(), "before its end") {
				t.Errorf("the reason of the end: %s", tail.Stderr)
			}
			h.Run("flush") // again
			if err := h.CompareCat(path, io.LimitReader(content.Reader(), 50_000)); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitNoSpools waits until nothing is left in spools.
func awaitNoSpools(t *testing.T, h *testkit.House) {
	t.Helper()
	for deadline := time.Now().Add(testkit.Patience); !strings.HasPrefix(h.Run("spool", "ls"), "0 spools"); {
		if time.Now().After(deadline) {
			t.Fatal("spools are left")
		}
	}
}

// awaitSize waits until cat of a stream has that many bytes.
func awaitSize(t *testing.T, h *testkit.House, path string, size int) {
	t.Helper()
	for deadline := time.Now().Add(testkit.Patience); ; {
		p := h.Start("cat", path)
		if p.Wait(); len(p.Stdout.String()) >= size {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of %d", len(p.Stdout.String()), size)
		}
	}
}

// A network that passes nothing, resets, refuses, and comes back, costs time alone.
func TestNetworkDies(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	proxy := testkit.NewProxy(t, server.Addr)
	h.Setenv("DAYBOOK_SERVER", proxy.Addr())
	gate := testkit.NewGate(t)
	c := runWriter(t, h, "network", testkit.Writer{Stdout: text(1, 4<<20), Stderr: text(2, 100_000), Gate: gate.Addr()})
	gate.Await(c.Process)
	proxy.Stall()
	gate.Open()
	c.finish(t) // the command does not wait for the network
	proxy.Resume()
	proxy.CutAfter(100_000)
	proxy.Cut()
	h.Run("flush")
	c.check(t)
}

// A spool is never larger than its limit. What is not captured then is told, and marked where it is missing.
func TestFullSpoolDrops(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	proxy := testkit.NewProxy(t, server.Addr)
	proxy.Refuse()
	h.Setenv("DAYBOOK_SERVER", proxy.Addr())
	gate := testkit.NewGate(t)
	w := testkit.Writer{Stdout: testkit.Content{Kind: testkit.Random, Seed: 1, Size: 80 << 20}, Gate: gate.Addr()}
	cmd := h.Command(append([]string{"run", "--prefix", "full/drop", "--spool-limit", "1MiB", "--"}, w.Args()...)...)
	cmd.Stdout = devNull(t)
	p := testkit.Start(t, cmd)
	gate.Await(p) // half of it was written, and dropped
	checkSpools(t, h, 1<<20)
	proxy.Accept()
	// Once the way is open again nothing more is given up, however slow the machine is.
	for deadline := time.Now().Add(testkit.Patience); !strings.Contains(h.Run("ls", "--paths"), "full/drop/+/stdout"); {
		if time.Now().After(deadline) {
			t.Fatalf("the server got nothing:\n%s", p.Stderr)
		}
	}
	gate.Open()
	if code := p.Wait(); code != 0 || !strings.Contains(p.Stderr.String(), "bytes of output were not captured") {
		t.Errorf("exit code %d\n%s", code, p.Stderr)
	}
	h.Run("flush")
	if got := h.Run("cat", "local/full/drop/+/stdout"); !strings.Contains(got, "bytes of output are missing here") {
		t.Error("the place is not marked")
	}
	if tags := tagsOf(t, server, "local/full/drop/+/stdout"); tags["daybook.dropped_bytes"] == "" {
		t.Errorf("tags %v", tags)
	}
}

// With the other policy the command waits, and nothing is missing.
func TestFullSpoolBlocks(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	proxy := testkit.NewProxy(t, server.Addr)
	proxy.Refuse()
	h.Setenv("DAYBOOK_SERVER", proxy.Addr())
	content := testkit.Content{Kind: testkit.Random, Seed: 1, Size: 40 << 20}
	w := testkit.Writer{Stdout: content}
	start := func(prefix string) *testkit.Process {
		cmd := h.Command(append([]string{"run", "--prefix", prefix, "--spool-limit", "1MiB", "--when-full=block", "--"}, w.Args()...)...)
		cmd.Stdout = devNull(t)
		return testkit.Start(t, cmd)
	}
	p, stopped := start("full/block"), start("full/stopped")
	out := regexp.MustCompile("out of reach")
	p.Await(p.Stderr, out)
	stopped.Await(stopped.Stderr, out)
	checkSpools(t, h, 1<<20)
	stopped.Signal(syscall.SIGTERM) // the command's; the run ends soon after it, and says what is lost
	if code := stopped.WaitFor(time.Minute); code != 128+int(syscall.SIGTERM) || !strings.Contains(stopped.Stderr.String(), "were lost") {
		t.Errorf("exit code %d\n%s", code, stopped.Stderr)
	}
	select {
	case <-p.Done():
		t.Fatalf("the command was not held:\n%s", p.Stderr)
	default:
	}
	proxy.Accept()
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.Stderr)
	}
	h.Run("flush")
	if err := h.CompareCat("local/full/block/+/stdout", content.Reader()); err != nil {
		t.Error(err)
	}
}

func devNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// checkSpools checks that no spool takes more than it may.
func checkSpools(t *testing.T, h *testkit.House, limit int64) {
	t.Helper()
	spools, err := filepath.Glob(filepath.Join(h.Data, "spool", "*", "*"))
	if err != nil || len(spools) == 0 {
		t.Fatal("no spools: ", err)
	}
	for _, s := range spools {
		var size int64
		err := filepath.WalkDir(s, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					size += info.Size()
				}
			}
			return nil
		})
		if err != nil || size > limit || size == 0 {
			t.Errorf("%s has %d bytes, %v; at most %d are allowed", s, size, err, limit)
		}
	}
}

// A disk that takes no more, here a file that may not grow, changes nothing for the command. What is lost is told.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	cmd := h.Command()
	cmd.Args = []string{"-c", fmt.Sprintf(`ulimit -f 100; exec %s run --prefix disk -- sh -c 'head -c 3000000 /dev/urandom; exit 7'`, cmd.Path)}
	cmd.Path = "/bin/sh"
	p := testkit.Start(t, cmd)
	if code := p.Wait(); code != 7 || len(p.Stdout.String()) != 3_000_000 || !strings.Contains(p.Stderr.String(), "were lost") {
		t.Errorf("exit code %d, %d bytes\n%s", code, len(p.Stdout.String()), p.Stderr)
	}
	h.Run("flush") // what did fit
	if got := list(t, h, "local/disk"); len(got) != 2 {
		t.Errorf("streams %v", got)
	}
}
