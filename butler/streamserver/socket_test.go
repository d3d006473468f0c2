//go:build unix

package streamserver

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
)

func TestSocketsArePrivateAndRemoved(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, address := range []string{"", "unix:" + filepath.Join(tmp, "chosen")} {
		s, err := Listen(address, Config{})
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(s.Address(), "unix:")
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if dir, err := os.Stat(filepath.Dir(path)); address == "" && (err != nil || dir.Mode().Perm() != 0o700) {
			t.Errorf("%v, %v", dir.Mode(), err)
		}
		s.Close()
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%v are left, %v", left, err)
		}
	}
}

func TestStaleSocketsAreReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:"+path, Config{}); !fault.Is(err, fault.Precondition) {
		t.Errorf("a socket that somebody listens at: %v", err)
	}
	old.SetUnlinkOnClose(false)
	old.Close() // as if killed
	s := serve(t, "unix:"+path, Config{}, defaultLimits)
	dial(t, s)
}

func TestFilesAreNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link, filepath.Dir(path)} {
		if _, err := Listen("unix:"+p, Config{}); !fault.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Listen("unix:"+path+"/nowhere/s", Config{}); err == nil {
		t.Error("a socket below a file")
	}
}

// locked is a buffer that is safe for concurrent use.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := new(locked)
	s := serve(t, "unix:"+filepath.Join(dir, "s"), Config{Logger: slog.New(slog.NewTextHandler(log, nil))}, defaultLimits)
	if !strings.Contains(log.String(), s.Address()) {
		t.Errorf("nobody was told: %s", log.String())
	}
	dial(t, s)
	t.Setenv("TMPDIR", dir)
	auto := serve(t, "", Config{}, defaultLimits)
	dial(t, auto)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	exact := filepath.Join(t.TempDir(), "x")
	exact += strings.Repeat("x", maxSocketPath-len(exact))
	s = serve(t, "unix:"+exact, Config{}, defaultLimits)
	if s.Address() != "unix:"+exact {
		t.Errorf("%s", s.Address())
	}
	dial(t, s)
}

// TestOtherUsersAreRefused connects as somebody else, who got past the permissions.
func TestOtherUsersAreRefused(t *testing.T) {
	s := newServer(Config{}, defaultLimits)
	l, err := listen("", s.log)
	if err != nil {
		t.Fatal(err)
	}
	socket := l.(*socketListener)
	connect := dialAs(t, socket)
	s.run(l)
	t.Cleanup(s.Close)
	conn := connect(s)
	// Nothing may be said, and nothing is answered.
	expectEnd(t, conn)
}
