//go:build unix

package streamserver

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// quick are limits for tests in which something has to run into them.
var quick = limits{handshake: 100 * time.Millisecond, closing: 100 * time.Millisecond, lastLook: 10 * time.Millisecond, handshakes: 1024, waiting: 1}

func serve(t *testing.T, address string, c Config, l limits) *Server {
	t.Helper()
	s := newServer(c, l)
	listener, err := listen(address, s.log)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, listener)
	return s
}

func run(t *testing.T, s *Server, l listener) {
	s.run(l)
	t.Cleanup(func() {
		s.Close()
		for {
			rc, _ := s.Next()
			if rc == nil {
				return
			}
			rc.Close()
		}
	})
}

// setLimits changes the limits of connections to come.
func setLimits(s *Server, l limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
}

func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	protocol, value, _ := strings.Cut(s.Address(), ":")
	conn, err := net.Dial(protocol, value)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func write(t testing.TB, conn net.Conn, data string) {
	t.Helper()
	if _, err := io.WriteString(conn, data); err != nil {
		t.Fatal(err)
	}
}

func closeWrite(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// hello is a handshake of a text stream.
func hello(t testing.TB, version int, name string) string {
	t.Helper()
	f := &streamproto.Flags{Name: types.StreamName(name)}
	appendTo := streamproto.AppendHandshake
	if version == 2 {
		appendTo = streamproto.AppendOpen
	}
	b, err := appendTo(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// expectEnd reads to the end of a connection, and expects nothing before.
func expectEnd(t testing.TB, conn net.Conn) {
	t.Helper()
	b, err := io.ReadAll(conn)
	if len(b) > 0 || err != nil && !isReset(err) {
		t.Errorf("%q, %v; want nothing", b, err)
	}
}

// isReset tells that the server closed the connection without having read everything.
func isReset(err error) bool { return strings.Contains(err.Error(), "connection reset") }

func expectReply(t testing.TB, conn net.Conn) *streamproto.Reply {
	t.Helper()
	r, err := streamproto.ReadReply(conn)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func next(t testing.TB, s *Server) (io.ReadCloser, *logpb.LogStreamDescriptor) {
	t.Helper()
	rc, d := s.Next()
	if rc == nil {
		t.Fatal("there is no stream")
	}
	t.Cleanup(func() { rc.Close() })
	return rc, d
}

func expectData(t testing.TB, rc io.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(rc); err != nil || string(got) != want {
		t.Errorf("%.100q, %v; want %.100q", got, err, want)
	}
}

// everywhere runs a test with each kind of address.
func everywhere(t *testing.T, test func(t *testing.T, address string)) {
	for _, address := range []string{"unix:", "tcp4:", "tcp6:[::1]:0"} {
		t.Run(address, func(t *testing.T) { test(t, address) })
	}
}

func TestStreams(t *testing.T) {
	for _, address := range []string{"", "unix:%s", "tcp4:", "tcp4:127.0.0.1:0", "tcp4::0", "tcp6:[::1]:0"} {
		for version := 1; version <= 2; version++ {
			s := serve(t, strings.Replace(address, "%s", t.TempDir()+"/s", 1), Config{}, defaultLimits)
			together := dial(t, s)
			write(t, together, hello(t, version, "together")+"data")
			rc, d := next(t, s)
			if d.GetName() != "together" || d.GetContentType() != "text/plain; charset=utf-8" || d.GetTimestamp() != nil {
				t.Errorf("%v", d)
			}
			together.Close()
			expectData(t, rc, "data")

			pieces := dial(t, s)
			for _, c := range []byte(hello(t, version, "pieces") + "one") {
				write(t, pieces, string([]byte{c}))
			}
			rc, d = next(t, s)
			if d.GetName() != "pieces" {
				t.Errorf("%v", d)
			}
			big := strings.Repeat("x", 1<<20)
			go func() {
				defer pieces.Close()
				if _, err := io.WriteString(pieces, big); err != nil {
					t.Error(err)
				}
			}()
			expectData(t, rc, "one"+big)
		}
	}
}

func unhex(t testing.TB, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVectors sends what existing clients send, and what nobody should.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../../streamproto/testdata/streamproto.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Decode []struct {
			Name, Hex, Result string
			Remaining         string `json:"remaining_hex"`
		} `json:"handshake_decode"`
		Whole []struct {
			Name, Hex string
			Writes    []string
		} `json:"whole_connections"`
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	s := serve(t, "", Config{}, defaultLimits)
	for _, v := range vectors.Decode {
		if v.Name == "wrong_version" || strings.HasPrefix(v.Name, "trailing_") {
			continue // where we differ, as streamproto's tests say
		}
		conn := dial(t, s)
		write(t, conn, unhex(t, v.Hex))
		closeWrite(t, conn)
		if v.Result == "ok" {
			rc, _ := next(t, s)
			expectData(t, rc, unhex(t, v.Remaining))
			rc.Close()
		}
		expectEnd(t, conn)
	}
	for _, v := range vectors.Whole {
		conn := dial(t, s)
		raw := unhex(t, v.Hex)
		write(t, conn, raw)
		conn.Close()
		rc, d := next(t, s)
		var want []byte
		for _, w := range v.Writes {
			if d.GetStreamType() == logpb.StreamType_DATAGRAM {
				want, _ = streamproto.AppendDatagramHeader(want, len(unhex(t, w)))
			}
			want = append(want, unhex(t, w)...)
		}
		expectData(t, rc, string(want))
	}
}

func TestAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, address string) {
		s := serve(t, address, Config{}, defaultLimits)
		answer := func(rc io.ReadCloser, url string, err error) {
			rc.(interface{ Answer(string, error) }).Answer(url, err)
		}

		taken := dial(t, s)
		write(t, taken, hello(t, 2, "taken")+"early ")
		rc, _ := next(t, s)
		answer(rc, "http://page", nil)
		if diff := cmp.Diff(&streamproto.Reply{Accepted: true, URL: "http://page"}, expectReply(t, taken)); diff != "" {
			t.Error(diff)
		}
		write(t, taken, "late")
		closeWrite(t, taken)
		expectData(t, rc, "early late")
		rc.Close()
		expectEnd(t, taken)

		for kind, code := range map[fault.Kind]streamproto.Code{
			fault.Exists: streamproto.Exists, fault.Invalid: streamproto.Invalid, fault.Precondition: streamproto.Closed,
			fault.Exhausted: streamproto.Exhausted, fault.DataLoss: streamproto.Internal,
		} {
			refused := dial(t, s)
			write(t, refused, hello(t, 2, "refused")+"data that nobody reads")
			rc, _ := next(t, s)
			answer(rc, "", fault.New(kind, "because"))
			rc.Close()
			if diff := cmp.Diff(&streamproto.Reply{Code: code, Reason: "because"}, expectReply(t, refused)); diff != "" {
				t.Error(diff)
			}
		}

		// Version 1 is never answered.
		for _, err := range []error{nil, errors.New("because")} {
			silent := dial(t, s)
			write(t, silent, hello(t, 1, "silent"))
			rc, _ := next(t, s)
			answer(rc, "http://page", err)
			rc.Close()
			expectEnd(t, silent)
		}
	})
}

func TestRefusedHandshakes(t *testing.T) {
	header := func(json string) string {
		return streamproto.Magic2 + string([]byte{byte(len(json))}) + json
	}
	for in, code := range map[string]streamproto.Code{
		header(`{"name":"a//b"}`):                                streamproto.Invalid,
		header(`{"name":"a","tags":{"!":""}}`):                   streamproto.Invalid,
		header(`{}`):                                             streamproto.Invalid,
		header(`{"name":`):                                       streamproto.Malformed,
		header(`{"op":"dance"}`):                                 streamproto.Unsupported,
		header(`{"op":"redact","count":1}`):                      streamproto.Unsupported,
		streamproto.Magic2 + "\x81\x80\x40":                      streamproto.Malformed,
		streamproto.Magic2 + strings.Repeat("\xff", 10):          streamproto.Malformed,
		streamproto.Magic2:                                       streamproto.Malformed, // in time
		header(`{"name":"a"}`)[:12]:                              streamproto.Malformed,
		strings.Replace(hello(t, 1, "a"), "BTLR1", "BTLR3", 1):   "",
		"GET / HTTP/1.1\r\n\r\n":                                 "",
		strings.Replace(hello(t, 1, "a"), "\x1e", "\x1e\xff", 1): "",
		streamproto.Magic + "\x81\x80\x40":                       "",
		streamproto.Magic + "\x02[]":                             "",
	} {
		s := serve(t, "", Config{}, quick)
		conn := dial(t, s)
		write(t, conn, in)
		if code == "" {
			expectEnd(t, conn)
		} else if r := expectReply(t, conn); r.Accepted || r.Code != code || r.Reason == "" {
			t.Errorf("%q: %+v, want %s", in, r, code)
		}
		// Nobody else is harmed.
		setLimits(s, defaultLimits)
		fine := dial(t, s)
		write(t, fine, hello(t, 1, "fine")+"data")
		fine.Close()
		rc, _ := next(t, s)
		expectData(t, rc, "data")
	}
}

func TestRedact(t *testing.T) {
	everywhere(t, func(t *testing.T, address string) {
		var mu sync.Mutex
		var got []string
		s := serve(t, address, Config{Redact: func(v string) error {
			mu.Lock()
			defer mu.Unlock()
			switch v {
			case "panic":
				panic(v)
			case "full!":
				return fault.New(fault.Exhausted, "no more values")
			}
			got = append(got, v)
			return nil
		}}, defaultLimits)
		ask := func(values ...string) net.Conn {
			b, err := streamproto.AppendRedact(nil, values)
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, s)
			write(t, conn, string(b))
			return conn
		}
		long := strings.Repeat("x", streamproto.MaxValueSize)
		all := []string{"hunter22", "\x00\xff\n\r", long, long, long, long, long, long, long, long, long}
		if r := expectReply(t, ask(all...)); !r.Accepted {
			t.Errorf("%+v", r)
		}
		mu.Lock()
		if !slices.Equal(got, all) {
			t.Errorf("%d values, want %d", len(got), len(all))
		}
		mu.Unlock()
		if r := expectReply(t, ask("more", "full!")); r.Accepted || r.Code != streamproto.Exhausted {
			t.Errorf("%+v", r)
		}
		expectEnd(t, ask("panic"))
		short := dial(t, s)
		write(t, short, streamproto.Magic2+"\x19"+`{"op":"redact","count":1}`+"\x03abc")
		if r := expectReply(t, short); r.Accepted || r.Code != streamproto.Invalid || strings.Contains(r.Reason, "abc") {
			t.Errorf("%+v", r)
		}
		if r := expectReply(t, ask("again")); !r.Accepted {
			t.Errorf("%+v", r)
		}
	})
}

func TestHalfOpenHandshakesEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, address string) {
		s := serve(t, address, Config{}, quick)
		for _, begin := range []string{"", "BTL", streamproto.Magic, streamproto.Magic + "\x0c" + `{"na`} {
			conn := dial(t, s)
			write(t, conn, begin)
			expectEnd(t, conn)
		}
		// A stream is not in a hurry.
		l := quick
		l.handshake = 2 * time.Second
		setLimits(s, l)
		conn := dial(t, s)
		write(t, conn, hello(t, 1, "slow"))
		rc, _ := next(t, s)
		setLimits(s, quick)
		other := dial(t, s)
		expectEnd(t, other)
		write(t, conn, "data")
		conn.Close()
		expectData(t, rc, "data")
	})
}

// TestHandshakesAreBounded holds all places for large handshakes, and almost all others.
func TestHandshakesAreBounded(t *testing.T) {
	l := defaultLimits
	l.handshakes = maxLarge + 1
	s := serve(t, "", Config{}, l)
	large := streamproto.Magic + "\x80\x80\x40" + `{"name":"large"` + strings.Repeat(" ", 1<<20-16) + "}"
	var held []net.Conn
	for range maxLarge {
		conn := dial(t, s)
		write(t, conn, large[:2*small])
		held = append(held, conn)
	}
	for range 100 {
		conn := dial(t, s)
		write(t, conn, hello(t, 1, "small"))
		conn.Close()
		rc, _ := next(t, s)
		rc.Close()
	}
	for _, conn := range held {
		go func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, large[2*small:]+"data"); err != nil {
				t.Error(err)
			}
		}()
	}
	for range held {
		rc, d := next(t, s)
		if d.GetName() != "large" {
			t.Errorf("%v", d)
		}
		expectData(t, rc, "data")
	}
}

