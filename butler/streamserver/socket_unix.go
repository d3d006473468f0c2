//go:build unix

package streamserver

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// maxSocketPath is the most bytes of a socket's path: what the system's address has room for, less a zero.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// socketListener is a UNIX socket.
type socketListener struct {
	*net.UnixListener
	path string
	// dir was made for the socket alone, or is empty.
	dir string
	// owner is the user that may connect, besides root.
	owner int
}

func listenPipe(string) (listener, error) {
	return nil, fault.New(fault.Invalid, "stream server: named pipes are for Windows; use unix:PATH")
}

// listenHere listens at a socket in a new directory that nobody else can enter.
func listenHere() (listener, error) {
	var failures []error
	for _, base := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(base, "daybook-")
		if err != nil {
			failures = append(failures, err)
			continue
		}
		path := filepath.Join(dir, "s")
		if len(path) <= maxSocketPath {
			l, err := newSocket(path)
			if err == nil {
				l.dir = dir
				return l, nil
			}
			failures = append(failures, err)
		}
		failures = append(failures, os.Remove(dir))
	}
	return nil, fmt.Errorf("stream server: no place for a socket; set TMPDIR to a directory with a short path: %w", errors.Join(failures...))
}

// listenSocket listens at a path that somebody chose.
func listenSocket(path string, log *slog.Logger) (listener, error) {
	if path == "" {
		return listenHere()
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("stream server: %w", err)
	}
	if len(path) > maxSocketPath {
		l, err := listenHere()
		if err == nil {
			log.Warn("the path of the socket is too long for this system; another one is used",
				"wanted", path, "bytes", len(path), "limit", maxSocketPath, "used", l.address())
		}
		return l, err
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("stream server: %w", err)
	}
	l, err := newSocket(path)
	if err != nil {
		return nil, fmt.Errorf("stream server: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens at.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fault.New(fault.Precondition, "%s exists and is no socket; choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return fault.New(fault.Precondition, "somebody listens at %s already; choose another path", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

func newSocket(path string) (*socketListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Whoever comes before this is asked for credentials all the same.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.SetUnlinkOnClose(false) // stop does it earlier
	return &socketListener{UnixListener: l, path: path, owner: os.Geteuid()}, nil
}

func (l *socketListener) address() string { return "unix:" + l.path }

// stop removes the socket. Failing that changes nothing: whoever connects from now on meets a socket without a listener.
func (l *socketListener) stop() {
	_ = os.Remove(l.path)
	if l.dir != "" {
		_ = os.Remove(l.dir)
	}
	_ = l.SetDeadline(time.Unix(1, 0))
}

func (l *socketListener) drain() []net.Conn {
	conns := acceptAll(l.UnixListener)
	_ = l.Close() // nothing is behind it any more
	return conns
}

// authorize admits the owner and root.
func (l *socketListener) authorize(conn net.Conn) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fault.New(fault.Internal, "%T does not tell who is there", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var uid int
	var failure error
	if err := raw.Control(func(fd uintptr) { uid, failure = peer(int(fd)) }); err != nil {
		return err
	}
	if failure != nil {
		return fmt.Errorf("credentials of a peer: %w", failure)
	}
	if uid != l.owner && uid != 0 {
		return fault.New(fault.Denied, "user %d connected to the Butler of user %d", uid, l.owner)
	}
	return nil
}
