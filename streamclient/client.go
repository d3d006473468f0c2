// Package streamclient opens streams on a Butler from within a program:
//
//	env, err := streamclient.FromEnvironment()
//	out, err := env.Client.NewStream(ctx, "compile/log")
//	fmt.Fprintln(out, "hello")
//	err = out.Close()
//
// A program that was started by a Butler finds it through its environment; New takes an address instead. A stream is text,
// binary, or a sequence of datagrams, and ends with Close. Options say more about it, and Confirm makes the Butler answer.
// Fakes record what a program under test wrote.
//
// Nothing is buffered here: once Write returned, the bytes are with the operating system, and arrive also if the program then
// dies. Over TCP, and with Confirm, Close returns when the Butler has read all of it. A Butler that falls behind makes Write
// wait; Close ends that wait.
//
// Contexts bound the opening of a stream, not its life. Clients and streams are safe for concurrent use; each Write and each
// datagram stays in one piece.
package streamclient

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// Client opens streams on one Butler.
type Client struct {
	butler    butler
	namespace types.StreamName
}

// butler is the other end: one behind a socket, one in this process, a fake, or none.
type butler interface {
	// open returns the stream with its handshake done.
	open(ctx context.Context, s *settings) (io.WriteCloser, error)
	// redact returns when the Butler knows the values.
	redact(ctx context.Context, values []string) error
}

// protocols are the kinds of addresses that this platform knows, by what is before the first colon.
var protocols = map[string]func(value string) (butler, error){
	localProtocol: newLocal,
	"tcp4":        newTCP("tcp4"),
	"tcp6":        newTCP("tcp6"),
	"null":        func(string) (butler, error) { return null{}, nil },
	"fake":        dialFake,
}

// New returns a client for the Butler at an address:
//
//	unix:/path          a socket, which has to be there already
//	net.pipe:name       a named pipe of Windows
//	tcp4:127.0.0.1:80   a port, for containers; tcp6:[::1]:80, too
//	null                no Butler: what is written is discarded
//	fake:1              a fake of this process, see RegisterFake
//
// The namespace, which may be empty, goes before the name of every stream. Nothing is connected yet.
func New(address string, namespace types.StreamName) (*Client, error) {
	protocol, value, _ := strings.Cut(address, ":")
	connect, ok := protocols[protocol]
	if !ok {
		return nil, fmt.Errorf("stream server %.200q: protocol %.40q is not known on this platform", address, protocol)
	}
	b, err := connect(value)
	if err != nil {
		return nil, fmt.Errorf("stream server %.200q: %w", address, err)
	}
	return &Client{b, namespace}, nil
}

// Namespace returns what goes before the names of streams. That of a nil client is empty.
func (c *Client) Namespace() types.StreamName {
	if c == nil {
		return ""
	}
	return c.namespace
}

// NewStream opens a stream of text, or of bytes if that is among the options. What is written goes through as it is.
//
// Unless there is Confirm among the options, success says that the connection is there, not that the Butler likes the
// stream. If it does not, later writes fail with ErrDisconnected.
func (c *Client) NewStream(ctx context.Context, name types.StreamName, opts ...Option) (io.WriteCloser, error) {
	var s settings
	for _, opt := range opts {
		opt(&s)
	}
	if s.tee != nil && s.forProcess {
		return nil, fmt.Errorf("stream %q: a process cannot be given a stream with a tee", name)
	}
	w, err := c.open(ctx, name, &s)
	if err != nil {
		return nil, err
	}
	if s.tee != nil {
		w = &teed{WriteCloser: w, copy: s.tee}
	}
	return w, nil
}

// NewDatagramStream opens a stream of datagrams; otherwise it is as NewStream.
func (c *Client) NewDatagramStream(ctx context.Context, name types.StreamName, opts ...Option) (*DatagramStream, error) {
	var s settings
	for _, opt := range opts {
		opt(&s)
	}
	switch {
	case s.forProcess:
		return nil, fmt.Errorf("stream %q: a process cannot be given a stream of datagrams", name)
	case s.tee != nil:
		return nil, fmt.Errorf("stream %q: datagrams have no tee", name)
	}
	s.flags.Type = streamproto.Datagram
	w, err := c.open(ctx, name, &s)
	if err != nil {
		return nil, err
	}
	return &DatagramStream{name: s.flags.Name, w: w}, nil
}

func (c *Client) open(ctx context.Context, name types.StreamName, s *settings) (io.WriteCloser, error) {
	s.flags.Name = c.namespace.Concat(name)
	if s.flags.Timestamp.IsZero() {
		s.flags.Timestamp = time.Now()
	}
	if s.flags.ContentType == "" {
		s.flags.ContentType = s.flags.Type.DefaultContentType()
	}
	err := timestamppb.New(s.flags.Timestamp).CheckValid()
	if err == nil {
		err = logpb.ValidateDescriptor(s.flags.Descriptor(), false)
	}
	var w io.WriteCloser
	if err == nil {
		w, err = c.butler.open(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %q: %w", name, err)
	}
	return w, nil
}

// AddRedaction makes the Butler replace the values wherever they appear in any of its streams, in all that it reads from the
// moment that AddRedaction returns. Values have from streamproto.MinValueSize to MaxValueSize bytes, and there are at most
// MaxValues of them. A *streamproto.RefusedError says why the Butler does not, an ErrNoReply that it cannot.
func (c *Client) AddRedaction(ctx context.Context, values ...string) error {
	if len(values) == 0 {
		return nil
	}
	if err := c.butler.redact(ctx, values); err != nil {
		return fmt.Errorf("redaction: %w", err)
	}
	return nil
}
