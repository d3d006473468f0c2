package storetest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// StartGCS builds and starts a server of Google Cloud Storage. The test's environment leads to it, and has credentials of a
// service account to sign URLs with. The server does not check signatures.
//
// Objects in files are there again after a restart, and do not have all names that objects may have. Objects in memory do,
// and are gone.
func StartGCS(t *testing.T, inFiles bool) *Server {
	t.Helper()
	program := goTool(t, "gcsserver", "fake-gcs-server")
	s := newServer(t)
	s.command = []string{
		program, "-scheme", "http", "-host", "127.0.0.1", "-port", s.port(), "-external-url", s.Endpoint(), "-public-host", s.address,
		"-backend", "memory", "-log-level", "warn",
	}
	if inFiles {
		s.command = append(s.command, "-backend", "filesystem", "-filesystem-root", s.dir)
	}
	s.url = func(bucket, prefix string) string { return fmt.Sprintf("gs://%s/%s", bucket, prefix) }
	t.Setenv("STORAGE_EMULATOR_HOST", s.address)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", serviceAccount(t))
	s.ready = func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Post(s.Endpoint()+"/storage/v1/b?project=x", "application/json", strings.NewReader(`{"name":"`+bucketName+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
			t.Fatalf("make a bucket: %s", resp.Status)
		}
	}
	s.Start()
	return s
}

// serviceAccount returns the file of a service account with a key that nobody knows.
func serviceAccount(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "daybook@example.iam.gserviceaccount.com",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, account, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
