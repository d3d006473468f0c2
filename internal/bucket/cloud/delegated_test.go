package cloud

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/buckettest"
	"github.com/daybook-dev/daybook/journal/store/storetest"
)

const (
	tenant = "00000000-0000-0000-0000-000000000001"
	person = "00000000-0000-0000-0000-000000000002"
)

// token is a credential that the test's server takes for one of a directory.
type token struct{}

func (token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/" + tenant + "/", "tid": tenant,
		"oid": person, "iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(),
		"exp": now.Add(time.Hour).Unix(),
	})
	if err != nil {
		return azcore.AccessToken{}, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims) + "." + encode([]byte("signature"))
	return azcore.AccessToken{Token: text, ExpiresOn: now.Add(time.Hour)}, nil
}

// TestAzureAD opens a container without the account's key. URLs are signed with a key that the service lends, once.
func TestAzureAD(t *testing.T) {
	server, pool := storetest.StartAzureTLS(t)
	t.Setenv("AZURE_STORAGE_SERVICE_ENDPOINT", "https://"+storetest.AzureHost)
	transport := func() *http.Transport {
		tr := newTransport()
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(server.Endpoint(), "https://"))
		}
		return tr
	}
	open := func(t *testing.T) (*object, *azureBucket) {
		b, err := openDelegated(storetest.AzureAccount, server.Bucket(), token{}, transport())
		if err != nil {
			t.Fatal(err)
		}
		return &object{provider: b, base: "azure-ad://tenant/account/container"}, b
	}
	t.Run("Bucket", func(t *testing.T) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket {
			b, _ := open(t)
			for info, err := range b.List(t.Context(), "") {
				if err == nil {
					err = b.Delete(t.Context(), info.Key)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			return b
		})
	})
	// The test's server does not know this version of signatures, so the URL is not fetched.
	t.Run("Signed", func(t *testing.T) {
		b, _ := open(t)
		defer b.Close()
		const key = "a b/ü=%+~/c"
		var keys []string
		for range 2 {
			signed, err := b.SignedURL(t.Context(), key, 90*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(signed)
			if err != nil || u.Scheme != "https" || u.Host != storetest.AzureHost || u.Path != "/"+server.Bucket()+"/"+key {
				t.Errorf("URL %s, %v", signed, err)
			}
			query := u.Query()
			for name, want := range map[string]string{
				"sp": "r", "sr": "b", "spr": "https", "sktid": tenant, "skoid": person, // to read one object, signed for whom
			} {
				if query.Get(name) != want {
					t.Errorf("%s is %q in %s, want %q", name, query.Get(name), signed, want)
				}
			}
			expires, err := time.Parse(time.RFC3339, query.Get("se"))
			if err != nil || time.Until(expires) < 89*time.Minute || time.Until(expires) > 90*time.Minute {
				t.Errorf("the URL expires at %v, %v", expires, err)
			}
			lent, err := time.Parse(time.RFC3339, query.Get("ske"))
			if err != nil || lent.Before(expires) || query.Get("sig") == "" {
				t.Errorf("the key expires at %v, before the URL, or nothing is signed: %v", lent, err)
			}
			keys = append(keys, query.Get("ske")+query.Get("skt"))
		}
		if keys[0] != keys[1] {
			t.Error("a key is lent for each URL")
		}
	})
}
