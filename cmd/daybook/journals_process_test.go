//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// shop is a server and a shell beside it: real processes, all of the program.
type shop struct {
	*testkit.House
	t      *testing.T
	server *testkit.Server
}

func newShop(t *testing.T) *shop {
	t.Helper()
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{House: testkit.NewHouseOf(t, bin), t: t}
	s.Setenv(asProgram, "1")
	s.server = s.Serve()
	return s
}

func (s *shop) command(stdin string, args ...string) testkit.Command {
	c := s.Command(append([]string{"journals"}, args...)...)
	if stdin != "" {
		c.Stdin = strings.NewReader(stdin)
	}
	return c
}

// journals runs a command to its end and checks its exit code.
func (s *shop) journals(code int, stdin string, args ...string) (stdout, stderr string) {
	s.t.Helper()
	p := testkit.Start(s.t, s.command(stdin, args...))
	if got := p.Wait(); got != code {
		s.t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, p.Stdout, p.Stderr)
	}
	return p.Stdout.String(), p.Stderr.String()
}

// says runs a command that has to fail with a code and a text.
func (s *shop) says(code int, want, stdin string, args ...string) {
	s.t.Helper()
	if _, stderr := s.journals(code, stdin, args...); !strings.Contains(stderr, want) {
		s.t.Errorf("%q says:\n%swant:\n%s", args, stderr, want)
	}
}

// create makes journals that are kept in the directory store.
func (s *shop) create(names ...string) {
	s.t.Helper()
	s.createIn("['file:///']", names...)
}

func (s *shop) createIn(stores string, names ...string) {
	s.t.Helper()
	specs := "replication: 1\nfragment: {length: 65536, compression_codec: GZIP, stores: " + stores + ", refresh_interval: 1h}\nchildren:\n"
	for _, n := range names {
		specs += "- name: " + n + "\n"
	}
	s.journals(0, specs, "apply")
}

func (s *shop) read(args ...string) string {
	s.t.Helper()
	out, _ := s.journals(0, "", append([]string{"read"}, args...)...)
	return out
}

// storedFiles returns the files of a journal in the directory store.
func (s *shop) storedFiles(journal string) []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Data, "fragments", filepath.FromSlash(journal), "*.gz"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// awaitStored asks for the fragments of a journal until all are in the store, and returns their number.
func (s *shop) awaitStored(journal string) int {
	s.t.Helper()
	for deadline := time.Now().Add(testkit.Patience); ; {
		out, _ := s.journals(0, "", "fragments", "-l", "name="+journal, "-o", "json")
		lines, stored := strings.Split(strings.TrimSpace(out), "\n"), 0
		for _, l := range lines {
			var f jsonFragment
			if err := json.Unmarshal([]byte(l), &f); err != nil {
				s.t.Fatalf("%v: %q", err, l)
			}
			if f.Spec.BackingStore != "" && f.Spec.ModTime != 0 {
				stored++
			}
		}
		if stored == len(lines) {
			return stored
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not stored:\n%s", out)
		}
	}
}

