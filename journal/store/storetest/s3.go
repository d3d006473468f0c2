package storetest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// StartS3 builds and starts a server of S3. The test's environment gets its credentials.
func StartS3(t *testing.T) *Server {
	t.Helper()
	const access, secret = "daybook", "daybook-secret"
	t.Setenv("AWS_ACCESS_KEY_ID", access)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	program := goTool(t, "s3server", "versitygw")
	s := newServer(t)
	s.command = []string{program, "--access", access, "--secret", secret, "--quiet", "--port", s.address, "posix", s.dir}
	s.url = func(bucket, prefix string) string {
		query := url.Values{"endpoint": {s.Endpoint()}, "region": {"us-east-1"}}
		return fmt.Sprintf("s3://%s/%s?%s", bucket, prefix, query.Encode())
	}
	if err := os.Mkdir(filepath.Join(s.dir, bucketName), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}
