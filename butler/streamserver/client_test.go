//go:build unix

package streamserver

import (
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/bootstrap"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamclient"
	"github.com/daybook-dev/daybook/streamproto"
)

// paged is an output with pages.
type paged struct{ memory.Output }

func (*paged) URLConstructionEnv() output.Environment {
	return output.Environment{CoordinatorHost: "127.0.0.1:8412", Project: "proj", Prefix: "a/b"}
}

// TestClient is a program that finds its Butler by the environment, and does with it all that one can.
func TestClient(t *testing.T) {
	for _, address := range []string{"", "tcp4:"} {
		secrets := new(redact.Set)
		s, err := Listen(address, Config{Redact: secrets.Add})
		if err != nil {
			t.Fatal(err)
		}
		out := new(paged)
		b, err := butler.New(t.Context(), butler.Config{
			Output: out, BufferLogs: true, MaxBufferAge: time.Millisecond, Redact: secrets,
		})
		if err != nil {
			t.Fatal(err)
		}
		b.AddStreamServer(s)
		said := bootstrap.New(s.Address(), out.URLConstructionEnv())
		said.Namespace = "ns"
		for _, kv := range said.Apply(nil) {
			name, value, _ := strings.Cut(kv, "=")
			t.Setenv(name, value)
		}

		env, err := streamclient.FromEnvironment()
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		var url string
		text, err := env.Client.NewStream(ctx, "text", streamclient.Confirm(&url), streamclient.WithTags("k", "v"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "http://127.0.0.1:8412/logs/proj/a/b/+/ns/text"; url != want {
			t.Errorf("%s, want %s", url, want)
		}
		if _, err := env.Client.NewStream(ctx, "text", streamclient.Confirm(nil)); !refusedWith(err, streamproto.Exists) {
			t.Errorf("a name that was used: %v", err)
		}
		write := func(w io.WriteCloser, data string) {
			t.Helper()
			if _, err := io.WriteString(w, data); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		// A stream that is open already is redacted too.
		if err := env.Client.AddRedaction(ctx, "hunter22", "another one"); err != nil {
			t.Error(err)
		}
		if err := env.Client.AddRedaction(ctx, "\r\nab\r\n"); !refusedWith(err, streamproto.Invalid) {
			t.Errorf("a value that is too short: %v", err)
		}
		write(text, "one hunter22\r\ntwo")
		binary, err := env.Client.NewStream(ctx, "binary", streamclient.Binary())
		if err != nil {
			t.Fatal(err)
		}
		write(binary, "\x00\xff")
		dgram, err := env.Client.NewDatagramStream(ctx, "dgram")
		if err != nil {
			t.Fatal(err)
		}
		datagrams := [][]byte{[]byte("one"), {}, []byte(strings.Repeat("x", 1<<20))}
		for _, d := range datagrams {
			if err := dgram.SendDatagram(d); err != nil {
				t.Fatal(err)
			}
		}
		if err := dgram.Close(); err != nil {
			t.Error(err)
		}
		stdout, err := env.Client.NewStream(ctx, "child", streamclient.ForProcess(), streamclient.Confirm(nil))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "echo from a child")
		cmd.Stdout = stdout
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if err := stdout.Close(); err != nil {
			t.Error(err)
		}

		b.Activate()
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[types.StreamName]string{"text": "one ***\r\ntwo", "binary": "\x00\xff", "child": "from a child\n"} {
			if s := out.Stream("ns/" + name); s == nil || string(s.Data) != want {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if got := out.Stream("ns/text").Desc.GetTags(); got["k"] != "v" {
			t.Errorf("tags %v", got)
		}
		if got := out.Stream("ns/dgram").Datagrams; !slices.EqualFunc(got, datagrams, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("%d datagrams", len(got))
		}
	}
}

func refusedWith(err error, code streamproto.Code) bool {
	var e *streamproto.RefusedError
	return errors.As(err, &e) && e.Code == code
}
