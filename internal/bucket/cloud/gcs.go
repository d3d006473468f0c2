package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// OpenGCS opens a bucket of Google Cloud Storage with the application default credentials. URLs can be signed if these
// hold the private key of a service account.
func OpenGCS(ctx context.Context, name string) (bucket.Bucket, error) {
	creds, err := gcp.DefaultCredentials(ctx)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: %w", name, err)
	}
	client, err := gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(creds))
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: %w", name, err)
	}
	var account struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	if len(creds.JSON) != 0 {
		if err := json.Unmarshal(creds.JSON, &account); err != nil {
			// The error may quote the file, which holds a key.
			return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: the credentials are not JSON", name)
		}
	}
	opts := &gcsblob.Options{GoogleAccessID: account.Email, PrivateKey: []byte(account.Key)}
	if account.Key == "" {
		opts = nil
	}
	b, err := gcsblob.OpenBucket(ctx, client, name, opts)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: %w", name, err)
	}
	return &object{blob: b, base: "gs://" + name, missing: noSuchGCSBucket}, nil
}

func noSuchGCSBucket(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == http.StatusNotFound && strings.Contains(api.Message, "bucket")
}
