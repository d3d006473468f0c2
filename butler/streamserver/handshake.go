package streamserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/streamproto"
)

// readers have room for a handshake that is not large.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, small) }}

// handshake serves a new connection until it is a stream, or done.
func (s *Server) handshake(conn net.Conn) {
	var opened *stream
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("a handshake panicked", "panic", r, "stack", string(debug.Stack()))
		}
		s.settle(conn, opened)
	}()
	if err := s.listener.authorize(conn); err != nil {
		s.log.Warn("a connection was refused", "error", err)
		return
	}
	g := &greeting{Conn: conn, large: s.large, lastLook: s.limits.lastLook}
	defer g.release()
	r := readers.Get().(*bufio.Reader)
	r.Reset(g)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()

	h, err := streamproto.ReadHandshake(r)
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, io.EOF) {
			level = slog.LevelDebug // somebody looked whether there is a server
		}
		s.log.Log(context.Background(), level, "a handshake failed", "error", err)
		var e *streamproto.HandshakeError
		if errors.As(err, &e) && e.Version == 2 {
			s.reply(conn, &streamproto.Reply{Code: e.Code, Reason: reason(e.Err)})
		}
		return
	}
	switch h.Op {
	case streamproto.Open:
		rest, _ := r.Peek(r.Buffered())
		opened = &stream{
			Conn: conn, log: s.log, desc: h.Flags.Descriptor(), answer: h.Version == 2, rest: bytes.Clone(rest),
		}
	case streamproto.Redact:
		s.redact(conn, r, h.Count)
	default:
		s.reply(conn, &streamproto.Reply{
			Code: streamproto.Unsupported, Reason: fmt.Sprintf("this Butler does not know the operation %.40q", string(h.Op)),
		})
	}
}

// reason is what a program is told of an error in its handshake.
func reason(err error) string {
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		return "the handshake took too long"
	}
	return err.Error()
}

// redact serves a request to redact values.
func (s *Server) redact(conn net.Conn, r *bufio.Reader, count int) {
	if s.config.Redact == nil {
		s.reply(conn, &streamproto.Reply{Code: streamproto.Unsupported, Reason: "this Butler does not redact"})
		return
	}
	values, err := streamproto.ReadValues(r, count)
	if err != nil {
		code := streamproto.Malformed
		if e := new(streamproto.ValuesError); errors.As(err, &e) {
			code = streamproto.Invalid
		}
		s.reply(conn, &streamproto.Reply{Code: code, Reason: reason(err)})
		return
	}
	for _, v := range values {
		if err := s.config.Redact(v); err != nil {
			s.reply(conn, refusal(err))
			return
		}
	}
	s.reply(conn, &streamproto.Reply{Accepted: true})
}

// refusal is the reply for an error.
func refusal(err error) *streamproto.Reply {
	code := streamproto.Internal
	switch fault.KindOf(err) {
	case fault.Invalid:
		code = streamproto.Invalid
	case fault.Exists:
		code = streamproto.Exists
	case fault.Precondition:
		code = streamproto.Closed
	case fault.Exhausted:
		code = streamproto.Exhausted
	}
	return &streamproto.Reply{Code: code, Reason: err.Error()}
}

func (s *Server) reply(conn net.Conn, r *streamproto.Reply) {
	if err := reply(conn, r); err != nil {
		s.log.Debug("replying to a handshake", "error", err)
	}
}

// replyLimit is how long a reply may take. It finds room in the buffers of a new connection, so this is for those who are up to
// something.
const replyLimit = time.Second

func reply(conn net.Conn, r *streamproto.Reply) error {
	if err := conn.SetWriteDeadline(time.Now().Add(replyLimit)); err != nil {
		return err
	}
	_, err := conn.Write(streamproto.AppendReply(nil, r))
	return err
}

// greeting is a connection during its handshake. Once it is large, it waits for its turn.
type greeting struct {
	net.Conn
	large chan struct{}
	read  int
	held  bool
	// late says that the limit has passed, and there is only the lastLook left.
	late     bool
	lastLook time.Duration
}

func (g *greeting) Read(p []byte) (int, error) {
	if g.read >= small && !g.held {
		g.large <- struct{}{} // freed in time, see limits
		g.held = true
	}
	n, err := g.Conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !g.late {
		g.late = true
		if err := g.SetReadDeadline(time.Now().Add(g.lastLook)); err != nil {
			return 0, err
		}
		n, err = g.Conn.Read(p)
	}
	g.read += n
	return n, err
}

func (g *greeting) release() {
	if g.held {
		<-g.large
	}
}