func TestJournalInAStore(t *testing.T) {
	s := newShop(t)
	s.create("acme/orders", "acme/clicks")
	one := []string{"-l", "name=acme/orders"}
	with := func(command string, args ...string) []string {
		return append(append([]string{command}, one...), args...)
	}
	var content strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&content, "%d\n", i)
	}
	s.journals(0, content.String(), with("append", "-f", "lines")...)
	if out, _ := s.journals(0, "", with("suspend")...); !strings.Contains(out, "not suspended") {
		t.Errorf("suspend of a journal in use: %q", out)
	}
	if out, _ := s.journals(0, "", with("suspend", "--force")...); out != "acme/orders: suspended\n" {
		t.Errorf("suspend: %q", out)
	}
	if out, _ := s.journals(0, "", with("list", "-p", "--rf", "--stores", "-r")...); !regexp.MustCompile(`acme/orders +1 +daybook <S> +daybook +file:///\n`).MatchString(out) {
		t.Errorf("list: %q", out)
	}
	if n := s.awaitStored("acme/orders"); n < 2 || n != len(s.storedFiles("acme/orders")) {
		t.Errorf("%d fragments, files %q", n, s.storedFiles("acme/orders"))
	}
	if got := s.read(one...); got != content.String() {
		t.Errorf("read %d bytes, want %d", len(got), content.Len())
	}
	if got := s.read(append(one, "--direct", "--offset", "100", "--end", "200000")...); got != content.String()[100:200_000] {
		t.Errorf("read %d bytes of a part", len(got))
	}
	if out, _ := s.journals(0, "", with("fragments", "--url-ttl", "1m")...); !strings.Contains(out, "file:///acme/orders/0000000000000000-") || !strings.HasPrefix(out, "JOURNAL") {
		t.Errorf("fragments: %q", out)
	}
	if out, _ := s.journals(0, "", with("fragments", "--to", "1h")...); strings.Count(out, "\n") != 1 {
		t.Errorf("fragments of before: %q", out)
	}
	if got := s.read(append(one, "--from", "1h ago")...); got != content.String() {
		t.Errorf("read %d bytes of the last hour", len(got))
	}

	// The store fails and returns.
	if out, _ := s.journals(0, "", "store-health", "file:///", "--check-delete-prefix", "x/"); out != "file:/// is healthy\n" {
		t.Errorf("store-health: %q", out)
	}
	fragments := filepath.Join(s.Data, "fragments")
	if err := os.Rename(fragments, fragments+".away"); err != nil {
		t.Fatal(err)
	}
	s.says(1, "file:/// is not healthy: ", "", "store-health", "file:///", "--check-delete-prefix", "x/")
	if err := os.Rename(fragments+".away", fragments); err != nil {
		t.Fatal(err)
	}
	s.says(1, "no journal", "", "store-health", "file:///other/")
	s.says(2, `unknown scheme "http"`, "", "store-health", "http://x/")

	// Nothing is pruned without a retention, before it is over, or by a dry run.
	files := s.storedFiles("acme/orders")
	for _, c := range []struct{ retention, summary string }{
		{"0s", "0 fragments with 0 B of content deleted; 1 journal without retention kept"},
		{"1h", "0 fragments with 0 B of content deleted\n"},
	} {
		s.retain("acme/orders", c.retention)
		s.says(0, c.summary, "", with("prune")...)
	}
	s.retain("acme/orders", "1ns")
	out, stderr := s.journals(0, "", with("prune", "--dry-run")...)
	if strings.Count(out, "\n") != len(files) || !strings.Contains(stderr, fmt.Sprintf("%d fragments with 349 kB of content to be deleted", len(files))) {
		t.Errorf("dry run: %q, %q", out, stderr)
	}
	if now := s.storedFiles("acme/orders"); len(now) != len(files) {
		t.Errorf("a dry run left %q", now)
	}
	if again, _ := s.journals(0, "", with("prune")...); again != out {
		t.Errorf("deleted %q, announced %q", again, out)
	}
	if left := s.storedFiles("acme/orders"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}

	// The next start finds nothing in the store; the journal goes on behind what it had.
	s.server.Stop(testkit.Patience)
	s.server.Restart()
	end := content.Len()
	gone := fmt.Sprintf("acme/orders: offsets 0 to %d are not there", end)
	s.says(0, gone, "", with("read")...)
	if out, _ := s.journals(0, "", with("reset-head")...); !strings.Contains(out, fmt.Sprintf("acme/orders: goes on at offset %d\n", end)) {
		t.Errorf("reset-head: %q", out)
	}
	s.journals(0, "more\n", with("append")...)
	out, stderr = s.journals(0, "", with("read")...)
	if out != "more\n" || !strings.Contains(stderr, gone) {
		t.Errorf("read %q, %q", out, stderr)
	}
	s.says(0, "ends at offset", "", with("read", "--offset", "99999999")...)
}

