package streamclient

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestWholeConnections(t *testing.T) {
	data, err := os.ReadFile("../streamproto/testdata/streamproto.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Whole []struct {
			Name, Hex string
			Writes    []string
		} `json:"whole_connections"`
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "unix", &server{})
	client, err := New(s.address, "ns")
	if err != nil {
		t.Fatal(err)
	}
	at := WithTimestamp(time.Date(2024, 1, 2, 5, 4, 5, 678901234, time.FixedZone("", 7200)))
	for _, v := range vectors.Whole {
		var write func([]byte) error
		var w io.Closer
		stream := func(opts ...Option) {
			out, err := client.NewStream(t.Context(), "out", opts...)
			if err != nil {
				t.Fatal(err)
			}
			w, write = out, func(b []byte) error { _, err := out.Write(b); return err }
		}
		switch v.Name {
		case "text":
			stream(at)
		case "binary_with_tag":
			stream(at, Binary(), WithTags("k", "v"))
		case "datagram":
			d, err := client.NewDatagramStream(t.Context(), "dg", at)
			if err != nil {
				t.Fatal(err)
			}
			w, write = d, d.SendDatagram
		default:
			t.Fatalf("unknown vector %q", v.Name)
		}
		for _, b := range v.Writes {
			b, err := hex.DecodeString(b)
			if err == nil {
				err = write(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, w)
		if got := hex.EncodeToString((<-s.got).raw); got != v.Hex {
			t.Errorf("%s:\ngot  %s\nwant %s", v.Name, got, v.Hex)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := startServer(t, "unix", &server{})
	client, err := New(s.address, "a//")
	if err != nil {
		t.Fatal(err)
	}
	if client.Namespace() != "a//" || (*Client)(nil).Namespace() != "" {
		t.Error("wrong namespace")
	}
	before := time.Now()
	tags := map[string]string{"k": "<\n>", "e": ""}
	tagged := WithTagMap(tags)
	delete(tags, "k")
	for _, test := range []struct {
		opts []Option
		want map[string]any
	}{
		{nil, map[string]any{"contentType": "text/plain; charset=utf-8"}},
		{[]Option{Binary()}, map[string]any{"contentType": "application/octet-stream", "type": "binary"}},
		{
			[]Option{WithTags("x", "y"), tagged, WithContentType("a/b")},
			map[string]any{"contentType": "a/b", "tags": map[string]any{"k": "<\n>", "e": ""}},
		},
	} {
		w, err := client.NewStream(t.Context(), "b/c", test.opts...)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, w)
		got := (<-s.got).header
		stamp, err := time.Parse(time.RFC3339Nano, got["timestamp"].(string))
		if err != nil || stamp.Before(before.Round(0)) || stamp.After(time.Now()) {
			t.Errorf("timestamp %v is not now: %v", stamp, err)
		}
		delete(got, "timestamp")
		test.want["name"] = "a/b/c"
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
	}
}

func TestBadStreams(t *testing.T) {
	client, err := New("tcp4:127.0.0.1:1", "") // nothing gets so far
	if err != nil {
		t.Fatal(err)
	}
	tags := make(map[string]string)
	for i := range 300 {
		tags[fmt.Sprint("k", i)] = strings.Repeat("v", types.MaxTagValueLength)
	}
	for name, test := range map[string]struct {
		stream types.StreamName
		opts   []Option
		want   string
	}{
		"no name":      {"", nil, "name is empty"},
		"name":         {"a b", nil, "not allowed"},
		"tag key":      {"n", []Option{WithTags("a b", "")}, "tag"},
		"tag value":    {"n", []Option{WithTags("k", strings.Repeat("v", 4097))}, "4096"},
		"header":       {"n", []Option{WithTagMap(tags)}, "header"},
		"time":         {"n", []Option{WithTimestamp(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}, "timestamp"},
		"both":         {"n", []Option{Tee(io.Discard), ForProcess()}, "tee"},
		"long to dial": {"n", nil, "127.0.0.1:1"},
	} {
		_, err := client.NewStream(t.Context(), test.stream, test.opts...)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "stream") {
			t.Errorf("%s: error %v, want one with %q", name, err, test.want)
		}
	}
	for _, opt := range []Option{ForProcess(), Tee(io.Discard), WithTags("!", "")} {
		if _, err := client.NewDatagramStream(t.Context(), "n", opt); err == nil {
			t.Error("a bad stream of datagrams was opened")
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an odd number of tags did not panic")
		}
	}()
	WithTags(strings.Fields("k")...)
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{
		"", "bogus:x", "unix:/nonexistent", "tcp4:", "tcp4:1", "tcp4::1", "tcp4:0.0.0.0:1", "tcp6:[::]:1", "tcp4:h:0", "tcp4:h:65536",
		"fake:", "fake:x", "fake:0", localProtocol + ":", localProtocol,
	} {
		if _, err := New(address, ""); err == nil || !strings.Contains(err.Error(), "stream server") {
			t.Errorf("%q: error %v", address, err)
		}
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New("unix:"+file, ""); err == nil {
		t.Error("a file was accepted as a socket")
	}
}

func TestDatagrams(t *testing.T) {
	s := startServer(t, "unix", &server{})
	d, err := s.client(t).NewDatagramStream(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SendDatagram(make([]byte, streamproto.MaxDatagramSize+1)); err == nil || !strings.Contains(err.Error(), "10485760") {
		t.Errorf("a datagram over the limit: %v", err)
	}
	var want []string
	for _, n := range []int{0, 1, 127, 128, onePiece, onePiece + 1, streamproto.MaxDatagramSize} {
		b := bytes.Repeat([]byte{byte(n)}, n)
		if err := d.SendDatagram(b); err != nil {
			t.Fatal(err)
		}
		want = append(want, string(b))
	}
	mustClose(t, d)
	if got := (<-s.got).datagrams; !slices.Equal(got, want) {
		t.Error("the datagrams differ")
	}
	if d.SendDatagram(nil) == nil || d.Close() == nil {
		t.Error("a closed stream did not fail")
	}
}

func TestConcurrentWriters(t *testing.T) {
	s := startServer(t, "unix", &server{})
	client := s.client(t)
	d, err := client.NewDatagramStream(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	var wg sync.WaitGroup
	for i := range 4 {
		var mine []string
		for n := range 20 {
			mine = append(mine, strings.Repeat(string(rune('a'+i)), i*30_000+n*100))
		}
		want = append(want, mine...)
		wg.Go(func() {
			for _, m := range mine {
				if err := d.SendDatagram([]byte(m)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, d)
	got := (<-s.got).datagrams
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Error("the datagrams differ")
	}

	// Lines, with a tee: in one piece, and in the same order in both.
	var tee bytes.Buffer
	w, err := client.NewStream(t.Context(), "t", Tee(&tee))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		line := strings.Repeat(string(rune('a'+i)), 50_000) + "\n"
		wg.Go(func() {
			for range 10 {
				if n, err := io.WriteString(w, line); n != len(line) || err != nil {
					t.Error(n, err)
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, w)
	text := (<-s.got).data
	if !bytes.Equal(text, tee.Bytes()) {
		t.Error("the copy differs")
	}
	for line := range bytes.Lines(text) {
		if len(line) != 50_001 || bytes.Count(line, line[:1]) != 50_000 {
			t.Fatal("a line was torn")
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errTest }

func TestTeeFails(t *testing.T) {
	client, fake := NewFake("")
	w, err := client.NewStream(t.Context(), "t", Tee(failingWriter{}))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("x")); n != 1 || !errors.Is(err, errTest) {
		t.Errorf("%d, %v", n, err)
	}
	if got := fake.Stream("t").Data; string(got) != "x" {
		t.Errorf("the stream got %q", got)
	}
}

func TestForProcess(t *testing.T) {
	s := startServer(t, "unix", &server{})
	client := s.client(t)
	for _, opts := range [][]Option{{ForProcess()}, {ForProcess(), Confirm(nil)}} {
		w, err := client.NewStream(t.Context(), "p", opts...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "parent\n"); err != nil {
			t.Error(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), "STREAMCLIENT_TEST_CHILD=child\n")
		if _, ok := w.(*os.File); !ok {
			t.Fatalf("the stream is a %T", w)
		}
		cmd.Stdout = w
		hold, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// The stream is closed here, and goes on there.
		mustClose(t, w)
		hold.Close()
		if got := string((<-s.got).data); got != "parent\nchild\n" {
			t.Errorf("the server got %q", got)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseWaitsForReader(t *testing.T) {
	for _, test := range []struct {
		network string
		opts    []Option
	}{{"tcp4", nil}, {"tcp6", nil}, {"unix", []Option{Confirm(nil)}}} {
		t.Run(test.network, func(t *testing.T) {
			s := startServer(t, test.network, &server{read: make(chan struct{})})
			w, err := s.client(t).NewStream(t.Context(), "t", test.opts...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "data"); err != nil {
				t.Fatal(err)
			}
			closed := make(chan error)
			go func() { closed <- w.Close() }()
			select {
			case err := <-closed:
				t.Fatalf("Close returned before the data were read: %v", err)
			case s.read <- struct{}{}:
			}
			if err := <-closed; err != nil {
				t.Fatal(err)
			}
			select {
			case c := <-s.got:
				if string(c.data) != "data" {
					t.Errorf("the server got %q", c.data)
				}
			default:
				t.Error("Close returned before the data were read")
			}
		})
	}
}

func TestCloseOfStalledButler(t *testing.T) {
	w := &stream{name: "n", conn: deadConn{Conn: deadline{}, readErr: os.ErrDeadlineExceeded}, wait: true}
	if err := w.Close(); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "not read everything") {
		t.Errorf("error %v", err)
	}
	w.conn = deadConn{Conn: deadline{}, readErr: errTest}
	if err := w.Close(); !errors.Is(err, ErrDisconnected) {
		t.Errorf("error %v", err)
	}
}

type deadline struct{ net.Conn }

func (deadline) SetReadDeadline(time.Time) error { return nil }

func TestCloseEndsWaitingWrite(t *testing.T) {
	s := startServer(t, "unix", &server{read: make(chan struct{})})
	defer close(s.read)
	w, err := s.client(t).NewStream(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error)
	go func() {
		_, err := w.Write(make([]byte, 64<<20)) // more than sockets hold
		wrote <- err
	}()
	mustClose(t, w)
	if err := <-wrote; err == nil {
		t.Error("a write to a closed stream succeeded")
	}
}

func TestDisconnected(t *testing.T) {
	s := startServer(t, "unix", &server{reply: "false"})
	w, err := s.client(t).NewStream(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
	if err := w.(*stream).conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte("x")) // as when the other end is gone
	if !errors.Is(err, ErrDisconnected) || !strings.Contains(err.Error(), `stream "t"`) || !strings.Contains(err.Error(), "Confirm") {
		t.Errorf("error %v", err)
	}
	mustClose(t, w)
}

func TestContexts(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := startServer(t, "unix", &server{reply: "true"}) // and the line does not end
	client := s.client(t)
	opened := make(chan error)
	go func() {
		_, err := client.NewStream(ctx, "t", Confirm(nil))
		opened <- err
	}()
	cancel(errTest)
	if err := <-opened; !errors.Is(err, errTest) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := client.NewStream(ctx, "t"); err == nil {
		t.Error("a stream was opened with a context that is done")
	}
}
