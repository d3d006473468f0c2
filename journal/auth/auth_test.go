package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func keys(t testing.TB, text string) *Keys {
	t.Helper()
	k, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

type vectors struct {
	Authorization struct {
		Bits          map[string]Capability `json:"capability_bits"`
		Claims        json.RawMessage       `json:"claims_json"`
		AllClaims     json.RawMessage       `json:"claims_json_empty_selector_all_capabilities"`
		Key           string                `json:"key_base64"`
		MetadataKey   string                `json:"metadata_key"`
		MetadataValue string                `json:"metadata_value"`
	}
}

func TestVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/authorization.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	a := v.Authorization
	for name, c := range map[string]Capability{"ALL": All, "APPEND": Append, "APPLY": Apply, "LIST": List, "READ": Read, "REPLICATE": Replicate} {
		if a.Bits[name] != c || c.String() != name {
			t.Errorf("%s is %d, %s", name, c, c)
		}
	}
	k := keys(t, a.Key)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(a.MetadataKey, a.MetadataValue))
	_, cancel, c, err := k.VerifyCall(ctx, List|Read)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if c.Expires.Unix() != 4102444800 || c.Issued.Unix() != 1700000000 || c.Selector.Canonical() != "name=acme/min,env!=prod" {
		t.Errorf("claims %v", c)
	}
	token, err := k.Sign(c)
	if err != nil || "Bearer "+token != a.MetadataValue {
		t.Errorf("signed again: %s, %v", token, err)
	}
	// No selector is written as an empty one.
	token, err = k.Sign(Claims{Capability: All, Expires: time.Unix(4102444800, 0)})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jwt.NewParser().DecodeSegment(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	_ = json.Unmarshal(payload, &got)
	_ = json.Unmarshal(a.AllClaims, &want)
	delete(got, "exp")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("claims %s", payload)
	}
}

func TestKeysRotate(t *testing.T) {
	old, both, rotated := keys(t, "c2VjcmV0"), keys(t, "b3RoZXI=, c2VjcmV0"), keys(t, "\nc2VjcmV0\tb3RoZXI=\n")
	c := Claims{Capability: Read, Expires: time.Now().Add(time.Hour)}
	for _, signer := range []*Keys{old, both, rotated} {
		token, err := signer.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, verifier := range []*Keys{both, rotated} {
			if _, err := verifier.Verify(token); err != nil {
				t.Error(err)
			}
		}
		if _, err := keys(t, "dW5rbm93bg==").Verify(token); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("unknown key: %v", err)
		}
	}
}

func TestParseKeysRefuses(t *testing.T) {
	for _, text := range []string{"", " , ", "AA==", "not base64", "c2VjcmV0,%%", strings.Repeat("c2VjcmV0 ", 65)} {
		if _, err := ParseKeys(text); !fault.Is(err, fault.Invalid) || text != "" && strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", keys(t, "c2VjcmV0"), Token("tok"), Token("tok")); strings.Contains(s, "115") || strings.Contains(s, "tok)") {
		t.Errorf("a secret is printed: %s", s)
	}
}

