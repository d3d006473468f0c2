package cloud

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
	"gocloud.dev/blob/azureblob"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// delegated is a container that is opened without the account's key. URLs are signed with a key that the service lends
// for a while.
type delegated struct {
	bucket.Bucket
	signer *signer
}

// SignedURL implements bucket.Bucket.
func (d *delegated) SignedURL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return "", err
	}
	u, err := d.signer.sign(ctx, key, ttl)
	if err != nil {
		return "", fault.New(fault.Transient, "bucket: sign a URL of %s: %w", key, err)
	}
	return u, nil
}

const (
	// lease is how long a key is lent. It is renewed at half of that, so URLs may live for the other half.
	lease = 2 * time.Hour
	// skew is how much the clocks of those who check signatures may be behind.
	skew = 5 * time.Minute
)

type signer struct {
	account, container string
	cred               azcore.TokenCredential

	mu    sync.Mutex
	key   *service.UserDelegationCredential
	until time.Time
}

func newSigner(account, container string, cred azcore.TokenCredential) *signer {
	return &signer{account: account, container: container, cred: cred}
}

func (s *signer) sign(ctx context.Context, key string, ttl time.Duration) (string, error) {
	now := time.Now().UTC()
	lent, err := s.lent(ctx, now, ttl)
	if err != nil {
		return "", err
	}
	values := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPS, StartTime: now.Add(-skew), ExpiryTime: now.Add(ttl),
		Permissions: (&sas.BlobPermissions{Read: true}).String(), ContainerName: s.container, BlobName: key,
	}
	query, err := values.SignWithUserDelegation(lent)
	if err != nil {
		return "", err
	}
	address, err := containerURL(s.account, s.container)
	if err != nil {
		return "", err
	}
	parts, err := sas.ParseURL(address)
	if err != nil {
		return "", err
	}
	parts.BlobName, parts.SAS = key, query
	return parts.String(), nil
}

// lent returns a key that is good for ttl.
func (s *signer) lent(ctx context.Context, now time.Time, ttl time.Duration) (*service.UserDelegationCredential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil && s.until.Sub(now) > max(ttl, lease/2) {
		return s.key, nil
	}
	address, err := azureblob.NewServiceURL(&azureblob.ServiceURLOptions{AccountName: s.account})
	if err != nil {
		return nil, err
	}
	client, err := service.NewClient(string(address), s.cred, nil)
	if err != nil {
		return nil, err
	}
	until := now.Add(max(lease, ttl+lease/2))
	info := service.KeyInfo{
		Start:  to.Ptr(now.Add(-skew).Format(sas.TimeFormat)),
		Expiry: to.Ptr(until.Format(sas.TimeFormat)),
	}
	key, err := client.GetUserDelegationCredential(ctx, info, nil)
	if err != nil {
		return nil, err
	}
	s.key, s.until = key, until
	return key, nil
}
