package auth

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// leeway is how far clocks may be apart.
	leeway = 5 * time.Second
	// maxToken is the longest token that is looked at.
	maxToken = 64 << 10
	maxKeys  = 64
	// tolerated is how long a caller without a token may go on, where that is tolerated.
	tolerated = time.Hour
)

// Keys sign tokens, and verify them.
type Keys struct {
	keys []jwt.VerificationKey // The first one signs.
	// tolerant lets calls without a token pass.
	tolerant bool
}

// ParseKeys parses keys in base64, divided by commas or white space. The first one signs; each verifies, so that keys can be
// changed one after the other. Among them AA== is none: it lets calls without any token pass as if they had one for
// everything, while a fleet begins to use tokens.
func ParseKeys(text string) (*Keys, error) {
	k := new(Keys)
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	for i, field := range fields {
		key, err := base64.StdEncoding.DecodeString(field)
		if err != nil {
			return nil, fault.New(fault.Invalid, "key %d of %d is not base64", i+1, len(fields))
		}
		if len(key) == 1 && key[0] == 0 {
			k.tolerant = true
			continue
		}
		if len(key) == 0 {
			return nil, fault.New(fault.Invalid, "key %d of %d is empty", i+1, len(fields))
		}
		k.keys = append(k.keys, key)
	}
	switch {
	case len(k.keys) == 0:
		return nil, fault.New(fault.Invalid, "there is no key; give at least one, in base64")
	case len(k.keys) > maxKeys:
		return nil, fault.New(fault.Invalid, "there are %d keys; at most %d are used", len(k.keys), maxKeys)
	}
	return k, nil
}

// String keeps keys out of logs.
func (k *Keys) String() string { return "auth.Keys(…)" }

// GoString keeps keys out of logs.
func (k *Keys) GoString() string { return k.String() }

// wireClaims are claims as a token has them.
type wireClaims struct {
	Cap uint32        `json:"cap"`
	Sel *wireSelector `json:"sel"`
	jwt.RegisteredClaims
}

type wireSelector struct {
	Include wireSet `json:"include"`
	Exclude wireSet `json:"exclude"`
}

type wireSet struct {
	Labels []wireLabel `json:"labels"`
}

type wireLabel struct {
	Name   string `json:"name,omitempty"`
	Value  string `json:"value,omitempty"`
	Prefix bool   `json:"prefix,omitempty"`
}

func toWire(s *pb.LabelSet) (out wireSet) {
	for _, l := range s.GetLabels() {
		out.Labels = append(out.Labels, wireLabel{l.GetName(), l.GetValue(), l.GetPrefix()})
	}
	return out
}

func (s wireSet) labels() *pb.LabelSet {
	out := new(pb.LabelSet)
	for _, l := range s.Labels {
		out.Labels = append(out.Labels, &pb.Label{Name: l.Name, Value: l.Value, Prefix: l.Prefix})
	}
	return out
}

// Sign returns a token of the claims, which must have an end.
func (k *Keys) Sign(c Claims) (string, error) {
	if c.Expires.IsZero() {
		return "", fault.New(fault.Invalid, "sign a token: it has no end")
	}
	w := &wireClaims{
		Cap:              uint32(c.Capability),
		Sel:              &wireSelector{toWire(c.Selector.GetInclude()), toWire(c.Selector.GetExclude())},
		RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(c.Expires)},
	}
	if !c.Issued.IsZero() {
		w.IssuedAt = jwt.NewNumericDate(c.Issued)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, w).SignedString(k.keys[0])
	if err != nil {
		return "", fault.New(fault.Internal, "sign a token: %w", err)
	}
	return token, nil
}

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{"HS256", "HS384"}),
	jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
)

// Verify returns the claims of a token. It fails with the kind fault.Unauthenticated.
func (k *Keys) Verify(token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, unauthenticated("token of %d bytes is too long", len(token))
	}
	var w wireClaims
	_, err := parser.ParseWithClaims(token, &w, func(*jwt.Token) (any, error) { return jwt.VerificationKeySet{Keys: k.keys}, nil })
	if err != nil {
		return Claims{}, unauthenticated("token: %w", err)
	}
	c := Claims{Capability: Capability(w.Cap), Expires: w.ExpiresAt.Time}
	if w.IssuedAt != nil {
		c.Issued = w.IssuedAt.Time
	}
	if w.Sel != nil {
		c.Selector = &pb.LabelSelector{Include: w.Sel.Include.labels(), Exclude: w.Sel.Exclude.labels()}
		if err := c.Selector.Validate(); err != nil {
			return Claims{}, unauthenticated("selector of the token: %w", err)
		}
	}
	return c, nil
}
