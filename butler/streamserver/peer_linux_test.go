package streamserver

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

const stranger = 65534

// dialAs returns how to connect as another user. Without the right to be one, the server is made to belong to another user.
func dialAs(t *testing.T, l *socketListener) func(*Server) net.Conn {
	if os.Geteuid() != 0 {
		l.owner++
		return func(s *Server) net.Conn { return dial(t, s) }
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(l.path): 0o755, l.path: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return func(*Server) net.Conn {
		fds := make(chan int)
		go func() {
			runtime.LockOSThread() // for good: the thread is not root any more, and ends
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, stranger, stranger, stranger); e != 0 {
				t.Error(e)
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: l.path}); err != nil {
				t.Error(err)
			}
			fds <- fd
		}()
		f := os.NewFile(uintptr(<-fds), "")
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}
