// Package streamserver is where programs open streams on a Butler: a UNIX socket, a named pipe of Windows, or a TCP port on loopback.
//
//	s, err := streamserver.Listen("", streamserver.Config{Logger: log})
//	b.AddStreamServer(s) // the Butler closes it
//	// programs find it by s.Address()
//
// The handshake is that of package streamproto, and its page docs/formats/handshake.md. Version 1 is never answered. A stream of
// version 2 is told by its Answer whether it was taken. A connection that is malformed, refused, slow or of another user ends
// alone.
//
// # The end
//
// Whoever connected before Close is served, also if it has written, closed and exited since: first nobody new can connect, then all
// connections that wait to be accepted are, then handshakes under way have a short time to complete. What the server has then,
// Next returns; a stream that nobody asks for by Next stays open.
//
// # Limits
//
// A handshake has 30 seconds. There are at most 1,024 at once; up to 16,384 connections wait for their turn here, and further ones in
// the system's queue. That is shorter, and programs that do not wait for it get an error when it is full. Those with a
// large header take turns, so that memory is bounded as well. There is no limit of streams.
//
// # Who may connect
//
// A UNIX socket has permissions 0600, and the system tells who connects: only the own user and root are served. A named pipe admits
// the own user. A TCP port is open to everybody on the machine, and to nobody else.
//
// A Server is safe for concurrent use.
package streamserver

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// limits are what tests make smaller.
type limits struct {
	// handshake is how long a handshake may take; closing, after Close. lastLook is how much longer it takes if nobody has looked
	// what is there, as may be on a busy machine.
	handshake, closing, lastLook time.Duration
	// handshakes is how many of them there are at once, waiting how many connections may wait for one.
	handshakes, waiting int
}

var defaultLimits = limits{
	handshake: 30 * time.Second, closing: 2 * time.Second, lastLook: 500 * time.Millisecond,
	handshakes: 1024, waiting: 16 << 10,
}

const (
	// A connection that sends more than small bytes as its handshake is one of maxLarge at once.
	small    = 4 << 10
	maxLarge = 8
)

// Config is optional in all parts.
type Config struct {
	// Redact is called with each value that a program wants to be redacted. When it returns, nothing with the value may be read
	// any more. Without it, such requests are refused.
	Redact func(value string) error
	// Logger gets what goes wrong with single connections. nil discards it.
	Logger *slog.Logger
}

// Server takes streams of programs.
type Server struct {
	config   Config
	limits   limits
	log      *slog.Logger
	listener listener

	// large has an element for each large handshake.
	large chan struct{}
	// closing is closed by Close.
	closing    chan struct{}
	close      func()
	acceptor   sync.WaitGroup
	handshakes sync.WaitGroup

	mu sync.Mutex
	// waiting are the connections that have not begun their handshake, room tells that there are fewer.
	waiting []net.Conn
	room    sync.Cond
	// workers counts those who do handshakes, pending has their connections.
	workers int
	pending map[net.Conn]struct{}
	// queue are the streams for Next, which waits for change. complete says that there will be no more.
	queue    []*stream
	complete bool
	change   sync.Cond
}

// listener is what a platform has to offer.
type listener interface {
	net.Listener
	// address is what clients are told.
	address() string
	// stop makes Accept return an error. Nobody new can connect.
	stop()
	// drain returns the connections that were never accepted, after Accept returned for good, and ends the listener.
	drain() []net.Conn
	// authorize returns why a connection must not be served.
	authorize(net.Conn) error
}

// Listen makes a server at an address: unix:path, net.pipe:name (on Windows), tcp4:127.0.0.1:port or tcp6:[::1]:port, where port may
// be 0 or missing for any. The empty address is a UNIX socket or a pipe of a new name.
//
// A socket that nobody listens on any more is replaced; anything else at its path is left alone, and an error. A path too long for
// the system is replaced by a new one, so use Address.
func Listen(address string, c Config) (*Server, error) {
	s := newServer(c, defaultLimits)
	l, err := listen(address, s.log)
	if err != nil {
		return nil, err
	}
	s.run(l)
	return s, nil
}