// retain sets the retention of a journal, as list and apply do it together.
func (s *shop) retain(journal, retention string) {
	s.t.Helper()
	specs, _ := s.journals(0, "", "list", "-l", "name="+journal, "-o", "yaml")
	specs = regexp.MustCompile(`\n  retention: \S+`).ReplaceAllString(specs, "")
	s.journals(0, strings.Replace(specs, "fragment:", "fragment:\n  retention: "+retention, 1), "apply")
}

func TestJournalsFollow(t *testing.T) {
	s := newShop(t)
	s.createIn("[]", "f/first", "f/other")
	s.journals(0, "before\n", "append", "-l", "name=f/first")
	offsets := filepath.Join(t.TempDir(), "offsets")
	f := testkit.Start(t, s.command("", "read", "-l", "name:prefix=f/", "--tail", "--follow", "--offsets-out", offsets))
	// It tells nothing of when it has begun, but a journal that comes later is read from its beginning.
	s.createIn("[]", "f/signal", "f/later")
	s.journals(0, "signal\n", "append", "-l", "name=f/signal")
	f.Await(f.Stdout, regexp.MustCompile("signal\n"))
	s.journals(0, "after\n", "append", "-l", "name=f/first")
	s.journals(0, "early\n", "append", "-l", "name=f/later")
	f.Await(f.Stdout, regexp.MustCompile("after\n"))
	f.Await(f.Stdout, regexp.MustCompile("early\n"))

	// A journal that is made again is another one.
	s.journals(0, "name: f/later\ndelete: true\nrevision: -1\n", "apply")
	f.Await(f.Stderr, regexp.MustCompile("f/later is gone"))
	s.createIn("[]", "f/later")
	s.journals(0, "reborn\n", "append", "-l", "name=f/later")
	f.Await(f.Stdout, regexp.MustCompile("reborn\n"))

	// The server may go and come back.
	s.server.Stop(testkit.Patience)
	s.server.Restart()
	s.journals(0, "again\n", "append", "-l", "name=f/first")
	f.Await(f.Stdout, regexp.MustCompile("again\n"))

	f.Signal(syscall.SIGINT)
	if code := f.Wait(); code != 0 {
		t.Errorf("interrupted: exit code %d\n%s", code, f.Stderr)
	}
	if strings.Contains(f.Stdout.String(), "before") {
		t.Errorf("read %q", f.Stdout)
	}
	var next map[string]int64
	if b, err := os.ReadFile(offsets); err != nil || json.Unmarshal(b, &next) != nil || next["f/first"] != 19 || next["f/later"] != 7 {
		t.Errorf("%v: %v", next, err)
	}
	if got := s.read("-l", "name:prefix=f/", "--offsets", offsets); got != "" {
		t.Errorf("read again: %q", got)
	}
	s.says(1, `no journal matches "name=f/none"`, "", "read", "-l", "name=f/none")
	s.says(2, "selector cannot be parsed", "", "read", "-l", "name in (")
}

// A store keeps what a deleted journal had, and whoever makes it again is told.
func TestJournalIsMadeAgain(t *testing.T) {
	s := newShop(t)
	s.create("a/journal")
	s.journals(0, "before\n", "append", "-l", "name=a/journal")
	s.journals(0, "", "suspend", "-l", "name=a/journal", "--force")
	s.awaitStored("a/journal")
	s.journals(0, "name: a/journal\ndelete: true\nrevision: -1\n", "apply")
	s.create("a/journal")
	for _, framing := range []string{"none", "lines"} {
		s.says(1, "INDEX_HAS_GREATER_OFFSET: its stores have more than the brokers know of", "after\n", "append", "-l", "name=a/journal", "-f", framing)
	}
	if out, _ := s.journals(0, "", "reset-head", "-l", "name=a/journal"); out != "a/journal: goes on at offset 7\n" {
		t.Errorf("reset-head: %q", out)
	}
	s.journals(0, "after\n", "append", "-l", "name=a/journal")
	if got := s.read("-l", "name=a/journal"); got != "before\nafter\n" {
		t.Errorf("read %q", got)
	}
}

