//go:build linux

// Package sh holds the client library for shells. These are its tests: with several shells, and with each of the programs that
// connect for it, against a server that answers nothing.
package sh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/streamproto"
)

// shells are what the library promises to work with. tools/setup installs them all.
var shells = map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}, "bash": {"bash", "--posix"}}

// connectors are the programs that the library connects with.
var connectors = []string{"python3", "socat", "nc"}

type got struct {
	flags streamproto.Flags
	data  string
	err   error
}

// server takes streams, one after the other.
type server struct {
	address string
	streams chan got
	// begun, if there is one, gets the first bytes of data of each stream.
	begun chan string
	// refuse closes connections after the handshake.
	refuse bool
	// reply is to handshakes of version 2. Without it the server knows version 1 only.
	reply string
}

func startServer(t *testing.T, network, address string, s *server) *server {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
		if network == "tcp6" {
			address = "[::1]:0"
		}
		if network == "unix" {
			address = filepath.Join(shortDir(t), "s")
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s.address, s.streams = network+":"+l.Addr().String(), make(chan got, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if g := s.handle(conn); g != nil {
				s.streams <- *g
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return s
}

func (s *server) handle(conn net.Conn) *got {
	h, err := streamproto.ReadHandshake(conn)
	if err != nil {
		return &got{err: err}
	}
	if h.Version == 2 {
		if _, err := io.WriteString(conn, s.reply); err != nil {
			return &got{err: err}
		}
		if !strings.Contains(s.reply, "true") {
			return nil
		}
	}
	if s.refuse {
		return &got{flags: h.Flags}
	}
	first := make([]byte, 4096)
	n := 0
	if s.begun != nil {
		n, err = conn.Read(first)
		s.begun <- string(first[:n])
	}
	var rest []byte
	if err == nil {
		rest, err = io.ReadAll(conn)
	}
	return &got{h.Flags, string(first[:n]) + string(rest), err}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ld")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// result is what became of a script.
type result struct {
	code           int
	stdout, stderr string
}

// script returns a command that runs a script with the library.
func script(t *testing.T, shell []string, text string, env ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, shell[0], append(shell[1:len(shell):len(shell)], "-c", ". ./daybook-stream.sh\n"+text)...)
	for _, e := range append(os.Environ(), "PATH=/usr/bin:"+os.Getenv("PATH")) { // the system's Python starts the fastest
		if !strings.HasPrefix(e, "LOGDOG_") && !strings.HasPrefix(e, "DAYBOOK_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	return start(t, cmd)()
}

// start starts a command and returns what waits for it.
func start(t *testing.T, cmd *exec.Cmd) func() result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() result {
		err := cmd.Wait()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
}

func (s *server) env(via string) []string {
	return []string{"LOGDOG_STREAM_SERVER_PATH=" + s.address, "DAYBOOK_STREAM_VIA=" + via}
}

// want checks the next stream.
func (s *server) want(t *testing.T, flags streamproto.Flags, data string) {
	t.Helper()
	g := <-s.streams
	if diff := cmp.Diff(flags, g.flags); diff != "" || g.err != nil {
		t.Errorf("%v; header (-want +got):\n%s", g.err, diff)
	}
	if g.data != data {
		t.Errorf("the stream has %d bytes %.200q, want %d bytes %.200q", len(g.data), g.data, len(data), data)
	}
}

// each runs a test with every shell and connector.
func each(t *testing.T, f func(t *testing.T, shell []string, via string)) {
	for name, shell := range shells {
		for _, via := range connectors {
			t.Run(name+"/"+via, func(t *testing.T) { f(t, shell, via) })
		}
	}
}

func TestStreams(t *testing.T) {
	each(t, func(t *testing.T, shell []string, via string) {
		networks := []string{"unix"}
		if shell[0] == "dash" { // one is enough for what is no matter of shells
			networks = append(networks, "tcp4", "tcp6")
		}
		for _, network := range networks {
			s := startServer(t, network, "", &server{})
			r := run(t, script(t, shell, `
				daybook_tag 'k' 'v'
				daybook_text 'a/b' printf 'one\n two\000 \377'
				daybook_binary b printf 'bytes'
				printf 'from stdin' | daybook_text c
				daybook_tee d sh -c 'printf "both%s\n" ""; echo error >&2; exit 7' <<-end
				end
				echo "code $?"
				printf 'both, from stdin' | daybook_tee e
				daybook_text f true
				daybook_text f/2 cat <<-end
				input
				end
			`, append(s.env(via), "LOGDOG_NAMESPACE=ns")...))
			if diff := cmp.Diff(result{0, "both\ncode 7\nboth, from stdin", "error\n"}, r, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			tags := streamproto.TagMap{"k": "v"}
			s.want(t, streamproto.Flags{Name: "ns/a/b", Tags: tags}, "one\n two\000 \xff")
			s.want(t, streamproto.Flags{Name: "ns/b", Type: streamproto.Binary, Tags: tags}, "bytes")
			s.want(t, streamproto.Flags{Name: "ns/c", Tags: tags}, "from stdin")
			s.want(t, streamproto.Flags{Name: "ns/d", Tags: tags}, "both\n")
			s.want(t, streamproto.Flags{Name: "ns/e", Tags: tags}, "both, from stdin")
			s.want(t, streamproto.Flags{Name: "ns/f", Tags: tags}, "")
			s.want(t, streamproto.Flags{Name: "ns/f/2", Tags: tags}, "input\n")
		}
	})
}

func TestMuchData(t *testing.T) {
	want := strings.Repeat("a line of a very long log, as make writes them\n", 100_000)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, via := range connectors {
		s := startServer(t, "unix", "", &server{})
		r := run(t, script(t, shells["dash"], `daybook_tee log cat "$FILE"`, append(s.env(via), "FILE="+file)...))
		if r.code != 0 || r.stdout != want {
			t.Errorf("%s: code %d, %d bytes on standard output, %s", via, r.code, len(r.stdout), r.stderr)
		}
		s.want(t, streamproto.Flags{Name: "log"}, want)
	}
}

func TestTags(t *testing.T) {
	values := streamproto.TagMap{
		"empty": "", "quotes": `a "b" 'c' \d $e ` + "`f` $(g) %h !i", "lines": "\none\n\ntwo\n", "ends": "\n\n", "tab": "\t\r\x01\x1f\x7f",
		"utf8": "ünïcødé ✓", "json": `{"a":["b"]}`, "key.x-1:y/z": "  spaces  ", "star": "* ? [a]", "long": strings.Repeat("é", 2048),
	}
	all := maps.Clone(values)
	for i := range 40 { // more than fits into an argument of a command
		all[fmt.Sprint("much", i)] = strings.Repeat("v", 4096)
	}
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "unix", "", &server{})
			var text strings.Builder
			for k, v := range values {
				text.WriteString("daybook_tag '" + k + "' '" + strings.ReplaceAll(v, "'", `'\''`) + "'\n")
			}
			r := run(t, script(t, shell, "set -eu\n"+text.String()+`
				i=0
				while [ $i -lt 40 ]; do
					daybook_tag much$i "$MUCH"
					i=$((i + 1))
				done
				daybook_text n true
				DAYBOOK_STREAM_VIA=nc
				daybook_text n true
			`, append(s.env("python3"), "MUCH="+all["much0"])...))
			if r != (result{}) {
				t.Errorf("result %+v", r)
			}
			s.want(t, streamproto.Flags{Name: "n", Tags: all}, "")
			s.want(t, streamproto.Flags{Name: "n", Tags: all}, "")
		})
	}
}

// A script's own settings and variables hold for the commands of streams, and the library's are not seen.
func TestScriptsAreLeftAlone(t *testing.T) {
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "unix", "", &server{})
			r := run(t, script(t, shell, `
				set -eu
				IFS=,
				name=mine type=mine value=mine status=mine size=mine
				show() { echo "$name $type $value $status $size"; for a; do echo "<$a>"; done; }
				daybook_text args show 'a  b' '*' '' "c
d" '"$x"'
				stops() { echo before; false; echo after; }
				code=0
				(daybook_text errexit stops) || code=$?
				fails() { return 3; }
				if daybook_text if fails; then echo wrong; else echo "if $?"; fi
				daybook_text signal sh -c 'kill -TERM $$' || echo "signal $?"
				daybook_text missing /nonexistent 2>/dev/null || echo "missing $?"
				daybook_text exits exit 5 || echo "exits $?"
				exec 3>&1
				daybook_text third sh -c 'echo third >&3'
				echo "$name $type $value $status $size"
				daybook_text ends stops
				echo wrong
			`, s.env("python3")...))
			want := result{1, "if 3\nsignal 143\nmissing 127\nexits 5\nthird\nmine mine mine mine mine\n", ""}
			r.stderr = strings.TrimPrefix(r.stderr, "Terminated\n") // as some shells report signals
			if diff := cmp.Diff(want, r, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			s.want(t, streamproto.Flags{Name: "args"}, "mine mine mine mine mine\n<a  b>\n<*>\n<>\n<c\nd>\n<\"$x\">\n")
			if g := <-s.streams; g.data != "before\nafter\n" && g.data != "before\n" {
				t.Errorf("before || there is %q", g.data) // POSIX says the first; shells differ
			}
			for _, name := range []string{"if", "signal", "missing", "exits", "third"} {
				if g := <-s.streams; string(g.flags.Name) != name || g.data != "" {
					t.Errorf("stream %+v, want an empty %s", g, name)
				}
			}
			s.want(t, streamproto.Flags{Name: "ends"}, "before\n")
		})
	}
}

