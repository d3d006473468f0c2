//go:build linux

// Package clients holds client libraries for other languages. These tests drive them, and the one for Go, together with a
// Butler.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/bootstrap"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/butler/streamserver"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamclient"
	"github.com/daybook-dev/daybook/streamproto"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var networks = map[string]string{"unix": "", "tcp4": "tcp4:"}

// host is a Butler with a server.
type host struct {
	out    memory.Output
	butler *butler.Butler
	env    bootstrap.Environment

	secrets redact.Set

	mu       sync.Mutex
	redacted []string
}

func startHost(t *testing.T, address string) *host {
	t.Helper()
	h := new(host)
	server, err := streamserver.Listen(address, streamserver.Config{Redact: func(value string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.redacted = append(h.redacted, value)
		return h.secrets.Add(value)
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.env = bootstrap.New(server.Address(), h.out.URLConstructionEnv())
	if h.butler, err = butler.New(context.Background(), butler.Config{Output: &h.out, Redact: &h.secrets}); err != nil {
		t.Fatal(err)
	}
	h.butler.AddStreamServer(server)
	t.Cleanup(h.butler.Activate)
	return h
}

// finish ends the Butler when all streams have ended.
func (h *host) finish(t *testing.T) {
	t.Helper()
	h.butler.Activate()
	if err := h.butler.Wait(); err != nil {
		t.Error(err)
	}
}

// want checks a whole stream.
func (h *host) want(t *testing.T, flags streamproto.Flags, data []byte, datagrams ...[]byte) {
	t.Helper()
	s := h.out.Stream(flags.Name)
	if s == nil {
		t.Errorf("there is no stream %s", flags.Name)
		return
	}
	want := flags.Descriptor()
	if s.Desc.GetStreamType() != want.GetStreamType() || s.Desc.GetContentType() != want.GetContentType() {
		t.Errorf("stream %s: %v", flags.Name, s.Desc)
	}
	if diff := cmp.Diff(map[string]string(flags.Tags), s.Desc.GetTags()); diff != "" {
		t.Errorf("stream %s: tags (-want +got):\n%s", flags.Name, diff)
	}
	if !bytes.Equal(s.Data, data) {
		t.Errorf("stream %s has %d bytes %.100q, want %d bytes %.100q", flags.Name, len(s.Data), s.Data, len(data), data)
	}
	if !slices.EqualFunc(s.Datagrams, datagrams, bytes.Equal) {
		t.Errorf("stream %s: its %d datagrams are not the %d that were sent", flags.Name, len(s.Datagrams), len(datagrams))
	}
	if s.Terminal != 1 {
		t.Errorf("stream %s ended %d times", flags.Name, s.Terminal)
	}
}

// run runs a program below the Butler.
func (h *host) run(t *testing.T, env []string, command string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	e := h.env
	e.Namespace = "ns"
	cmd.Env = append(e.Apply(os.Environ()), append(env, "PYTHONPATH="+absolute(t, "python"), "PYTHONDONTWRITEBYTECODE=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// text has line ends of all kinds, bytes that are no text, and no end of its last line.
var text = slices.Concat(
	bytes.Repeat([]byte("one line of several, as programs print them\n"), 20_000), []byte("cr\r\nno text \xff\xfe\n\n\r\r\nend"),
)

// binary are all bytes, many times.
var binary = func() []byte {
	var b []byte
	for i := range 300_000 {
		b = append(b, byte(i), byte(i>>8))
	}
	return b
}()

var datagrams = [][]byte{[]byte("one"), {}, binary[:127], binary[:128], binary}

var tags = streamproto.TagMap{"k": "v <&> \"ü\"", "empty": ""}

// files puts what is sent where programs in other languages find it.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"text": text, "binary": binary} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGo(t *testing.T) {
	for network, address := range networks {
		t.Run(network, func(t *testing.T) {
			h := startHost(t, address)
			client, err := streamclient.New(h.env.Address, "ns")
			if err != nil {
				t.Fatal(err)
			}
			for name, opts := range map[types.StreamName][]streamclient.Option{"v1": nil, "v2": {streamclient.Confirm(nil)}} {
				write := func(w interface {
					Write([]byte) (int, error)
					Close() error
				}, err error, data []byte,
				) {
					if err == nil {
						_, err = w.Write(data)
					}
					if err == nil {
						err = w.Close()
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				opts = append(opts, streamclient.WithTagMap(tags))
				w, err := client.NewStream(t.Context(), name+"/text", opts...)
				write(w, err, text)
				w, err = client.NewStream(t.Context(), name+"/empty", opts...)
				write(w, err, nil)
				w, err = client.NewStream(t.Context(), name+"/binary", append(opts, streamclient.Binary(), streamclient.WithContentType("a/b"))...)
				write(w, err, binary)
				d, err := client.NewDatagramStream(t.Context(), name+"/datagrams", opts...)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range datagrams {
					if err := d.SendDatagram(b); err != nil {
						t.Fatal(err)
					}
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
			var refused *streamproto.RefusedError
			_, err = client.NewStream(t.Context(), "v2/text", streamclient.Confirm(nil))
			if !errors.As(err, &refused) || refused.Code != streamproto.Exists {
				t.Errorf("a name was used twice: %v", err)
			}
			if err := client.AddRedaction(t.Context(), "value", "\x00\xff\n1"); err != nil {
				t.Error(err)
			}
			h.finish(t)
			h.wantAll(t, "ns/v1", "ns/v2")
			if diff := cmp.Diff([]string{"value", "\x00\xff\n1"}, h.redacted); diff != "" {
				t.Errorf("redactions (-want +got):\n%s", diff)
			}
			if _, err := client.NewStream(t.Context(), "late"); err == nil {
				t.Error("a Butler that has ended took a stream")
			}
		})
	}
}

// wantAll checks the streams that every client for programs has opened.
func (h *host) wantAll(t *testing.T, namespaces ...types.StreamName) {
	t.Helper()
	for _, ns := range namespaces {
		h.want(t, streamproto.Flags{Name: ns + "/text", Tags: tags}, text)
		h.want(t, streamproto.Flags{Name: ns + "/empty", Tags: tags}, nil)
		h.want(t, streamproto.Flags{Name: ns + "/binary", Type: streamproto.Binary, ContentType: "a/b", Tags: tags}, binary)
		h.want(t, streamproto.Flags{Name: ns + "/datagrams", Type: streamproto.Datagram, Tags: tags}, nil, datagrams...)
	}
}

const pythonStreams = `
import json, os, sys
import daybook_stream as d

dir, tags = sys.argv[1], json.loads(sys.argv[2])
text, binary = (open(os.path.join(dir, name), "rb").read() for name in ("text", "binary"))
for name, options in (("v1", {}), ("v2", {"confirm": True})):
    options["tags"] = tags
    with d.open_text(name + "/text", **options) as s:
        s.write(text.decode("utf-8", "surrogateescape"))
    d.open_text(name + "/empty", **options).close()
    with d.open_binary(name + "/binary", content_type="a/b", **options) as s:
        s.write(binary)
    with d.open_datagram(name + "/datagrams", **options) as s:
        for b in (b"one", b"", binary[:127], binary[:128], binary):
            s.send(b)
try:
    d.open_text("v2/text", confirm=True)
except d.Refused as e:
    print(e.code)
d.add_redaction("value", b"\x00\xff\n1")
`

func TestPython(t *testing.T) {
	asJSON, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	for network, address := range networks {
		t.Run(network, func(t *testing.T) {
			h := startHost(t, address)
			if out := h.run(t, nil, "python3", "-c", pythonStreams, files(t), string(asJSON)); out != "exists\n" {
				t.Errorf("the program printed %q", out)
			}
			h.finish(t)
			h.wantAll(t, "ns/v1", "ns/v2")
			if diff := cmp.Diff([]string{"value", "\x00\xff\n1"}, h.redacted); diff != "" {
				t.Errorf("redactions (-want +got):\n%s", diff)
			}
		})
	}
}

const shellStreams = `
set -eu
. sh/daybook-stream.sh
daybook_text "$1/untagged" echo data
daybook_tag k 'v <&> "ü"'
daybook_tag empty ''
daybook_text "$1/text" cat "$DIR/text"
daybook_text "$1/empty" :
daybook_binary "$1/binary" <"$DIR/binary"
code=0
daybook_tee "$1/tee" sh -c 'echo both; exit 7' || code=$?
echo "code $code"
`

func TestShell(t *testing.T) {
	dir := files(t)
	path := "PATH=" + filepath.Dir(testkit.Binary(t)) + ":" + os.Getenv("PATH")
	for network, address := range networks {
		t.Run(network, func(t *testing.T) {
			h := startHost(t, address)
			connectors := []string{"daybook", "python3", "nc", "socat"}
			for _, via := range connectors {
				out := h.run(t, []string{path, "DIR=" + dir, "DAYBOOK_STREAM_VIA=" + via}, "dash", "-c", shellStreams, "dash", via)
				if out != "both\ncode 7\n" {
					t.Errorf("%s: the script printed %q", via, out)
				}
			}
			h.finish(t)
			for _, via := range connectors {
				ns := types.StreamName("ns/" + via)
				h.want(t, streamproto.Flags{Name: ns + "/untagged"}, []byte("data\n"))
				h.want(t, streamproto.Flags{Name: ns + "/text", Tags: tags}, text)
				h.want(t, streamproto.Flags{Name: ns + "/empty", Tags: tags}, nil)
				h.want(t, streamproto.Flags{Name: ns + "/binary", Type: streamproto.Binary, Tags: tags}, binary)
				h.want(t, streamproto.Flags{Name: ns + "/tee", Tags: tags}, []byte("both\n"))
			}
		})
	}
}

// A value that a program has added is in no stream, however it is written, and whoever writes it.
func TestRedaction(t *testing.T) {
	h := startHost(t, "")
	client, err := streamclient.New(h.env.Address, "go")
	if err != nil {
		t.Fatal(err)
	}
	before, err := client.NewStream(t.Context(), "before")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.AddRedaction(t.Context(), "hunter22"); err != nil {
		t.Fatal(err)
	}
	h.run(t, nil, "python3", "-c", "import daybook_stream\ndaybook_stream.add_redaction('s3cr3t')")
	for _, piece := range []string{"a hun", "ter22, an s3cr", "3t\n"} {
		if _, err := before.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	h.run(t, nil, "python3", "-c", "import daybook_stream\ndaybook_stream.open_text('out').write('a hunter22, an s3cr3t\\n')")
	h.finish(t)
	want := "a " + redact.Mask + ", an " + redact.Mask + "\n"
	for _, name := range []types.StreamName{"go/before", "ns/out"} {
		s := h.out.Stream(name)
		if s == nil || string(s.Data) != want {
			t.Errorf("stream %s is %+v, want %q", name, s, want)
		}
	}
}

// burst is how many streams a program opens just before it exits.
const burst = 1000

func TestBurstBeforeTheEnd(t *testing.T) {
	const script = `
import daybook_stream, os, sys
client = daybook_stream.Client.from_environment()
streams = []
for i in range(int(sys.argv[1])):
    s = client.open_text("s{}".format(i))
    s.write("line of {}\n".format(i))
    s.close()
os._exit(0)
`
	h := startHost(t, "")
	h.run(t, nil, "python3", "-c", script, fmt.Sprint(burst))
	h.finish(t)
	for i := range burst {
		h.want(t, streamproto.Flags{Name: types.StreamName(fmt.Sprint("ns/s", i))}, fmt.Appendf(nil, "line of %d\n", i))
	}
	if n := len(h.out.Streams()); n != burst {
		t.Errorf("there are %d streams, want %d", n, burst)
	}
}

// A Butler in this process, without a socket.
func TestLoopback(t *testing.T) {
	h := startHost(t, "")
	client := streamclient.NewLoopback(h.butler, "ns")
	w, err := client.NewStream(t.Context(), "text")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.NewStream(t.Context(), "text"); err == nil || !strings.Contains(err.Error(), "duplicate") {
		t.Errorf("a name was used twice: %v", err)
	}
	h.finish(t)
	h.want(t, streamproto.Flags{Name: "ns/text"}, text)
	if got := h.out.Stream("ns/text").Desc.GetStreamType(); got != logpb.StreamType_TEXT {
		t.Errorf("type %v", got)
	}
}
