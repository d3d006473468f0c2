// Package storetest runs the object stores that tests use: S3 (versitygw), Google Cloud Storage (fake-gcs-server) and Azure
// Blob Storage (azurite). Each is a process of its own, which keeps its objects in a directory, can die and come back.
package storetest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/journal/protocol"
)

const bucketName = "bucket"

// Server is a server process.
type Server struct {
	t       testing.TB
	command []string
	env     []string
	dir     string
	address string
	scheme  string
	url     func(bucket, prefix string) string
	// ready is called when the server listens; nil does nothing.
	ready func()
	// ending is what ends the server.
	ending  os.Signal
	process *exec.Cmd
	output  bytes.Buffer
}

// newServer returns a server that will listen on an address of its own, and ends with the test.
func newServer(t *testing.T) *Server {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: t.TempDir(), address: lis.Addr().String(), scheme: "http", ending: os.Kill}
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.process != nil {
			s.Kill()
		}
		if t.Failed() {
			t.Logf("the store's server said:\n%s", s.output.String())
		}
	})
	return s
}

// port returns the server's port.
func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.address)
	return port
}

// Bucket returns the name of the server's bucket.
func (s *Server) Bucket() string { return bucketName }

// Endpoint returns the URL at which the server is.
func (s *Server) Endpoint() string { return s.scheme + "://" + s.address }

// Store returns the URL of a store of the server.
func (s *Server) Store(prefix string) protocol.FragmentStore { return s.StoreIn(bucketName, prefix) }

// StoreIn returns the URL of a store in a bucket, which need not exist.
func (s *Server) StoreIn(bucket, prefix string) protocol.FragmentStore {
	return protocol.FragmentStore(s.url(bucket, prefix))
}

// Kill ends the server at once. That of Azure is asked to end, as it forgets what it did last otherwise.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.process.Process.Signal(s.ending); err != nil {
		s.t.Errorf("kill the store's server: %v", err)
	}
	_ = s.process.Wait() // it was killed
	s.process = nil
}

// Start starts the server, again with what it had, and returns when it listens.
func (s *Server) Start() {
	s.t.Helper()
	// Not bound to the test's context, which ends before clean-up functions run.
	s.process = exec.Command(s.command[0], s.command[1:]...)
	s.process.Env = append(os.Environ(), s.env...)
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		s.t.Fatalf("start the store's server: %v", err)
	}
	// It says nowhere else that it is ready.
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Since(begin) > time.Minute {
			s.t.Fatalf("the store's server does not listen: %v", err)
		}
	}
	if s.ready != nil {
		s.ready()
	}
}

// tools returns a directory of tools/.
func tools(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "../../../tools", name)
}

// goTool builds the tool of a module of tools/, and returns its path.
func goTool(t *testing.T, module, name string) string {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "tool", "-n", name)
	build.Dir = tools(module)
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOOS=", "GOARCH=")
	var stderr bytes.Buffer
	build.Stderr = &stderr
	path, err := build.Output()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(path))
}
