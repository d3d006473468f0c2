package cloud

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

const (
	// lease is how long a key is lent. It is renewed at half of that, so URLs may live for the other half.
	lease = 2 * time.Hour
	// skew is how much the clocks of those who check signatures may be behind.
	skew = 5 * time.Minute
)

// signer signs URLs of a container that is opened without the account's key, with a key that the service lends for a while.
type signer struct {
	client             *service.Client
	address, container string

	mu    sync.Mutex
	key   *service.UserDelegationCredential
	until time.Time
}

func newSigner(address, container string, cred azcore.TokenCredential, options policy.ClientOptions) (*signer, error) {
	client, err := service.NewClient(address, cred, &service.ClientOptions{ClientOptions: options})
	if err != nil {
		return nil, err
	}
	return &signer{client: client, address: address, container: container}, nil
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
	return s.address + "/" + s.container + "/" + url.PathEscape(key) + "?" + query.Encode(), nil
}

// lent returns a key that is good for ttl.
func (s *signer) lent(ctx context.Context, now time.Time, ttl time.Duration) (*service.UserDelegationCredential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil && s.until.Sub(now) > max(ttl, lease/2) {
		return s.key, nil
	}
	until := now.Add(min(max(lease, ttl+lease/2), signLimit))
	info := service.KeyInfo{
		Start:  to.Ptr(now.Add(-skew).Format(sas.TimeFormat)),
		Expiry: to.Ptr(until.Format(sas.TimeFormat)),
	}
	key, err := s.client.GetUserDelegationCredential(ctx, info, nil)
	if err != nil {
		return nil, err
	}
	s.key, s.until = key, until
	return key, nil
}
