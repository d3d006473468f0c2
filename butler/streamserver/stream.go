package streamserver

import (
	"log/slog"
	"net"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/streamproto"
)

// stream is a connection behind its handshake.
type stream struct {
	net.Conn
	log  *slog.Logger
	desc *logpb.LogStreamDescriptor
	// rest was read along with the handshake.
	rest []byte
	// answer says that the program waits for a reply.
	answer bool
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		if s.rest = s.rest[n:]; len(s.rest) == 0 {
			s.rest = nil
		}
		return n, nil
	}
	return s.Conn.Read(p)
}

// Answer implements butler.Answerer.
func (s *stream) Answer(viewerURL string, err error) {
	if !s.answer {
		return
	}
	r := &streamproto.Reply{Accepted: true, URL: viewerURL}
	if err != nil {
		r = refusal(err)
	}
	if err := reply(s.Conn, r); err != nil {
		s.log.Debug("replying to the program", "stream", s.desc.GetName(), "error", err)
	}
}
