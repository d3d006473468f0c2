package auth

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

// header is the name of the metadata, and of the HTTP header, that carries a token.
const header = "authorization"

// Verifier decides what the caller of an RPC may do. Keys are one, which know callers by their tokens; an installation that knows them
// by other means has one of its own.
type Verifier interface {
	// VerifyCall returns what the call of a context may do, which is at least what it requires. The context it returns ends when
	// that permission does; cancel releases it. The refusal has one of the kinds Unauthenticated and Denied.
	VerifyCall(ctx context.Context, required Capability) (_ context.Context, cancel context.CancelFunc, _ Claims, err error)
}

// VerifyCall verifies the token that came with a gRPC call, as VerifyHeader does. The context it returns ends when the token
// does; cancel releases it.
func (k *Keys) VerifyCall(ctx context.Context, required Capability) (_ context.Context, cancel context.CancelFunc, _ Claims, err error) {
	if k == nil {
		return ctx, func() {}, Claims{Capability: All}, nil
	}
	c, err := k.VerifyHeader(metadata.ValueFromIncomingContext(ctx, header), required)
	if err != nil {
		return ctx, func() {}, Claims{}, err
	}
	// A token is accepted a little after its end, and must not come with a context that has ended already.
	ctx, cancel = context.WithDeadline(ctx, c.Expires.Add(leeway))
	return ctx, cancel, c, nil
}

// VerifyHeader verifies the values of a call's Authorization header, of which the first one counts, and that they grant all
// required capabilities. It fails with the kind fault.Unauthenticated. No keys (nil) grant everything to everybody.
func (k *Keys) VerifyHeader(values []string, required Capability) (Claims, error) {
	switch {
	case k == nil:
		return Claims{Capability: All}, nil
	case len(values) == 0 && k.tolerant:
		return Claims{Capability: required, Expires: time.Now().Add(tolerated)}, nil
	case len(values) == 0:
		return Claims{}, unauthenticated("the call has no token; this server demands one")
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok {
		return Claims{}, unauthenticated("the Authorization header is not of the form \"Bearer TOKEN\"")
	}
	c, err := k.Verify(token)
	if err != nil {
		return Claims{}, err
	}
	if !c.Capability.Has(required) {
		return Claims{}, unauthenticated("the token grants %s; the call needs %s", c.Capability, required)
	}
	return c, nil
}
