package storetest

import (
	"encoding/base64"
	"errors"
	"fmt"
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

// StartAzure installs and starts a server of Azure Blob Storage. The test's environment leads to it.
func StartAzure(t *testing.T) *Server {
	t.Helper()
	program := azurite(t)
	s := newServer(t)
	const account = "daybook"
	key := base64.StdEncoding.EncodeToString([]byte("daybook-secret"))
	s.command = []string{
		"node", program, "--blobHost", "127.0.0.1", "--blobPort", s.port(), "--location", s.dir, "--silent", "--skipApiVersionCheck",
		"--disableTelemetry",
	}
	s.ending = os.Interrupt
	s.env = []string{"AZURITE_ACCOUNTS=" + account + ":" + key}
	s.url = func(bucket, prefix string) string { return fmt.Sprintf("azure://%s/%s", bucket, prefix) }
	t.Setenv("AZURE_ACCOUNT_NAME", account)
	t.Setenv("AZURE_ACCOUNT_KEY", key)
	t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", s.Endpoint()+"/"+account)
	s.Start()

	cred, err := container.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	client, err := container.NewClientWithSharedKeyCredential(s.Endpoint()+"/"+account+"/"+bucketName, cred,
		&container.ClientOptions{ClientOptions: policy.ClientOptions{Transport: &http.Client{Transport: transport}}})
	if err == nil {
		_, err = client.Create(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
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
