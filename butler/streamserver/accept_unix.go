//go:build unix

package streamserver

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// patience is how long to wait for descriptors to become free.
const patience = 2 * time.Second

// acceptAll returns all connections that are established and were not accepted yet, without waiting for more. Accept cannot do that:
// with a deadline it may return before it has looked.
func acceptAll(l syscall.Conn) []net.Conn {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil
	}
	var conns []net.Conn
	for end := time.Now().Add(patience); ; {
		var conn net.Conn
		var failure error
		if raw.Control(func(fd uintptr) { conn, failure = acceptNow(int(fd)) }) != nil {
			return conns
		}
		switch {
		case failure == nil:
			conns = append(conns, conn)
		case errors.Is(failure, syscall.EINTR) || errors.Is(failure, syscall.ECONNABORTED):
		case errors.Is(failure, syscall.EMFILE) || errors.Is(failure, syscall.ENFILE):
			// Streams that end make room.
			if time.Now().After(end) {
				return conns
			}
			time.Sleep(10 * time.Millisecond)
		default: // EAGAIN: there are no more
			return conns
		}
	}
}

// acceptNow accepts a connection that is there. The listener's descriptor does not block.
func acceptNow(fd int) (net.Conn, error) {
	syscall.ForkLock.RLock()
	n, _, err := syscall.Accept(fd)
	if err == nil {
		syscall.CloseOnExec(n)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(n), "")
	defer f.Close()
	return net.FileConn(f)
}