func TestAppendIsInterrupted(t *testing.T) {
	s := newShop(t)
	s.create("i/lines", "i/whole")
	f := testkit.Start(t, s.command("", "read", "-l", "name=i/lines", "--follow"))
	start := func(args ...string) (*testkit.Process, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() // The process has its own.
		t.Cleanup(func() { _ = w.Close() })
		c := s.command("", append([]string{"append"}, args...)...)
		c.Stdin = r
		return testkit.Start(t, c), w
	}
	lines, w := start("-l", "name=i/lines", "--framing", "lines")
	if _, err := io.WriteString(w, "one\ntwo\nunfin"); err != nil {
		t.Fatal(err)
	}
	f.Await(f.Stdout, regexp.MustCompile("one\ntwo\n"))
	lines.Signal(syscall.SIGINT)
	if code := lines.Wait(); code != 1 || !strings.Contains(lines.Stderr.String(), "interrupted before the end of the input; appended: 2 records with 8 B") {
		t.Errorf("exit code %d\n%s", code, lines.Stderr)
	}

	// Of a whole input that was not complete there is nothing. Once it has the end of a line, it has begun to read.
	whole, w := start("-l", "name=i/whole")
	if _, err := w.Write(make([]byte, 4<<20)); err != nil { // More than a pipe holds.
		t.Fatal(err)
	}
	whole.Signal(syscall.SIGINT)
	if code := whole.Wait(); code != 1 || !strings.Contains(whole.Stderr.String(), "nothing was appended: interrupted") {
		t.Errorf("exit code %d\n%s", code, whole.Stderr)
	}
	if got := s.read("-l", "name=i/whole"); got != "" {
		t.Errorf("read %d bytes", len(got))
	}

	s.says(2, "the last line, of 1 B, has no end, so it may have been cut off; end it to append it; appended: 2 records with 4 B",
		"a\nb\nc", "append", "-l", "name=i/lines", "--framing", "lines")
	s.says(2, "the last frame is not complete; appended: 1 record with 9 B", frame("x")+"f3", "append", "-l", "name=i/lines", "--framing", "fixed")
	s.says(1, `journal "i/none" is not among those selected; appended: 1 record with 2 B`,
		"i/lines\nx\ni/none\ny\n", "append", "-l", "name:prefix=i/", "--framing", "lines", "--mapping", "direct")
	s.says(1, "no journal matches", "x", "append", "-l", "name=i/none")
	if got := s.read("-l", "name=i/lines"); got != "one\ntwo\na\nb\n"+frame("x")+"x\n" {
		t.Errorf("read %q", got)
	}
}

// What is appended and read passes through memory in pieces, which the full size shows, and a reader that goes ends quietly.
func TestLargeAppend(t *testing.T) {
	s := newShop(t)
	s.create("big/journal")
	size, most := int64(48<<20), int64(1<<40)
	if os.Getenv("DAYBOOK_TEST_LARGE") != "" {
		size, most = 3<<30, 192<<20
	}
	content := testkit.Content{Kind: testkit.Lines, Seed: 1, Size: size}
	c := s.command("", "append", "-l", "name=big/journal")
	c.Stdin = content.Reader()
	p := testkit.Start(t, c)
	if code := p.Wait(); code != 0 || p.Stderr.String() != "" || p.PeakMemory() > most {
		t.Fatalf("append: exit code %d, %d MiB\n%s", code, p.PeakMemory()>>20, p.Stderr)
	}
	read := func() (*testkit.Process, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		c := s.command("", "read", "-l", "name=big/journal")
		c.Stdout = w
		p := testkit.Start(t, c)
		_ = w.Close() // The process has its own.
		return p, r
	}
	p, r := read()
	if err := testkit.Compare(content.Reader(), r); err != nil {
		t.Error(err)
	}
	if code := p.Wait(); code != 0 || p.Stderr.String() != "" || p.PeakMemory() > most {
		t.Errorf("read: exit code %d, %d MiB\n%s", code, p.PeakMemory()>>20, p.Stderr)
	}
	p, r = read()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	_ = r.Close()
	if code := p.Wait(); code != 128+int(syscall.SIGPIPE) || p.Stderr.String() != "" {
		t.Errorf("broken pipe: exit code %d\n%s", code, p.Stderr)
	}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		defer full.Close()
		c := s.command("", "read", "-l", "name=big/journal")
		c.Stdout = full
		p := testkit.Start(t, c)
		if code := p.Wait(); code != 1 || !strings.Contains(p.Stderr.String(), "no space left") {
			t.Errorf("full disk: exit code %d\n%s", code, p.Stderr)
		}
	}
}