func TestOddSocketPath(t *testing.T) {
	for _, via := range connectors {
		s := startServer(t, "unix", filepath.Join(shortDir(t), `a b,c:d"e'f!g(h{i[j\k$l`), &server{})
		if r := run(t, script(t, shells["dash"], `daybook_text n echo data`, s.env(via)...)); r != (result{}) {
			t.Errorf("%s: result %+v", via, r)
		}
		s.want(t, streamproto.Flags{Name: "n"}, "data\n")
	}
}

// Whatever becomes of its stream, a command goes on.
func TestTrouble(t *testing.T) {
	each(t, func(t *testing.T, shell []string, via string) {
		s := startServer(t, "unix", "", &server{refuse: true})
		const text = `
			daybook_tee n sh -c 'head -c 1000000 /dev/zero | tr "\0" x; exit 3'
			echo "code $?"
		`
		r := run(t, script(t, shell, text, s.env(via)...))
		if r.code != 0 || r.stdout != strings.Repeat("x", 1_000_000)+"code 3\n" {
			t.Errorf("refused: code %d, %d bytes on standard output", r.code, len(r.stdout))
		}
		if !strings.Contains(r.stderr, "stream n: "+via+" could not bring everything") {
			t.Errorf("refused: standard error %q", r.stderr)
		}
		r = run(t, script(t, shell, text+"echo x | daybook_text n", "LOGDOG_STREAM_SERVER_PATH=unix:/nonexistent", "DAYBOOK_STREAM_VIA="+via))
		if r.code != 74 || r.stdout != strings.Repeat("x", 1_000_000)+"code 3\n" ||
			!strings.Contains(r.stderr, "could not bring everything to unix:/nonexistent") {
			t.Errorf("gone: code %d, %d bytes on standard output, standard error %q", r.code, len(r.stdout), r.stderr)
		}
	})
}