// TestEverybodyInTheQueueIsServed has more clients than handshakes may run, so that they wait to be accepted when the server is
// closed. All are gone by then.
func TestEverybodyInTheQueueIsServed(t *testing.T) {
	everywhere(t, func(t *testing.T, address string) {
		const clients = 500
		l := defaultLimits
		l.handshake, l.closing, l.handshakes, l.waiting = time.Hour, time.Hour, 1, clients/3
		s := newServer(Config{}, l)
		inner, err := listen(address, s.log)
		if err != nil {
			t.Fatal(err)
		}
		stopped := &watched{inner, make(chan struct{})}
		run(t, s, stopped)
		first := dial(t, s) // takes the only place
		for i := range clients {
			conn := dial(t, s)
			write(t, conn, hello(t, 1+i%2, fmt.Sprint("s", i))+fmt.Sprint("data ", i))
			conn.Close()
		}
		go func() {
			<-stopped.done
			first.Close()
		}()
		s.Close()
		seen := make(map[string]bool)
		for {
			rc, d := s.Next()
			if rc == nil {
				break
			}
			seen[d.GetName()] = true
			expectData(t, rc, "data "+d.GetName()[1:])
			rc.Close()
		}
		if len(seen) != clients {
			t.Errorf("%d of %d streams arrived", len(seen), clients)
		}
	})
}

