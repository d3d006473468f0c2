package streamclient

import (
	"context"
	"errors"
	"io"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Adder takes streams; a *butler.Butler does. It owns the reader if it returns no error, and closes it at the stream's end.
type Adder interface {
	AddStream(io.ReadCloser, *logpb.LogStreamDescriptor) error
}

// NewLoopback returns a client of a Butler in this process. ForProcess changes nothing with it, and redactions are set at the
// Butler itself.
func NewLoopback(b Adder, namespace types.StreamName) *Client {
	return &Client{loopback{b}, namespace}
}

type loopback struct{ adder Adder }

func (l loopback) open(_ context.Context, s *settings) (io.WriteCloser, error) {
	r, w := io.Pipe()
	if err := l.adder.AddStream(r, s.flags.Descriptor()); err != nil {
		return nil, err
	}
	s.accepted("")
	return w, nil
}

func (loopback) redact(context.Context, []string) error {
	return errors.New("a Butler in this process is told its redactions itself")
}
