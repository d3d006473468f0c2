package cloud

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"golang.org/x/sync/errgroup"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// OpenAzure opens a container of the account that the environment variables AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_KEY name.
func OpenAzure(name string) (bucket.Bucket, error) {
	account, key := os.Getenv("AZURE_ACCOUNT_NAME"), os.Getenv("AZURE_ACCOUNT_KEY")
	if account == "" || key == "" {
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_KEY must be set", name)
	}
	cred, err := container.NewSharedKeyCredential(account, key)
	if err != nil {
		// The error may quote the key.
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_ACCOUNT_KEY is not a key", name)
	}
	b := &azureBucket{transport: newTransport()}
	options := container.ClientOptions{ClientOptions: azureOptions(b.transport)}
	b.client, err = container.NewClientWithSharedKeyCredential(serviceURL(account)+"/"+name, cred, &options)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	b.signURL = func(_ context.Context, key string, ttl time.Duration) (string, error) {
		return b.client.NewBlobClient(key).GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(ttl), nil)
	}
	return &object{provider: b, base: "azure://" + name}, nil
}

// OpenAzureAD opens a container of an account as the application that the environment variables AZURE_CLIENT_ID and
// AZURE_CLIENT_SECRET name.
func OpenAzureAD(tenant, account, name string) (bucket.Bucket, error) {
	id, secret := os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_CLIENT_SECRET")
	if id == "" || secret == "" {
		return nil, fault.New(fault.Precondition, "open Azure container %s: AZURE_CLIENT_ID and AZURE_CLIENT_SECRET must be set", name)
	}
	cred, err := azidentity.NewClientSecretCredential(tenant, id, secret, nil)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	b, err := openDelegated(account, name, cred, newTransport())
	if err != nil {
		return nil, fault.New(fault.Precondition, "open Azure container %s: %w", name, err)
	}
	return &object{provider: b, base: fmt.Sprintf("azure-ad://%s/%s/%s", tenant, account, name)}, nil
}

// openDelegated opens a container without the account's key.
func openDelegated(account, name string, cred azcore.TokenCredential, transport *http.Transport) (*azureBucket, error) {
	options := azureOptions(transport)
	address := serviceURL(account)
	client, err := container.NewClient(address+"/"+name, cred, &container.ClientOptions{ClientOptions: options})
	if err != nil {
		return nil, err
	}
	s, err := newSigner(address, name, cred, options)
	if err != nil {
		return nil, err
	}
	return &azureBucket{client: client, signURL: s.sign, transport: transport}, nil
}

// azureOptions returns options of clients. Callers try again what failed for longer than a moment.
func azureOptions(t *http.Transport) policy.ClientOptions {
	return policy.ClientOptions{
		Transport: &http.Client{Transport: t},
		Retry:     policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 5 * time.Second},
	}
}

// serviceURL returns the URL of an account, without a slash at its end.
func serviceURL(account string) string {
	if u := os.Getenv("AZURE_STORAGE_SERVICE_ENDPOINT"); u != "" {
		return strings.TrimSuffix(u, "/")
	}
	return fmt.Sprintf("https://%s.blob.core.windows.net", account)
}

// azureBucket is a container of Azure Blob Storage.
type azureBucket struct {
	client    *container.Client
	signURL   func(ctx context.Context, key string, ttl time.Duration) (string, error)
	transport *http.Transport
}

func (b *azureBucket) upload(ctx context.Context, key string, o bucket.Object) error {
	blobs := b.client.NewBlockBlobClient(key)
	headers := &blob.HTTPHeaders{BlobContentType: to.Ptr(contentType), BlobContentEncoding: text(o.Encoding), BlobContentMD5: o.MD5}
	var conditions *blob.AccessConditions
	if o.IfAbsent {
		conditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
	}
	if o.Size <= partSize {
		body := streaming.NopCloser(io.NewSectionReader(o.Content, 0, o.Size))
		options := &blockblob.UploadOptions{HTTPHeaders: headers, AccessConditions: conditions}
		if o.MD5 != nil {
			options.TransactionalValidation = blob.TransferValidationTypeMD5(o.MD5)
		}
		_, err := blobs.Upload(ctx, body, options)
		return err
	}
	// Blocks that are not committed go away by themselves.
	ids := make([]string, (o.Size+partSize-1)/partSize)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parts)
	for i := range ids {
		at := int64(i) * partSize
		ids[i] = base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", i))
		group.Go(func() error {
			body := io.NewSectionReader(o.Content, at, min(partSize, o.Size-at))
			sum, err := sumOf(body)
			if err != nil {
				return err
			}
			_, err = blobs.StageBlock(groupCtx, ids[i], streaming.NopCloser(body), &blockblob.StageBlockOptions{
				TransactionalValidation: blob.TransferValidationTypeMD5(sum),
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err := blobs.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{HTTPHeaders: headers, AccessConditions: conditions})
	return err
}

func (b *azureBucket) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	options := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: offset, Count: max(length, 0)}}
	resp, err := b.client.NewBlobClient(key).DownloadStream(ctx, options)
	if err != nil {
		return nil, err
	}
	contentRange := ""
	if resp.ContentRange != nil {
		contentRange = *resp.ContentRange
	}
	if err := checkRange(offset, contentRange); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, nil
}

func (b *azureBucket) stat(ctx context.Context, key string) (bucket.Info, error) {
	p, err := b.client.NewBlobClient(key).GetProperties(ctx, nil)
	if err != nil {
		return bucket.Info{}, err
	}
	return azureInfo(p.ContentLength, p.LastModified, p.ContentMD5), nil
}

func azureInfo(size *int64, modified *time.Time, sum []byte) bucket.Info {
	var info bucket.Info
	if size != nil {
		info.Size = *size
	}
	if modified != nil {
		info.Modified = *modified
	}
	if len(sum) == 16 {
		info.MD5 = sum
	}
	return info
}

func (b *azureBucket) list(ctx context.Context, prefix, mark string, most int) (objects []bucket.Info, next string, err error) {
	pager := b.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Prefix: text(prefix), Marker: text(mark), MaxResults: to.Ptr(int32(most)),
	})
	answer, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, item := range answer.Segment.BlobItems {
		info := azureInfo(item.Properties.ContentLength, item.Properties.LastModified, item.Properties.ContentMD5)
		info.Key = *item.Name
		objects = append(objects, info)
	}
	if answer.NextMarker != nil {
		next = *answer.NextMarker
	}
	return objects, next, nil
}

func (b *azureBucket) remove(ctx context.Context, key string) error {
	_, err := b.client.NewBlobClient(key).Delete(ctx, nil)
	return err
}

func (b *azureBucket) sign(ctx context.Context, key string, ttl time.Duration) (string, error) {
	return b.signURL(ctx, key, ttl)
}

func (b *azureBucket) close() { b.transport.CloseIdleConnections() }

func (*azureBucket) explain(err error) problem {
	switch {
	case bloberror.HasCode(err, bloberror.ContainerNotFound, bloberror.ContainerDisabled, bloberror.AccountIsDisabled):
		return missing
	case bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet):
		return exists
	case bloberror.HasCode(err, bloberror.AuthenticationFailed):
		return failed // what is wrong is not what the caller may do
	}
	var response *azcore.ResponseError
	if !errors.As(err, &response) {
		return failed
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		return absent
	case http.StatusForbidden:
		return denied
	case http.StatusRequestedRangeNotSatisfiable:
		return beyond
	}
	return failed
}