func TestReply(t *testing.T) {
	s := startServer(t, "unix", "", &server{reply: `{"accepted":true,"url":"u"}` + "\n"})
	if r := run(t, script(t, shells["dash"], `daybook_text n echo x`, s.env("python3")...)); r != (result{}) {
		t.Errorf("result %+v", r)
	}
	s.want(t, streamproto.Flags{Name: "n"}, "x\n")
	s = startServer(t, "unix", "", &server{reply: `{"accepted":false,"code":"exists","reason":"names are used once"}` + "\n"})
	r := run(t, script(t, shells["dash"], `daybook_tee n sh -c 'echo x; exit 3'`, s.env("python3")...))
	if r.code != 3 || r.stdout != "x\n" || !strings.Contains(r.stderr, "names are used once") {
		t.Errorf("result %+v", r)
	}
}

func TestRefusedInput(t *testing.T) {
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				text, want string
				code       int
				env        []string
			}{
				{"daybook_text n echo run", "start the script with 'daybook run'", 69, nil},
				{"daybook_text n echo run", "start the script with 'daybook run'", 69, []string{"LOGDOG_STREAM_SERVER_PATH="}},
				{"daybook_text n echo run", "do not know", 69, []string{"LOGDOG_STREAM_SERVER_PATH=net.pipe:x"}},
				{"daybook_text n echo run", "or socat, and of these nonesuch", 69, []string{"DAYBOOK_STREAM_VIA=nonesuch", "LOGDOG_STREAM_SERVER_PATH=unix:x"}},
				{"PATH=/nonexistent; daybook_text n echo run", "install it", 69, []string{"LOGDOG_STREAM_SERVER_PATH=unix:x"}},
				{"daybook_text", "usage", 64, []string{"LOGDOG_STREAM_SERVER_PATH=null"}},
				{"daybook_text n echo run", "stream name 'a b/n'", 64, []string{"LOGDOG_STREAM_SERVER_PATH=null", "LOGDOG_NAMESPACE=a b"}},
				{"daybook_tag k", "usage", 64, nil},
				{"daybook_tag 'a b' v", "tag name 'a b'", 64, nil},
				{"daybook_tag " + strings.Repeat("k", 65) + " v", "1 to 64", 64, nil},
				{"daybook_tag k " + strings.Repeat("v", 4097), "4096", 64, nil},
			} {
				r := run(t, script(t, shell, test.text, test.env...))
				if r.code != test.code || !strings.Contains(r.stderr, test.want) || r.stdout != "" {
					t.Errorf("%.50q: %+v, want code %d and %q", test.text, r, test.code, test.want)
				}
			}
			for _, bad := range []string{"", "/", "/a", "a/", "a//b", "-a", "a/.b", "a b", "ñ", "a\n", "a%", strings.Repeat("q", 4097)} {
				r := run(t, script(t, shell, "daybook_text '"+bad+"' echo run", "LOGDOG_STREAM_SERVER_PATH=null"))
				if r.code != 64 || r.stdout != "" {
					t.Errorf("name %.20q: %+v", bad, r)
				}
			}
			for _, good := range []string{"a", "0/a:b_c-d.e/Z", strings.Repeat("q", 4096)} {
				r := run(t, script(t, shell, "daybook_tee '"+good+"' echo run", "LOGDOG_STREAM_SERVER_PATH=null"))
				if r != (result{0, "run\n", ""}) {
					t.Errorf("name %.20q: %+v", good, r)
				}
			}
		})
	}
}

