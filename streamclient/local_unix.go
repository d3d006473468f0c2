//go:build unix

package streamclient

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// localProtocol is how this platform connects programs.
const localProtocol = "unix"

// acceptPoll is how often a socket is tried whose queue of connections is full.
const acceptPoll = 5 * time.Millisecond

func newLocal(path string) (butler, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is no such socket; is the Butler still running?")
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("this is not a socket")
	}
	return &network{dial: func(ctx context.Context, _ bool) (io.ReadWriteCloser, error) {
		for {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
			if !errors.Is(err, syscall.EAGAIN) {
				return conn, err
			}
			// The Butler has to accept others first. UNIX sockets do not wait for that by themselves.
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(acceptPoll):
			}
		}
	}}, nil
}
