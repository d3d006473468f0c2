// Package mux lets one listener serve gRPC and HTTP/1.1: it tells the two apart by the first bytes of a plaintext connection
// (architecture, section 7). gRPC is then served by grpc-go itself, which is much faster than by way of net/http.
//
// A connection that begins with the HTTP/2 preface goes to the listener GRPC, any other to HTTP. One that says nothing for
// 7.5 seconds is dropped (spec journal-protocol 2.2). Serve owns the goroutines; it returns after Close, when all have ended.
package mux

import (
	"bytes"
	"errors"
	"net"
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
	grpc, http *listener
	closed     chan struct{}
	closeOnce  sync.Once

	mu       sync.Mutex
	sniffing map[net.Conn]struct{}
}

// New returns a Mux of l, which it owns from now on. Call Serve to begin.
func New(l net.Listener) *Mux {
	m := &Mux{l: l, closed: make(chan struct{}), sniffing: make(map[net.Conn]struct{})}
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
	head, err := sniff(c)
	m.mu.Lock()
	delete(m.sniffing, c)
	m.mu.Unlock()
	if err != nil {
		_ = c.Close()
		return
	}
	to := m.http
	if bytes.Equal(head, preface) {
		to = m.grpc
	}
	select {
	case to.conns <- &sniffed{Conn: c, head: head}:
	case <-m.closed:
		_ = c.Close()
	}
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
