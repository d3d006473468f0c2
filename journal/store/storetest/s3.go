// Package storetest runs a real S3 server for tests.
package storetest

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	bucketName = "bucket"
	accessKey  = "daybook"
	secretKey  = "daybook-secret"
)

// S3 is a server process that keeps objects in a directory. It can die and come back.
type S3 struct {
	t       testing.TB
	program string
	dir     string
	address string
	process *exec.Cmd
	output  bytes.Buffer
}

// StartS3 builds and starts a server. It ends with the test. The test's environment gets its credentials.
func StartS3(t *testing.T) *S3 {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	build := exec.CommandContext(t.Context(), "go", "tool", "-n", "versitygw")
	build.Dir = filepath.Join(filepath.Dir(here), "../../../tools/s3server")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOOS=", "GOARCH=")
	program, err := build.Output()
	if err != nil {
		t.Fatalf("build the S3 server: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	s := &S3{t: t, program: strings.TrimSpace(string(program)), dir: t.TempDir(), address: address}
	if err := os.Mkdir(filepath.Join(s.dir, bucketName), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		if s.process != nil {
			s.Kill()
		}
		if t.Failed() {
			t.Logf("the S3 server said:\n%s", s.output.String())
		}
	})
	return s
}

// Store returns the URL of a store of the server.
func (s *S3) Store(prefix string) protocol.FragmentStore { return s.StoreIn(bucketName, prefix) }

// StoreIn returns the URL of a store in a bucket, which need not exist.
func (s *S3) StoreIn(bucket, prefix string) protocol.FragmentStore {
	query := url.Values{"endpoint": {"http://" + s.address}, "region": {"us-east-1"}}
	return protocol.FragmentStore(fmt.Sprintf("s3://%s/%s?%s", bucket, prefix, query.Encode()))
}

// Kill ends the server at once.
func (s *S3) Kill() {
	s.t.Helper()
	if err := s.process.Process.Kill(); err != nil {
		s.t.Errorf("kill the S3 server: %v", err)
	}
	_ = s.process.Wait() // it was killed
	s.process = nil
}

// Start starts the server, again with what it had, and returns when it listens.
func (s *S3) Start() {
	s.t.Helper()
	// Not bound to the test's context, which ends before clean-up functions run.
	s.process = exec.Command(s.program, "--access", accessKey, "--secret", secretKey, "--quiet", "--port", s.address, "posix", s.dir)
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		s.t.Fatalf("start the S3 server: %v", err)
	}
	// It says nowhere else that it is ready.
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Since(begin) > 20*time.Second {
			s.t.Fatalf("the S3 server does not listen: %v", err)
		}
	}
}
