package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Authenticator knows the holders of one kind of bearer credentials.
type Authenticator interface {
	// Authenticate returns who holds a credential. known is false if the credential is not of this kind, which is then asked of the
	// next Authenticator. An error of kind Unauthenticated says that the credential is, or was, of this kind and is not good;
	// any other that this could not be found out.
	Authenticate(ctx context.Context, credential string) (p Principal, known bool, err error)
}

// Chain asks its Authenticators in turn.
type Chain []Authenticator

// maxCredential is the most bytes that a credential may have. It leaves room for the signed ones of identity providers.
const maxCredential = 16 << 10

// errBad is the refusal of credentials that nobody knows, or not any more. It does not say which, and never repeats them.
var errBad = fault.New(fault.Unauthenticated, "the token is not valid here: it was mistyped, revoked, or has expired; an administrator can give another one, with daybook token create")

// ErrForeign is the refusal of credentials that are of no known kind.
var ErrForeign = fault.New(fault.Unauthenticated, "the token is none of those that are known here; an administrator can give one, with daybook token create")

// Authenticate returns who holds a credential; no credential is anonymous. A credential that is not good is an error of kind
// Unauthenticated, and never anonymous.
func (c Chain) Authenticate(ctx context.Context, credential string) (Principal, error) {
	if credential == "" {
		return Principal{Name: Anonymous}, nil
	}
	if len(credential) > maxCredential {
		return Principal{}, errBad
	}
	for _, a := range c {
		p, known, err := a.Authenticate(ctx, credential)
		switch {
		case fault.Is(err, fault.Unauthenticated):
			return Principal{}, err
		case err != nil:
			return Principal{}, fault.New(fault.KindOf(err), "find out whose the token is: %w", err)
		case known:
			return p, nil
		}
	}
	return Principal{}, ErrForeign
}

// Bearer returns the credential of the values of an Authorization header, of which there may be one; none is empty. Its error is of
// kind Unauthenticated.
func Bearer(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		scheme, credential, ok := strings.Cut(values[0], " ")
		credential = strings.TrimSpace(credential)
		if ok && strings.EqualFold(scheme, "Bearer") && credential != "" {
			return credential, nil
		}
		return "", fault.New(fault.Unauthenticated, "the Authorization header is not of the form \"Bearer TOKEN\"")
	}
	return "", fault.New(fault.Unauthenticated, "there are %d Authorization headers; give one", len(values))
}

// Secret returns an Authenticator of one secret, which lives in the memory of processes that know each other.
func Secret(secret string, p Principal) Authenticator {
	return &known{sum: sha256.Sum256([]byte(secret)), principal: p}
}

type known struct {
	sum       [sha256.Size]byte
	principal Principal
}

func (k *known) Authenticate(_ context.Context, credential string) (Principal, bool, error) {
	// Sums have one length, whatever was sent.
	sum := sha256.Sum256([]byte(credential))
	if subtle.ConstantTimeCompare(sum[:], k.sum[:]) != 1 {
		return Principal{}, false, nil
	}
	return k.principal, true, nil
}
