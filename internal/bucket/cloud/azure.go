package cloud

import (
	"context"
	"fmt"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/azureblob"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// OpenAzure opens a container of the account that the environment variables AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_KEY name.
func OpenAzure(ctx context.Context, name string) (bucket.Bucket, error) {
	account, key := os.Getenv("AZURE_ACCOUNT_NAME"), os.Getenv("AZURE_ACCOUNT_KEY")
	if account == "" || key == "" {
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_KEY must be set", name)
	}
	cred, err := container.NewSharedKeyCredential(account, key)
	if err != nil {
		// The error may quote the key.
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_ACCOUNT_KEY is not a key", name)
	}
	address, err := containerURL(account, name)
	if err != nil {
		return nil, err
	}
	client, err := container.NewClientWithSharedKeyCredential(address, cred, nil)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	return openAzure(ctx, client, "azure://"+name)
}

// OpenAzureAD opens a container of an account as the application that the environment variables AZURE_CLIENT_ID and
// AZURE_CLIENT_SECRET name.
func OpenAzureAD(ctx context.Context, tenant, account, name string) (bucket.Bucket, error) {
	id, secret := os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_CLIENT_SECRET")
	if id == "" || secret == "" {
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_CLIENT_ID and AZURE_CLIENT_SECRET must be set", name)
	}
	cred, err := azidentity.NewClientSecretCredential(tenant, id, secret, nil)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	address, err := containerURL(account, name)
	if err != nil {
		return nil, err
	}
	client, err := container.NewClient(address, cred, nil)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	b, err := openAzure(ctx, client, fmt.Sprintf("azure-ad://%s/%s/%s", tenant, account, name))
	if err != nil {
		return nil, err
	}
	return &delegated{Bucket: b, signer: newSigner(account, name, cred)}, nil
}

func containerURL(account, name string) (string, error) {
	service, err := azureblob.NewServiceURL(&azureblob.ServiceURLOptions{AccountName: account})
	if err != nil {
		return "", fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	return string(service) + "/" + name, nil
}

func openAzure(ctx context.Context, client *container.Client, base string) (bucket.Bucket, error) {
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open %s: %w", base, err)
	}
	return &object{blob: b, base: base, missing: noSuchContainer}, nil
}

func noSuchContainer(err error) bool {
	return bloberror.HasCode(err, bloberror.ContainerNotFound, bloberror.ContainerDisabled, bloberror.AccountIsDisabled)
}