func newServer(c Config, l limits) *Server {
	s := &Server{
		config:  c,
		limits:  l,
		log:     c.Logger,
		large:   make(chan struct{}, maxLarge),
		closing: make(chan struct{}),
		pending: make(map[net.Conn]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.change.L = &s.mu
	s.room.L = &s.mu
	s.close = sync.OnceFunc(s.shut)
	return s
}

func (s *Server) run(l listener) {
	s.listener = l
	s.acceptor.Go(s.accept)
}

// Address is how clients reach the server, in the form that they know.
func (s *Server) Address() string { return s.listener.address() }

// accept takes connections until the listener is stopped.
func (s *Server) accept() {
	var failures int
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			failures = 0
			s.start(conn)
			continue
		case s.isClosing():
			return
		}
		// The system is short of something; what waits to be accepted is not lost.
		failures++
		s.log.Warn("accepting a connection failed; trying again", "error", err)
		t := time.NewTimer(min(time.Duration(failures)*10*time.Millisecond, time.Second))
		select {
		case <-t.C:
		case <-s.closing:
		}
		t.Stop()
	}
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// start sees to it that a connection has its handshake. It waits while too many do.
func (s *Server) start(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.workers == s.limits.handshakes && len(s.waiting) == s.limits.waiting {
		s.room.Wait() // not for ever, since handshakes are limited
	}
	if s.workers == s.limits.handshakes {
		s.waiting = append(s.waiting, conn)
		return
	}
	s.workers++
	s.begin(conn)
	s.handshakes.Go(func() {
		for conn := conn; conn != nil; conn = s.nextWaiting() {
			s.handshake(conn)
		}
	})
}

// begin makes a handshake one that is under way. s.mu is held.
func (s *Server) begin(conn net.Conn) {
	s.pending[conn] = struct{}{}
	s.setLimit(conn)
}

// nextWaiting returns the next connection for a worker, or nil if it is not needed any more.
func (s *Server) nextWaiting() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.workers--
		return nil
	}
	conn := s.waiting[0]
	s.waiting[0] = nil
	if s.waiting = s.waiting[1:]; len(s.waiting) == 0 {
		s.waiting = nil
	}
	s.room.Signal()
	s.begin(conn)
	return conn
}

// setLimit limits the rest of a handshake. s.mu is held.
func (s *Server) setLimit(conn net.Conn) {
	limit := s.limits.handshake
	if s.isClosing() {
		limit = s.limits.closing
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		s.log.Debug("limiting a handshake", "error", err)
	}
}

// settle ends a handshake, with the stream that it opened, or nil.
func (s *Server) settle(conn net.Conn, opened *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, conn)
	if opened == nil {
		_ = conn.Close()
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		s.log.Warn("a connection failed", "error", err)
		_ = conn.Close()
		return
	}
	s.queue = append(s.queue, opened)
	s.change.Signal()
}

// Next returns the next stream, with a descriptor that has neither prefix nor, if the program gave none, timestamp, and is not
// necessarily valid. It waits for one until Close has returned; then it returns what is left, and at last nil.
//
// The stream is a butler.Answerer, and has the method SetReadDeadline of net.Conn.
func (s *Server) Next() (io.ReadCloser, *logpb.LogStreamDescriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 {
		if s.complete {
			return nil, nil
		}
		s.change.Wait()
	}
	next := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	return next, next.desc
}

// Close ends the server, as the package comment says, and waits for that. Further calls do nothing.
func (s *Server) Close() { s.close() }

func (s *Server) shut() {
	close(s.closing)
	s.mu.Lock()
	for conn := range s.pending {
		s.setLimit(conn)
	}
	s.mu.Unlock()
	s.listener.stop()
	s.acceptor.Wait()
	for _, conn := range s.listener.drain() {
		s.start(conn)
	}
	s.handshakes.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = true
	s.change.Broadcast()
}