// watched is a listener that tells when it was stopped.
type watched struct {
	listener
	done chan struct{}
}

func (w *watched) stop() {
	w.listener.stop()
	close(w.done)
}

func TestClose(t *testing.T) {
	everywhere(t, func(t *testing.T, address string) {
		l := quick
		l.handshake, l.closing = time.Hour, time.Minute
		s := serve(t, address, Config{}, l)
		begun := dial(t, s)
		write(t, begun, hello(t, 1, "begun")[:10])
		open := dial(t, s)
		write(t, open, hello(t, 1, "open"))
		rc, _ := next(t, s)

		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close()
		}()
		<-s.closing
		write(t, begun, hello(t, 1, "begun")[10:])
		late, d := next(t, s)
		if d.GetName() != "begun" {
			t.Errorf("%v", d)
		}
		<-closed
		s.Close()
		if rc, d := s.Next(); rc != nil {
			t.Errorf("%v after the end", d)
		}
		protocol, value, _ := strings.Cut(s.Address(), ":")
		if conn, err := net.Dial(protocol, value); err == nil {
			conn.Close()
			t.Error("somebody could connect after the end")
		}
		// Streams go on.
		for conn, rc := range map[net.Conn]io.Reader{open: rc, begun: late} {
			write(t, conn, "more")
			conn.Close()
			expectData(t, rc, "more")
		}
	})
}

func TestCloseEndsHalfOpenHandshakes(t *testing.T) {
	l := quick
	l.handshake = time.Hour
	s := serve(t, "", Config{}, l)
	for range 100 {
		write(t, dial(t, s), "BTLR")
	}
	s.Close()
	if rc, _ := s.Next(); rc != nil {
		t.Error("there is a stream")
	}
}

// scarce is a listener that has no descriptors for a while.
type scarce struct {
	listener
	mu   sync.Mutex
	left int
}

func (s *scarce) Accept() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		s.left--
		return nil, errors.New("too many open files")
	}
	return s.listener.Accept()
}

func TestAcceptIsTriedAgain(t *testing.T) {
	s := newServer(Config{}, defaultLimits)
	l, err := listen("", s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.run(&scarce{listener: l, left: 3})
	conn := dial(t, s)
	write(t, conn, hello(t, 1, "a")+"data")
	conn.Close()
	rc, _ := next(t, s)
	expectData(t, rc, "data")
	s.Close()
}

// script is a connection that has said everything.
type script struct {
	net.Conn
	in      *bytes.Reader
	replied bytes.Buffer
	closed  bool
}

func (c *script) Read(p []byte) (int, error)     { return c.in.Read(p) }
func (c *script) Write(p []byte) (int, error)    { return c.replied.Write(p) }
func (c *script) Close() error                   { c.closed = true; return nil }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

type nobody struct{ listener }

func (nobody) authorize(net.Conn) error { return nil }

func FuzzHandshake(f *testing.F) {
	f.Add([]byte(hello(f, 1, "a") + "data"))
	f.Add([]byte(hello(f, 2, "a") + "data"))
	b, _ := streamproto.AppendRedact(nil, []string{"hunter22", "12345"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newServer(Config{Redact: func(v string) error {
			if len(v) < streamproto.MinValueSize {
				t.Errorf("value %q", v)
			}
			return nil
		}}, defaultLimits)
		s.listener = nobody{}
		c := &script{in: bytes.NewReader(in)}
		s.handshake(c)
		if n := len(s.queue); n > 1 || n == 1 && c.closed || n == 0 && !c.closed {
			t.Fatalf("%d streams, closed: %v", n, c.closed)
		}
		if len(s.queue) == 1 {
			if c.replied.Len() > 0 {
				t.Fatalf("replied %q before anybody knew", c.replied.Bytes())
			}
			if rest, err := io.ReadAll(s.queue[0]); err != nil || !bytes.HasSuffix(in, rest) {
				t.Fatalf("%q, %v", rest, err)
			}
			return
		}
		replied := bufio.NewReader(&c.replied)
		if bytes.HasPrefix(in, []byte(streamproto.Magic2)) {
			if _, err := streamproto.ReadReply(replied); err != nil {
				t.Fatal(err)
			}
		} else if c.replied.Len() > 0 {
			t.Fatalf("replied %q", c.replied.Bytes())
		}
	})
}
