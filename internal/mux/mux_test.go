package mux

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) (*Mux, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := New(l)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Serve(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { m.Close(); wg.Wait() })
	return m, l.Addr().String()
}

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		sent string
		grpc bool
	}{
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true},
		{"GET / HTTP/1.1\r\n\r\n", false},
		{"POST /x HTTP/1.1\r\n\r\n", false},
		{"PROPFIND / HTTP/1.1\r\n\r\n", false},
		{"PR", false}, // closed before it said enough: nobody gets it
	} {
		t.Run(strings.Fields(tc.sent)[0], func(t *testing.T) {
			m, addr := start(t)
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// One byte at a time: classification must not depend on packets.
			for i := range len(tc.sent) {
				if _, err := c.Write([]byte(tc.sent[i : i+1])); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if tc.sent == "PR" {
				if _, err := io.ReadAll(c); err != nil {
					t.Fatal(err)
				}
				return
			}
			l := m.HTTP()
			if tc.grpc {
				l = m.GRPC()
			}
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := io.ReadAll(s)
			if err != nil || string(got) != tc.sent {
				t.Fatalf("got %q, %v; want %q", got, err, tc.sent)
			}
		})
	}
}

func TestHTTPServer(t *testing.T) {
	m, addr := start(t)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(m.HTTP()) })
	defer wg.Wait()
	defer s.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if string(b) != "/hello" {
		t.Fatalf("got %q", b)
	}
}

func TestCloseDropsSilentConnections(t *testing.T) {
	m, addr := start(t)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m.Close()
	// Whether it was accepted by then or not, the connection ends and Serve returns (checked by the clean-up).
	_, _ = io.ReadAll(c)
	if _, err := m.GRPC().Accept(); err == nil {
		t.Fatal("accepted after close")
	}
}