func TestJournalsEdit(t *testing.T) {
	s := newShop(t)
	s.create("e/journal", "e/other")
	temp := t.TempDir()
	s.Setenv("TMPDIR", temp)
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(code int, editor, want string) {
		t.Helper()
		s.Setenv("EDITOR", editor)
		out, stderr := s.journals(code, "", "edit", "-l", "name:prefix=e/")
		if !strings.Contains(out+stderr, want) {
			t.Errorf("%s: %q, %q; want %q", editor, out, stderr, want)
		}
		kept := regexp.MustCompile(`your text is in (\S+?\.yaml)`).FindStringSubmatch(stderr)
		if files, _ := filepath.Glob(temp + "/daybook-journals-edit-*"); len(files) != 0 {
			if kept == nil || files[0] != kept[1] {
				t.Errorf("%s: files %q, told %q", editor, files, kept)
			}
			if b, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(b), "SNAPPY") {
				t.Errorf("%s: kept %q, %v", editor, b, err)
			}
			_ = os.Remove(files[0])
		} else if kept != nil {
			t.Errorf("%s: %s is not there", editor, kept[1])
		}
	}
	snappy := func(then string) string {
		return `f() { sed s/GZIP/SNAPPY/ "$1" >"$1.new" && cat "$1.new" >"$1" && rm "$1.new"; ` + then + `; }; f`
	}
	edit(0, "true", "nothing was changed")
	edit(0, "cp /dev/null", "nothing was changed")
	edit(1, "false", `nothing was changed: run the editor "false"`)
	edit(1, snappy("false"), "exit status 1; your text is in")
	edit(2, snappy(`grep -q bogus "$1" || echo 'bogus: 1' >>"$1"`), `there is no key "bogus"; your text is in`)
	edit(1, snappy(`printf 'name: e/journal\ndelete: true\nrevision: -1\n' | '`+bin+`' journals apply`), "e/journal does not exist; the file says revision")
	s.create("e/journal")
	edit(0, snappy("true"), "2 changed, at revision")
	if out, _ := s.journals(0, "", "list", "-l", "name:prefix=e/", "-o", "yaml"); !strings.Contains(out, "SNAPPY") {
		t.Errorf("list: %s", out)
	}
}

// The bar is drawn on a terminal only, and leaves nothing there.
func TestJournalsProgress(t *testing.T) {
	s := newShop(t)
	s.create("p/journal")
	s.journals(0, "content\n", "append", "-l", "name=p/journal")
	master, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	screen := testkit.NewOutput()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(screen, master)
	}()
	c := s.command("", "read", "-l", "name=p/journal", "--follow")
	c.Stderr = terminal
	p := testkit.Start(t, c)
	_ = terminal.Close() // The process has its own.
	p.Await(screen, regexp.MustCompile(`100% of 8 B, \d+ B/s *\r`))
	s.journals(0, "name: p/journal\ndelete: true\nrevision: -1\n", "apply")
	p.Await(screen, regexp.MustCompile(`[\r\n] +\rdaybook: p/journal is gone, [^\n]*\n`))
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 || p.Stdout.String() != "content\n" {
		t.Errorf("exit code %d, printed %q", code, p.Stdout)
	}
	_ = master.Close()
	<-copied
	if out := screen.String(); !strings.HasSuffix(out, "\r") && !strings.HasSuffix(out, "\n") {
		t.Errorf("left on the screen: %q", out)
	}
}
