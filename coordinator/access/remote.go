package access

import (
	"context"
	"crypto/sha256"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Remote is the Authenticator of a process that has no tokens: it asks the one that has, with the credential itself.
type Remote struct {
	access daybookv1.AccessClient
	cache  cache
}

var _ Authenticator = (*Remote)(nil)

// NewRemote returns an Authenticator that asks by a connection whose calls carry the credential of their context's caller
// (CredentialFrom).
func NewRemote(conn grpc.ClientConnInterface) *Remote {
	return &Remote{access: daybookv1.NewAccessClient(conn)}
}

// Authenticate implements Authenticator. It takes every credential for its kind.
func (r *Remote) Authenticate(ctx context.Context, credential string) (Principal, bool, error) {
	sum := sha256.Sum256([]byte(credential))
	now := time.Now()
	if v, ok := r.cache.get(sum, now); ok {
		return v.principal, true, nil
	}
	resp, err := r.access.Identify(WithCaller(ctx, Principal{}, credential), &daybookv1.IdentifyRequest{})
	if err != nil {
		r.cache.remove(sum)
		return Principal{}, true, fault.FromGRPC(err)
	}
	p := Principal{Name: resp.GetPrincipal()}
	for _, x := range resp.GetPermissions() {
		p.Permissions = append(p.Permissions, Permission(x))
	}
	for _, x := range resp.GetProjects() {
		p.Projects = append(p.Projects, types.Project(x))
	}
	r.cache.put(sum, verified{principal: p, until: now.Add(cacheLife)}, now)
	return p, true, nil
}
