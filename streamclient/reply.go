package streamclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/daybook-dev/daybook/streamproto"
)

// ErrNoReply is returned, wrapped, when the Butler hung up without the reply that Confirm and AddRedaction ask for.
var ErrNoReply = errors.New("the Butler has hung up without a reply; if it is not Daybook's it gives none, and takes streams without Confirm")

// ask sends a request of version 2 and returns the reply of a Butler that has accepted it.
func ask(conn io.ReadWriter, request []byte) (*streamproto.Reply, error) {
	// A Butler that refuses need not have read everything, so its reply says more than an error of this.
	_, writeErr := conn.Write(request)
	reply, err := streamproto.ReadReply(conn)
	switch {
	case err == nil:
		return reply, reply.Err()
	case writeErr != nil:
		return nil, fmt.Errorf("%w (%w)", ErrNoReply, writeErr)
	case errors.Is(err, io.EOF), errors.As(err, new(net.Error)):
		return nil, fmt.Errorf("%w (%w)", ErrNoReply, err)
	}
	return nil, err
}

// greeting returns what to say on a new connection so that it becomes the stream.
func greeting(s *settings) (func(io.ReadWriter) error, error) {
	if s.confirm {
		request, err := streamproto.AppendOpen(nil, &s.flags)
		return func(conn io.ReadWriter) error {
			reply, err := ask(conn, request)
			if err != nil {
				return err
			}
			s.accepted(reply.URL)
			return nil
		}, err
	}
	hello, err := streamproto.AppendHandshake(nil, &s.flags)
	return func(conn io.ReadWriter) error {
		_, err := conn.Write(hello)
		return disconnected(err)
	}, err
}

// accepted tells the program what the Butler answered.
func (s *settings) accepted(viewerURL string) {
	if s.viewerURL != nil {
		*s.viewerURL = viewerURL
	}
}

func (n *network) redact(ctx context.Context, values []string) error {
	request, err := streamproto.AppendRedact(nil, values)
	if err != nil {
		return err
	}
	conn, err := n.connect(ctx, false, func(conn io.ReadWriter) error {
		_, err := ask(conn, request)
		return err
	})
	if err != nil {
		return err
	}
	return conn.Close()
}
