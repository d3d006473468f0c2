package testkit

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy is a TCP proxy between a client and a server that does on demand what networks do. It begins as a good network.
type Proxy struct {
	t      TB
	addr   string
	target string
	wg     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener       // nil while refusing
	links    map[*link]struct{} // connections being passed on
	flowing  chan struct{}      // closed while bytes flow
	delay    time.Duration      // of each chunk
	quota    int64              // bytes to the server until the next cut; negative is no end
	closed   bool
}

// link is one connection and its other half.
type link struct {
	client, server net.Conn
	ctx            context.Context
	cancel         context.CancelFunc
}

// NewProxy returns a proxy to the target address.
func NewProxy(t TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, links: make(map[*link]struct{}), flowing: make(chan struct{}), quota: -1}
	close(p.flowing)
	p.listen("127.0.0.1:0")
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Refuse()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.addr }

// Cut resets all connections. New ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for l := range p.links {
		l.cancel()
		reset(l.client)
		reset(l.server)
	}
}

// Refuse makes the system refuse new connections. Those that are there stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Accept ends Refuse.
func (p *Proxy) Accept() {
	p.t.Helper()
	p.mu.Lock()
	refusing := p.listener == nil
	p.mu.Unlock()
	if refusing {
		p.listen(p.addr)
	}
}

// Stall holds all bytes back, both ways, in connections that look alive.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
		p.flowing = make(chan struct{})
	default: // stalled already
	}
}

// Resume ends Stall; nothing that was held back is lost.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
	default:
		close(p.flowing)
	}
}

// Delay makes each byte arrive later by d than it would have, both ways.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// CutAfter resets all connections, once, when n more bytes have passed to the server.
func (p *Proxy) CutAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quota = n
}

func (p *Proxy) listen(addr string) {
	p.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		p.t.Fatalf("proxy: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.addr = l, l.Addr().String()
	p.wg.Go(func() { p.serve(l) })
}

func (p *Proxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.pass(client) })
	}
}

// pass connects a client to the target and copies both ways until both directions have ended.
func (p *Proxy) pass(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := &link{client: client, server: server, ctx: ctx, cancel: cancel}
	p.mu.Lock()
	if p.closed {
		cancel()
		reset(client)
		reset(server)
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()

	var both sync.WaitGroup
	both.Go(func() { p.copy(l, server, client, true) })
	both.Go(func() { p.copy(l, client, server, false) })
	both.Wait()

	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	client.Close()
	server.Close()
}

// chunk is some bytes and the time they are due.
type chunk struct {
	data []byte
	due  time.Time
}

// copy passes bytes one way. Reading and writing are apart, so that a delay does not lower the rate.
func (p *Proxy) copy(l *link, to, from net.Conn, toServer bool) {
	const inFlight = 64
	chunks := make(chan chunk, inFlight)
	var readErr error // valid after chunks is closed
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(chunks)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				p.mu.Lock()
				due := time.Now().Add(p.delay)
				p.mu.Unlock()
				select {
				case chunks <- chunk{buf[:n], due}:
				case <-l.ctx.Done():
					return
				}
			}
			if err != nil {
				readErr = err
				return
			}
		}
	})
	defer reading.Wait()

	for c := range chunks {
		if !p.admit(l, c.due) {
			return
		}
		data, last := c.data, false
		if toServer {
			data, last = p.spend(data)
		}
		if _, err := to.Write(data); err != nil || last {
			if last {
				p.Cut()
			}
			// The other direction has nobody to talk to any more.
			l.cancel()
			reset(from)
			return
		}
	}
	// The sender has ended its direction, or the connection is gone.
	if c, ok := to.(*net.TCPConn); ok && errors.Is(readErr, io.EOF) {
		_ = c.CloseWrite() // fails if the connection is gone, which is as well
		return
	}
	reset(to)
}

// admit waits until bytes are due and flow. It reports whether the connection still stands.
func (p *Proxy) admit(l *link, due time.Time) bool {
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return false
		}
	}
	for {
		p.mu.Lock()
		flowing := p.flowing
		p.mu.Unlock()
		select {
		case <-flowing:
		case <-l.ctx.Done():
			return false
		}
		p.mu.Lock()
		same := p.flowing == flowing
		p.mu.Unlock()
		if same {
			return l.ctx.Err() == nil
		}
	}
}

// spend takes bytes off the quota. It returns those that still pass, and whether they are the last before the cut.
func (p *Proxy) spend(data []byte) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quota < 0 {
		return data, false
	}
	if int64(len(data)) < p.quota {
		p.quota -= int64(len(data))
		return data, false
	}
	data = data[:p.quota]
	p.quota = -1
	return data, true
}

// reset closes a connection so that the other side sees a reset and not an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails if the connection is gone, which is as well
	}
	c.Close()
}
