package streamclient

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/streamproto"
)

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv("STREAMCLIENT_TEST_CHILD"); ok {
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			os.Exit(3)
		}
		fmt.Print(text)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const accepted = `{"accepted":true,"url":"http://h/s"}` + "\n"

// connection is what a server got.
type connection struct {
	raw       []byte // all of it
	version   int
	header    map[string]any
	values    []string
	data      []byte
	datagrams []string
}

// server takes nothing but what docs/formats/handshake.md says, by code of its own. It handles one connection at a time.
type server struct {
	listener net.Listener
	address  string
	got      chan *connection
	// reply is what version 2 is answered; without "true" in it the connection is closed then.
	reply string
	// read, if not nil, is waited for before the data are read.
	read chan struct{}
	// version1 makes the server hang up at others.
	version1 bool
	// discard makes the server forget what it read.
	discard bool
}

// shortDir returns a directory for a socket, for which the path of t.TempDir is too long.
func shortDir(t testing.TB) string {
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

func startServer(t testing.TB, network string, s *server) *server {
	t.Helper()
	address := "127.0.0.1:0"
	switch {
	case network == "unix" && runtime.GOOS == "windows":
		network = "tcp4"
	case network == "unix":
		address = filepath.Join(shortDir(t), "s")
	case network == "tcp6":
		address = "[::1]:0"
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if s.reply == "" {
		s.reply = accepted
	}
	s.listener, s.address, s.got = listener, network+":"+listener.Addr().String(), make(chan *connection, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c, err := s.handle(conn)
			if err != nil {
				t.Errorf("server: %v", err)
			}
			s.got <- c
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return s
}

func (s *server) handle(conn net.Conn) (*connection, error) {
	c := new(connection)
	if s.discard {
		_, err := io.Copy(io.Discard, conn)
		return c, err
	}
	r := bufio.NewReader(io.TeeReader(conn, (*appender)(&c.raw)))
	magic := make([]byte, 6)
	if _, err := io.ReadFull(r, magic); err != nil {
		return c, err
	}
	switch string(magic) {
	case "BTLR1\x1e":
		c.version = 1
	case "BTLR2\x1e":
		c.version = 2
		if s.version1 {
			return c, nil
		}
	default:
		return c, fmt.Errorf("magic %q", magic)
	}
	header, err := readFrame(r)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(header, &c.header); err != nil {
		return c, err
	}
	for range int(number(c.header["count"])) {
		v, err := readFrame(r)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, string(v))
	}
	if c.version == 2 {
		if _, err := io.WriteString(conn, s.reply); err != nil || !strings.Contains(s.reply, "true") {
			return c, err
		}
	}
	if s.read != nil {
		<-s.read
	}
	if c.data, err = io.ReadAll(r); err != nil {
		return c, err
	}
	if c.header["type"] == "datagram" {
		for rest := c.data; len(rest) > 0; {
			var d []byte
			if d, rest, err = frame.Cut(rest, streamproto.MaxDatagramSize); err != nil {
				return c, err
			}
			c.datagrams = append(c.datagrams, string(d))
		}
	}
	return c, nil
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	n, err := frame.ReadLength(r, 1<<20)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

func number(x any) float64 {
	n, _ := x.(float64)
	return n
}

type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// newClient returns a client of the server.
func (s *server) client(t testing.TB) *Client {
	t.Helper()
	c, err := New(s.address, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deadConn is a connection that fails.
type deadConn struct {
	net.Conn
	readErr, writeErr error
}

func (d deadConn) Write([]byte) (int, error) { return 0, d.writeErr }
func (d deadConn) Read([]byte) (int, error)  { return 0, d.readErr }
func (deadConn) CloseWrite() error           { return nil }
func (deadConn) Close() error                { return nil }

var errTest = errors.New("test")
