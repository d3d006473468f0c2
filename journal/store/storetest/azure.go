package storetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/daybook-dev/daybook/internal/filelock"
)

// AzureAccount is the account at the server.
const AzureAccount = "daybook"

// AzureHost is the name that a server with TLS has, like that of an account at the provider. It leads nowhere by itself.
const AzureHost = AzureAccount + ".blob.azure.test"

// StartAzure installs and starts a server of Azure Blob Storage. The test's environment leads to it.
func StartAzure(t *testing.T) *Server {
	t.Helper()
	s := newAzure(t)
	s.startAzure(&http.Transport{DisableKeepAlives: true})
	return s
}

// StartAzureTLS is StartAzure with a server that is spoken to over TLS, and so takes tokens, which it does not verify. The
// pool has its certificate.
func StartAzureTLS(t *testing.T) (*Server, *x509.CertPool) {
	t.Helper()
	s := newAzure(t)
	s.scheme = "https"
	pool, certificate, key := selfSigned(t)
	s.command = append(s.command, "--cert", certificate, "--key", key, "--oauth", "basic")
	s.startAzure(&http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}})
	return s, pool
}

func newAzure(t *testing.T) *Server {
	t.Helper()
	program := azurite(t)
	s := newServer(t)
	s.command = []string{
		"node", program, "--blobHost", "127.0.0.1", "--blobPort", s.port(), "--location", s.dir, "--silent", "--skipApiVersionCheck",
		"--disableTelemetry",
	}
	s.ending = os.Interrupt
	s.url = func(bucket, prefix string) string { return fmt.Sprintf("azure://%s/%s", bucket, prefix) }
	return s
}

// startAzure starts the server, and makes the bucket.
func (s *Server) startAzure(transport *http.Transport) {
	t := s.t
	t.Helper()
	key := base64.StdEncoding.EncodeToString([]byte("daybook-secret"))
	address := s.Endpoint() + "/" + AzureAccount
	s.env = []string{"AZURITE_ACCOUNTS=" + AzureAccount + ":" + key}
	t.Setenv("AZURE_ACCOUNT_NAME", AzureAccount)
	t.Setenv("AZURE_ACCOUNT_KEY", key)
	t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", address)
	s.Start()

	cred, err := container.NewSharedKeyCredential(AzureAccount, key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := container.NewClientWithSharedKeyCredential(address+"/"+bucketName, cred,
		&container.ClientOptions{ClientOptions: policy.ClientOptions{Transport: &http.Client{Transport: transport}}})
	if err == nil {
		_, err = client.Create(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// selfSigned makes a certificate, and returns the files of it and of its key.
func selfSigned(t *testing.T) (pool *x509.CertPool, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{AzureHost}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return pool, certificate, key
}

// azurite returns the path of the server's program, and installs it if it is not there.
func azurite(t *testing.T) string {
	t.Helper()
	dir := tools("azurite")
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		lock, err := filelock.TryLock(filepath.Join(dir, ".lock"))
		if errors.Is(err, filelock.ErrLocked) && time.Since(begin) < 5*time.Minute {
			continue // another test installs it
		}
		if err != nil {
			t.Fatal(err)
		}
		install := exec.CommandContext(t.Context(), filepath.Join(dir, "../setup"), "azure")
		if out, err := install.CombinedOutput(); err != nil {
			t.Errorf("install azurite: %v\n%s", err, out)
		}
		if err := lock.Unlock(); err != nil {
			t.Error(err)
		}
		return filepath.Join(dir, "node_modules/azurite/dist/src/blob/main.js")
	}
}
