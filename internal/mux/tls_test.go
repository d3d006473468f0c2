package mux

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// startTLS returns a Mux, and the config of clients that trust it.
func startTLS(t *testing.T) (*Mux, *tls.Config) {
	t.Helper()
	// Borrows the certificate that net/http/httptest comes with.
	borrowed := httptest.NewTLSServer(http.NotFoundHandler())
	defer borrowed.Close()
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewTLS(l, &tls.Config{Certificates: borrowed.TLS.Certificates})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Serve(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { m.Close(); wg.Wait() })
	return m, &tls.Config{RootCAs: roots}
}

func TestSplitTLS(t *testing.T) {
	m, trust := startTLS(t)
	for _, test := range []struct {
		offers []string
		grpc   bool
		spoken string
	}{
		{[]string{"h2"}, true, "h2"},
		{[]string{"grpc-exp", "h2"}, true, "h2"},
		{[]string{"h2", "http/1.1"}, false, "h2"},
		{[]string{"http/1.1"}, false, "http/1.1"},
		{nil, false, ""},
	} {
		config := trust.Clone()
		config.NextProtos = test.offers
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := tls.Dial("tcp", m.HTTP().Addr().String(), config)
			if err != nil {
				t.Errorf("%v: %v", test.offers, err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "hello")
			if got := c.ConnectionState().NegotiatedProtocol; got != test.spoken {
				t.Errorf("%v: speaks %q, want %q", test.offers, got, test.spoken)
			}
		})
		l := m.HTTP()
		if test.grpc {
			l = m.GRPC()
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.(*tls.Conn); !ok {
			t.Errorf("%v: a %T, of which net/http does not know that it speaks TLS", test.offers, s)
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
			t.Errorf("%v: got %q, %v", test.offers, got, err)
		}
		_ = s.Close()
		wg.Wait()
	}
}

// Browsers speak HTTP/2 to net/http.
func TestHTTP2IsServed(t *testing.T) {
	m, trust := startTLS(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(m.HTTP()); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer server.Close()
	transport := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + m.HTTP().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/2.0" {
		t.Errorf("%q, %v", body, err)
	}
}

func TestPlaintextToTLS(t *testing.T) {
	m, _ := startTLS(t)
	for sent, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n": "This port speaks TLS; use https://.",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":  "This port speaks TLS; use https://.",
		"\x00\x00\x00\x00\x00\x00":          "",
	} {
		c, err := net.Dial("tcp", m.HTTP().Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, sent)
		_ = c.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(c)
		if _, told, _ := strings.Cut(string(answer), "\r\n\r\n"); strings.TrimSpace(told) != want {
			t.Errorf("%q was answered %q", sent, answer)
		}
		_ = c.Close()
	}
}