func TestByDaybook(t *testing.T) {
	bin := t.TempDir()
	const daybook = `#!/bin/sh
if [ "$2" = --help ]; then echo "  --name=NAME"; exit; fi
for a; do printf '<%s>' "$a"; done >>"$OUT"
cat >>"$OUT"
exit "$CODE"
`
	if err := os.WriteFile(filepath.Join(bin, "daybook"), []byte(daybook), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			for _, code := range []string{"0", "1"} {
				out := filepath.Join(t.TempDir(), "out")
				r := run(t, script(t, shell, `
					set -u
					daybook_tag a "it's
two \"lines\"
"
					daybook_tag b ''
					daybook_binary x/y sh -c 'echo data; exit 4'
				`, "PATH="+bin+":/usr/bin:"+os.Getenv("PATH"), "OUT="+out, "CODE="+code, "LOGDOG_STREAM_SERVER_PATH=unix:/s"))
				data, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				want := "<stream><--name=x/y><--type=binary><--tag=a=it's\ntwo \"lines\"\n><--tag=b=>data\n"
				if string(data) != want || r.code != 4 || (code == "1") != strings.Contains(r.stderr, "daybook could not") {
					t.Errorf("%+v; daybook got %q, want %q", r, data, want)
				}
			}
		})
	}
	// One that does not know the command is not used.
	if err := os.WriteFile(filepath.Join(bin, "daybook"), []byte("#!/bin/sh\necho no such command\nexit 80\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "unix", "", &server{})
	r := run(t, script(t, shells["dash"], "daybook_text n echo x", "PATH="+bin+":/usr/bin:"+os.Getenv("PATH"), s.env("")[0]))
	if r != (result{}) {
		t.Errorf("result %+v", r)
	}
	s.want(t, streamproto.Flags{Name: "n"}, "x\n")
}

func TestAsCommand(t *testing.T) {
	s := startServer(t, "unix", "", &server{})
	cmd := script(t, shells["dash"], "")
	cmd.Args = []string{"dash", "./daybook-stream.sh", "tee", "n", "echo", "x"}
	cmd.Env = append(cmd.Env, s.env("python3")...)
	if r := run(t, cmd); r != (result{0, "x\n", ""}) {
		t.Errorf("result %+v", r)
	}
	s.want(t, streamproto.Flags{Name: "n"}, "x\n")
	cmd = script(t, shells["dash"], "")
	cmd.Args = []string{"dash", "./daybook-stream.sh"}
	if r := run(t, cmd); r.code != 64 || !strings.Contains(r.stderr, "usage") {
		t.Errorf("result %+v", r)
	}
}

// The interrupt key reaches everybody. What the command says to it has to arrive.
func TestInterrupt(t *testing.T) {
	for _, via := range connectors {
		s := startServer(t, "unix", "", &server{begun: make(chan string, 1)})
		cmd := script(t, shells["dash"], `trap : INT; daybook_tee n sh -c 'trap "echo bye; exit 9" INT; echo ready; while :; do read -r _; done'; exit $?`,
			s.env(via)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		wait := start(t, cmd)
		if first := <-s.begun; first != "ready\n" {
			t.Errorf("the stream begins with %q", first)
		}
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		want := result{9, "ready\nbye\n", ""}
		r, g := wait(), <-s.streams
		if via == "socat" { // insists on its own way
			want.stderr, g.data = r.stderr, want.stdout
		}
		if r != want || g.data != want.stdout {
			t.Errorf("%s: result %+v, and the stream has %q", via, r, g.data)
		}
		stdin.Close()
	}
}