func TestVerifyHeader(t *testing.T) {
	k, tolerant := keys(t, "c2VjcmV0"), keys(t, "c2VjcmV0,AA==")
	sign := func(method jwt.SigningMethod, key any, claims string) string {
		var m jwt.MapClaims
		if err := json.Unmarshal([]byte(claims), &m); err != nil {
			t.Fatal(err)
		}
		s, err := jwt.NewWithClaims(method, m).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + s
	}
	secret, now := []byte("secret"), time.Now().Unix()
	good := sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":24,"exp":%d}`, now+60))
	for _, c := range []struct {
		name   string
		keys   *Keys
		values []string
		ok     bool
	}{
		{"good", k, []string{good}, true},
		{"the first counts", k, []string{good, "Bearer bad"}, true},
		{"the first counts, bad", k, []string{"Bearer bad", good}, false},
		{"HS384", k, []string{sign(jwt.SigningMethodHS384, secret, fmt.Sprintf(`{"cap":8,"exp":%d}`, now+60))}, true},
		{"HS512", k, []string{sign(jwt.SigningMethodHS512, secret, fmt.Sprintf(`{"cap":8,"exp":%d}`, now+60))}, false},
		{"unsigned", k, []string{sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, fmt.Sprintf(`{"cap":8,"exp":%d}`, now+60))}, false},
		{"no end", k, []string{sign(jwt.SigningMethodHS256, secret, `{"cap":8}`)}, false},
		{"just over", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d}`, now-2))}, true},
		{"over", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d}`, now-10))}, false},
		{"of the future", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d,"iat":%d}`, now+60, now+30))}, false},
		{"not yet", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d,"nbf":%d}`, now+60, now+30))}, false},
		{"another capability", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":2,"exp":%d}`, now+60))}, false},
		{"labels missing", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d,"sel":{"include":{}}}`, now+60))}, true},
		{"bad selector", k, []string{sign(jwt.SigningMethodHS256, secret, fmt.Sprintf(`{"cap":8,"exp":%d,"sel":{"include":{"labels":[{"name":"%%"}]}}}`, now+60))}, false},
		{"another case", k, []string{strings.ToLower(good[:6]) + good[6:]}, false},
		{"two spaces", k, []string{"Bearer  " + good[7:]}, false},
		{"too long", k, []string{"Bearer " + strings.Repeat("x", maxToken+1)}, false},
		{"missing", k, nil, false},
		{"missing, tolerated", tolerant, nil, true},
		{"bad, not tolerated", tolerant, []string{"Bearer bad"}, false},
		{"no keys", nil, nil, true},
	} {
		got, err := c.keys.VerifyHeader(c.values, Read)
		if c.ok != (err == nil) || !c.ok && !fault.Is(err, fault.Unauthenticated) || c.ok && !got.Capability.Has(Read) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// Within the leeway a call has some time left.
func TestContextEndsWithToken(t *testing.T) {
	k := keys(t, "c2VjcmV0")
	token, err := k.Sign(Claims{Capability: Read, Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel, _, err := k.VerifyCall(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token)), Read)
	if err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	defer cancel()
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > leeway {
		t.Errorf("deadline %v", d)
	}
}

func TestAllows(t *testing.T) {
	spec := &pb.JournalSpec{Name: "acme/one", Labels: pb.MustLabelSet("env", "prod")}
	for _, c := range []struct {
		claims Claims
		ok     bool
	}{
		{Claims{}, true},
		{ForJournal(Read, "acme/one;meta"), true},
		{ForJournal(Read, "acme/two"), false},
		{Claims{Selector: &pb.LabelSelector{Exclude: pb.MustLabelSet("env", "prod")}}, false},
	} {
		if c.claims.Allows(spec.LabelSetForMatching()) != c.ok {
			t.Errorf("%v", c.claims)
		}
	}
}

// seen records what each call carries.
type seen struct {
	pb.JournalClient
	keys *Keys
	got  []Claims
}

func (s *seen) note(ctx context.Context) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	c, err := s.keys.VerifyHeader(md.Get("authorization"), 0)
	s.got = append(s.got, c)
	return err
}

func (s *seen) List(ctx context.Context, _ *pb.ListRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ListResponse], error) {
	return nil, s.note(ctx)
}

func (s *seen) Apply(ctx context.Context, _ *pb.ApplyRequest, _ ...grpc.CallOption) (*pb.ApplyResponse, error) {
	return nil, s.note(ctx)
}

func (s *seen) Read(ctx context.Context, _ *pb.ReadRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ReadResponse], error) {
	return nil, s.note(ctx)
}

func (s *seen) Append(ctx context.Context, _ ...grpc.CallOption) (grpc.ClientStreamingClient[pb.AppendRequest, pb.AppendResponse], error) {
	return nil, s.note(ctx)
}

func (s *seen) Replicate(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[pb.ReplicateRequest, pb.ReplicateResponse], error) {
	return nil, s.note(ctx)
}

func (s *seen) ListFragments(ctx context.Context, _ *pb.FragmentsRequest, _ ...grpc.CallOption) (*pb.FragmentsResponse, error) {
	return nil, s.note(ctx)
}

func (s *seen) FragmentStoreHealth(ctx context.Context, _ *pb.FragmentStoreHealthRequest, _ ...grpc.CallOption) (*pb.FragmentStoreHealthResponse, error) {
	return nil, s.note(ctx)
}

func TestClientAsksForWhatItNeeds(t *testing.T) {
	s := &seen{keys: keys(t, "c2VjcmV0")}
	ctx := t.Context()
	selector := &pb.LabelSelector{Include: pb.MustLabelSet("env", "prod")}
	withClaims := WithClaims(ctx, ForJournal(Append, "a/journal"))
	c := NewClient(s, s.keys)
	for _, step := range []struct {
		call     func() error
		cap      Capability
		selector string
		life     time.Duration
	}{
		{func() error { _, err := c.List(ctx, &pb.ListRequest{Selector: selector}); return err }, List, "env=prod", time.Hour},
		{func() error { _, err := c.Apply(ctx, &pb.ApplyRequest{}); return err }, Apply, "", time.Minute},
		{func() error { _, err := c.Read(ctx, &pb.ReadRequest{Journal: "a/journal;x"}); return err }, Read, "name=a/journal", time.Hour},
		{func() error { _, err := c.ListFragments(ctx, &pb.FragmentsRequest{Journal: "a/journal"}); return err }, Read, "name=a/journal", time.Hour},
		{func() error { _, err := c.FragmentStoreHealth(ctx, nil); return err }, Read, "", time.Hour},
		{func() error { _, err := c.Append(withClaims); return err }, Append, "name=a/journal", time.Hour},
		{func() error { _, err := c.Replicate(withClaims); return err }, Append, "name=a/journal", time.Hour},
		{func() error { _, err := c.Apply(withClaims, nil); return err }, Append, "name=a/journal", time.Minute},
	} {
		if err := step.call(); err != nil {
			t.Error(err)
			continue
		}
		got := s.got[len(s.got)-1]
		if got.Capability != step.cap || got.Selector.Canonical() != step.selector || got.Expires.Sub(got.Issued) != step.life {
			t.Errorf("%d: %v", len(s.got), got)
		}
	}
	if _, err := c.Append(ctx); !fault.Is(err, fault.Internal) {
		t.Errorf("append without claims: %v", err)
	}
	fixed := NewClient(s, Token(must(s.keys.Sign(Claims{Capability: All, Expires: time.Now().Add(time.Minute)}))))
	if _, err := fixed.Apply(ctx, nil); err != nil || s.got[len(s.got)-1].Capability != All {
		t.Error(err)
	}
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

func FuzzParseKeys(f *testing.F) {
	f.Add("c2VjcmV0,AA==")
	f.Add("c2VjcmV0\n b3RoZXI=")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKeys(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
			return
		}
		token, err := k.Sign(Claims{Capability: Read, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Verify(token); err != nil {
			t.Error(err)
		}
	})
}

// Whatever a token says that is signed, its claims are proper ones.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		`{"cap":10,"exp":4102444800,"sel":{"include":{"labels":[{"name":"name","value":"a/b","prefix":true}]},"exclude":{"labels":null}}}`,
		`{"cap":4294967295,"exp":4102444800,"iat":1,"nbf":1}`, `{"cap":1e3,"exp":1e300}`, `{"cap":-1,"exp":"x"}`, `{"exp":4102444800,"sel":{"include":{"labels":[null]}}}`, `[]`,
	} {
		f.Add([]byte(s))
	}
	k := keys(f, "c2VjcmV0")
	f.Fuzz(func(t *testing.T, claims []byte) {
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
		mac := hmac.New(sha256.New, []byte("secret"))
		mac.Write([]byte(text))
		c, err := k.Verify(text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
		switch {
		case err != nil && !fault.Is(err, fault.Unauthenticated):
			t.Error(err)
		case err == nil && (c.Selector.Validate() != nil || time.Until(c.Expires) < -2*leeway):
			t.Errorf("%s is accepted: %v", claims, c)
		}
	})
}

func FuzzVerify(f *testing.F) {
	k := keys(f, "c2VjcmV0")
	f.Add(must(k.Sign(Claims{Capability: Read, Expires: time.Unix(4102444800, 0)})))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := k.Verify(token); err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Error(err)
		}
	})
}
