package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// TokenPrefix begins every token, so that people and programs that look for leaked secrets recognize them.
	TokenPrefix = "dbk_"
	tokenBytes  = 32

	maxTokens   = 10_000              // that exist at once
	listExpired = 30 * 24 * time.Hour // is how long expired tokens are listed
	maxProjects = 1000                // in the scope of a token
	maxLife     = 10 * 366 * 24 * time.Hour
)

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@/-]{0,99}$`)

// Token is what is known of a token. The token itself is known to its holder only.
type Token struct {
	// Name is unique; the token's holder is the principal token:NAME.
	Name string
	// Permissions are what the token grants, those of logs in Projects. A token without permissions proves a name, to which the
	// configuration may grant some.
	Permissions []Permission
	Projects    []types.Project
	// CreatedBy is the principal who asked for it.
	CreatedBy        string
	Created, Expires time.Time
}

// Principal is who holds the token.
func (t *Token) Principal() Principal {
	return Principal{Name: "token:" + t.Name, Permissions: t.Permissions, Projects: t.Projects}
}

// scopes is how a token's permissions are stored.
type scopes struct {
	Permissions []Permission    `json:"permissions,omitempty"`
	Projects    []types.Project `json:"projects,omitempty"`
	CreatedBy   string          `json:"created_by,omitempty"`
}

// Tokens issues tokens and knows their holders. A token is TokenPrefix and 256 random bits; its SHA-256 is what is stored. With so
// many random bits, a hash that is slow on purpose would protect nothing.
type Tokens struct {
	store state.Tokens

	cache cache

	creating sync.Mutex // names are looked up and taken under it
}

var _ Authenticator = (*Tokens)(nil)

// NewTokens returns the tokens of a store.
func NewTokens(store state.Tokens) *Tokens {
	return &Tokens{store: store}
}

// Create issues a token of t's name, permissions and projects that expires after life, and completes t. This is the only time that
// the token is seen. A name that a token has which has not expired is refused as Exists.
func (s *Tokens) Create(ctx context.Context, t *Token, life time.Duration) (token string, err error) {
	if err := t.validate(life); err != nil {
		return "", err
	}
	t.Created = time.Now().UTC().Round(time.Microsecond)
	t.Expires = t.Created.Add(life)
	t.CreatedBy = PrincipalFrom(ctx).String()
	scopes, err := json.Marshal(scopes{Permissions: t.Permissions, Projects: t.Projects, CreatedBy: t.CreatedBy})
	if err != nil {
		return "", err
	}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))

	s.creating.Lock()
	defer s.creating.Unlock()
	if err := s.available(ctx, t.Name); err != nil {
		return "", err
	}
	err = s.store.PutToken(ctx, &state.Token{
		ID: t.Name, Name: t.Name, Hash: sum[:], Scopes: scopes, Created: t.Created, Expires: t.Expires,
	})
	if fault.Is(err, fault.Exists) {
		return "", errTaken(t.Name) // by another process, just now
	}
	if err != nil {
		return "", err
	}
	return token, nil
}

func (t *Token) validate(life time.Duration) error {
	switch {
	case !tokenName.MatchString(t.Name):
		return fault.New(fault.Invalid, "%q is no name of a token; use letters, digits, '_', '.', '@', '/' and '-', at most 100 of them", clip(t.Name))
	case life <= 0 || life > maxLife:
		return fault.New(fault.Invalid, "a token must expire, in at most ten years")
	case len(t.Projects) > maxProjects:
		return fault.New(fault.Invalid, "a token for %d projects; at most %d are allowed, or %q for all", len(t.Projects), maxProjects, AllProjects)
	}
	inProjects := false
	for _, p := range t.Permissions {
		if !slices.Contains(Permissions, p) {
			return fault.New(fault.Invalid, "%q is not a permission; there are %s", clip(string(p)), strings.Join(texts(Permissions), ", "))
		}
		inProjects = inProjects || !p.Global()
	}
	if inProjects && len(t.Projects) == 0 {
		return fault.New(fault.Invalid, "the permissions hold in projects; name some, or %q for all", AllProjects)
	}
	if !inProjects && len(t.Projects) > 0 {
		return fault.New(fault.Invalid, "there is no permission that holds in projects; give some, or no project")
	}
	for _, p := range t.Projects {
		if p == AllProjects {
			continue
		}
		if err := p.Validate(); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
	slices.Sort(t.Permissions)
	t.Permissions = slices.Compact(t.Permissions)
	slices.Sort(t.Projects)
	t.Projects = slices.Compact(t.Projects)
	return nil
}

// available returns an error unless a token of a name can be put in the store. It makes room by removing tokens that have long expired.
func (s *Tokens) available(ctx context.Context, name string) error {
	all, err := s.store.ListTokens(ctx)
	if err != nil {
		return err
	}
	now, count := time.Now(), 0
	for _, t := range all {
		switch {
		case t.ID == name && now.Before(t.Expires):
			return errTaken(name)
		case now.Sub(t.Expires) < listExpired:
			count++
		default:
			if err := s.store.DeleteToken(ctx, t.ID); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
	}
	if count >= maxTokens {
		return fault.New(fault.Exhausted, "there are %d tokens, and there may not be more; revoke some with daybook token revoke", count)
	}
	return nil
}

func errTaken(name string) error {
	return fault.New(fault.Exists, "there is a token %q already; choose another name, or revoke it first", name)
}

// List returns all tokens, the oldest first, also those that have expired.
func (s *Tokens) List(ctx context.Context) ([]*Token, error) {
	stored, err := s.store.ListTokens(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]*Token, len(stored))
	for i, t := range stored {
		if all[i], err = fromStore(t); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Revoke ends a token. An unknown name is an error of kind NotFound.
func (s *Tokens) Revoke(ctx context.Context, name string) error {
	err := fault.New(fault.NotFound, "no name of a token")
	if tokenName.MatchString(name) {
		err = s.store.DeleteToken(ctx, name)
	}
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "there is no token %q; daybook token ls shows all", clip(name))
	}
	if err == nil {
		s.cache.clear() // this process need not wait
	}
	return err
}

// Authenticate implements Authenticator.
func (s *Tokens) Authenticate(ctx context.Context, credential string) (Principal, bool, error) {
	if !strings.HasPrefix(credential, TokenPrefix) {
		return Principal{}, false, nil
	}
	sum := sha256.Sum256([]byte(credential))
	now := time.Now()
	v, ok := s.cache.get(sum, now)
	if !ok {
		stored, err := s.store.TokenByHash(ctx, sum[:])
		switch {
		case fault.Is(err, fault.NotFound):
			s.cache.remove(sum)
			return Principal{}, true, errBad
		case err != nil:
			return Principal{}, true, err
		case subtle.ConstantTimeCompare(stored.Hash, sum[:]) != 1:
			return Principal{}, true, errBad
		}
		t, err := fromStore(stored)
		if err != nil {
			return Principal{}, true, err
		}
		v = verified{principal: t.Principal(), expires: t.Expires, until: now.Add(cacheLife)}
		s.cache.put(sum, v, now)
	}
	if !now.Before(v.expires) {
		return Principal{}, true, errBad
	}
	return v.principal, true, nil
}

func fromStore(t *state.Token) (*Token, error) {
	var sc scopes
	if err := json.Unmarshal(t.Scopes, &sc); err != nil {
		return nil, fault.New(fault.DataLoss, "the scopes of token %q cannot be read: %w; revoke it and create another", t.ID, err)
	}
	return &Token{
		Name: t.ID, Permissions: sc.Permissions, Projects: sc.Projects, CreatedBy: sc.CreatedBy, Created: t.Created, Expires: t.Expires,
	}, nil
}

// clip keeps what callers sent short in errors.
func clip(s string) string { return s[:min(len(s), 120)] }
