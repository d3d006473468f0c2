// Package mux lets one listener serve gRPC and HTTP: it tells the two apart by the first bytes of a plaintext connection, and by what
// the client of a TLS connection says it speaks (architecture, section 7). gRPC is then served by grpc-go itself, which is much
// faster than by way of net/http.
//
// In plaintext, a connection that begins with the HTTP/2 preface goes to the listener GRPC, any other to HTTP. With TLS, one that
// offers h2 and nothing else goes to GRPC; browsers and other clients of HTTP offer http/1.1 as well, or nothing. What the listeners
// return is then a *tls.Conn, which net/http knows how to serve. One that says nothing, or does not finish its handshake, for 7.5
// seconds is dropped (spec journal-protocol 2.2). Serve owns the goroutines; it returns after Close, when all have ended.
package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// sniffTimeout bounds how long a connection may stay silent before it is classified.
const sniffTimeout = 7500 * time.Millisecond

// The first bytes of the HTTP/2 client preface. No HTTP/1 method begins with them.
var preface = []byte("PRI ")

// Mux splits the connections of one listener.
type Mux struct {
	l          net.Listener
	tls        *tls.Config // nil: plaintext
	grpc, http *listener
	closed     chan struct{}
	closeOnce  sync.Once

	mu       sync.Mutex
	sniffing map[net.Conn]struct{}
}

// New returns a Mux of l in plaintext, which it owns from now on. Call Serve to begin.
func New(l net.Listener) *Mux { return newMux(l, nil) }

// NewTLS returns a Mux of l whose connections speak TLS. The protocols that the config names do not matter.
func NewTLS(l net.Listener, config *tls.Config) *Mux {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offers := hello.Context().Value(offersKey{}).(*offer)
		offers.grpc = slices.Contains(hello.SupportedProtos, "h2") && !slices.Contains(hello.SupportedProtos, "http/1.1")
		return nil, nil // this config
	}
	return newMux(l, config)
}

// offer is what a handshake finds out, by way of its context.
type offer struct{ grpc bool }

type offersKey struct{}

func newMux(l net.Listener, config *tls.Config) *Mux {
	m := &Mux{l: l, tls: config, closed: make(chan struct{}), sniffing: make(map[net.Conn]struct{})}
	m.grpc = &listener{mux: m, conns: make(chan net.Conn)}
	m.http = &listener{mux: m, conns: make(chan net.Conn)}
	return m
}

// GRPC returns the listener of gRPC connections. Closing it closes the Mux.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// HTTP returns the listener of all other connections. Closing it closes the Mux.
func (m *Mux) HTTP() net.Listener { return m.http }

// Serve accepts until Close and returns nil then, or the listener's error. Errors of the moment (too many open files) are
// waited out.
func (m *Mux) Serve() error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer m.Close()
	for delay := time.Duration(0); ; {
		c, err := m.l.Accept()
		if err != nil {
			select {
			case <-m.closed:
				return nil
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
				continue
			case <-m.closed:
				return nil
			}
		}
		delay = 0
		wg.Go(func() { m.classify(c) })
	}
}

// Close stops accepting and drops connections that are not classified yet. Those handed over belong to their servers.
func (m *Mux) Close() {
	m.closeOnce.Do(func() {
		close(m.closed)
		_ = m.l.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for c := range m.sniffing {
			_ = c.Close()
		}
	})
}

func (m *Mux) classify(c net.Conn) {
	m.mu.Lock()
	m.sniffing[c] = struct{}{}
	m.mu.Unlock()
	select {
	case <-m.closed: // Close may have looked before c was there
		_ = c.Close()
	default:
	}
	to, ready := m.greet(c)
	m.mu.Lock()
	delete(m.sniffing, c)
	m.mu.Unlock()
	if to == nil {
		_ = c.Close()
		return
	}
	select {
	case to.conns <- ready:
	case <-m.closed:
		_ = c.Close()
	}
}

// greet finds out what the client of a connection speaks. It returns nil if that is nothing we know.
func (m *Mux) greet(c net.Conn) (*listener, net.Conn) {
	if m.tls != nil {
		return m.shakeHands(c)
	}
	head, err := sniff(c)
	if err != nil {
		return nil, nil
	}
	to := m.http
	if bytes.Equal(head, preface) {
		to = m.grpc
	}
	return to, &sniffed{Conn: c, head: head}
}

// What a client that speaks plaintext to TLS is told.
const plaintext = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks TLS; use https://.\n"

func (m *Mux) shakeHands(c net.Conn) (*listener, net.Conn) {
	var offers offer
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), offersKey{}, &offers), sniffTimeout)
	defer cancel()
	conn := tls.Server(c, m.tls)
	err := conn.HandshakeContext(ctx)
	switch {
	case err == nil && offers.grpc:
		return m.grpc, conn
	case err == nil:
		return m.http, conn
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && isHTTP(record.RecordHeader[:]) {
		tell(record.Conn, plaintext)
	}
	return nil, nil
}

// tell answers a connection of which the rest does not matter. What is not read would make the system throw the answer away.
func tell(c net.Conn, answer string) {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c, answer)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

// isHTTP reports whether the first bytes of a connection are those of a method.
func isHTTP(head []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PRI *"} {
		if string(head) == method {
			return true
		}
	}
	return false
}

// sniff reads as many bytes as it takes to tell whether c begins with the preface.
func sniff(c net.Conn) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(sniffTimeout)); err != nil {
		return nil, err
	}
	head := make([]byte, 0, len(preface))
	for len(head) < len(preface) && bytes.HasPrefix(preface, head) {
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return nil, err
		}
	}
	return head, c.SetReadDeadline(time.Time{})
}

// sniffed gives back the bytes that were read to classify the connection.
type sniffed struct {
	net.Conn
	head []byte
}

func (c *sniffed) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// listener is one side of a Mux.
type listener struct {
	mux   *Mux
	conns chan net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.mux.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.mux.Close()
	return nil
}

func (l *listener) Addr() net.Addr { return l.mux.l.Addr() }
