package streamclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/daybook-dev/daybook/logs/types"
)

// ErrDisconnected is returned, wrapped, by writes to a stream whose Butler has closed the connection. What was written before
// may be lost in part.
var ErrDisconnected = errors.New("the Butler has hung up: it refused the stream (is the name taken?) or was stopped; " +
	"open the stream with Confirm to be told why")

// closeTimeout is how long Close waits for the Butler to have read everything.
const closeTimeout = 30 * time.Second

// network is a Butler behind a socket or a pipe.
type network struct {
	// dial connects; what it returns for a process is an *os.File or has a method File.
	dial func(ctx context.Context, forProcess bool) (io.ReadWriteCloser, error)
	// remote is set where bytes can still be lost when they were written.
	remote bool
}

// newTCP returns Butlers behind addresses of one of the versions of IP.
func newTCP(family string) func(string) (butler, error) {
	return func(value string) (butler, error) {
		host, port, err := net.SplitHostPort(value)
		if err != nil {
			return nil, fmt.Errorf("a TCP address is %s:host:port", family)
		}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			return nil, fmt.Errorf("host %q is nothing to connect to", host)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("port %q is not a number from 1 to 65535", port)
		}
		dial := func(ctx context.Context, _ bool) (io.ReadWriteCloser, error) {
			return new(net.Dialer).DialContext(ctx, family, value)
		}
		return &network{dial: dial, remote: true}, nil
	}
}

// connect connects and has the two talk, for as long as the context allows.
func (n *network) connect(ctx context.Context, forProcess bool, talk func(io.ReadWriter) error) (io.ReadWriteCloser, error) {
	conn, err := n.dial(ctx, forProcess)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = talk(conn)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (n *network) open(ctx context.Context, s *settings) (io.WriteCloser, error) {
	greet, err := greeting(s)
	if err != nil {
		return nil, err
	}
	conn, err := n.connect(ctx, s.forProcess, greet)
	if err != nil {
		return nil, err
	}
	if s.forProcess {
		return file(conn)
	}
	return &stream{name: s.flags.Name, conn: conn, wait: n.remote || s.confirm}, nil
}

// file turns a connection into a file that processes can inherit.
func file(conn io.ReadWriteCloser) (*os.File, error) {
	if f, ok := conn.(*os.File); ok {
		return f, nil
	}
	defer conn.Close()
	c, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a process cannot be given a %T", conn)
	}
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	// Processes expect an output that blocks. Fd makes it so.
	f.Fd()
	return f, nil
}

// stream is a connection after its handshake. A Write of a net.Conn is in one piece, and so is one of this.
type stream struct {
	name types.StreamName
	conn io.ReadWriteCloser
	// wait makes Close wait.
	wait bool
}

// Write passes p on as it is. It waits while the Butler cannot take it.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	if err != nil {
		return n, fmt.Errorf("write to stream %q: %w", s.name, disconnected(err))
	}
	return n, nil
}

// Close ends the stream.
func (s *stream) Close() error {
	err := s.finish()
	if closeErr := s.conn.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("close stream %q: %w", s.name, err)
	}
	return nil
}

// finish waits until the Butler has closed its end too, which it does when it has read everything. The buffers of a socket
// of this machine outlive a program; those of a network end with its container.
func (s *stream) finish() error {
	socket, ok := s.conn.(interface {
		CloseWrite() error
		SetReadDeadline(time.Time) error
	})
	if !s.wait || !ok {
		return nil // pipes of Windows cannot be closed by halves; what is in them stays there until it was read
	}
	err := socket.CloseWrite()
	if err == nil {
		err = socket.SetReadDeadline(time.Now().Add(closeTimeout))
	}
	if err == nil {
		_, err = io.Copy(io.Discard, s.conn)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the Butler has not read everything within %v; the rest may still arrive: %w", closeTimeout, err)
	}
	return disconnected(err)
}

// disconnected explains what writing to a connection failed with.
func disconnected(err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrDisconnected, err)
}
