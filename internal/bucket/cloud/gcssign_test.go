package cloud

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"
)

// TestGCSCanonical compares with vectors of https://github.com/googleapis/conformance-tests (storage/v1/v4_signatures.json).
func TestGCSCanonical(t *testing.T) {
	s := &gcsSigner{email: "test-iam-credentials@dummy-project-id.iam.gserviceaccount.com"}
	for _, v := range []struct {
		host, bucket, object string
		at                   time.Time
		ttl                  time.Duration
		toSign               string
	}{
		{
			"storage.googleapis.com", "test-bucket", "test-object", time.Date(2019, 2, 1, 9, 0, 0, 0, time.UTC), 10 * time.Second,
			"GOOG4-RSA-SHA256\n20190201T090000Z\n20190201/auto/storage/goog4_request\n00e2fb794ea93d7adb703edaebdd509821fcc7d4f1a79ac5c8d2b394df109320",
		},
		{
			"storage.googleapis.com", "test-bucket", "test-object", time.Date(2019, 3, 1, 9, 0, 0, 0, time.UTC), 20 * time.Second,
			"GOOG4-RSA-SHA256\n20190301T090000Z\n20190301/auto/storage/goog4_request\n779f19fdb6fd381390e2d5af04947cf21750277ee3c20e0c97b7e46a1dff8907",
		},
		{
			"storage.googleapis.com", "test-bucket", "/path/with/slashes/under_score/amper&sand/file.ext", time.Date(2019, 2, 1, 9, 0, 0, 0, time.UTC), 10 * time.Second,
			"GOOG4-RSA-SHA256\n20190201T090000Z\n20190201/auto/storage/goog4_request\n63c601ecd6ccfec84f1113fc906609cbdf7651395f4300cecd96ddd2c35164f8",
		},
		{
			"localhost", "test-bucket", "test-object", time.Date(2019, 2, 1, 9, 0, 0, 0, time.UTC), 10 * time.Second,
			"GOOG4-RSA-SHA256\n20190201T090000Z\n20190201/auto/storage/goog4_request\ne47446edb8eed4c1797dfd31ce30272be89659a6ef38e91b549740c8f875d27b",
		},
	} {
		if got, _, _ := s.canonical(v.host, v.bucket, v.object, v.at, v.ttl); got != v.toSign {
			t.Errorf("%s/%s/%s: to sign is\n%s\nwant\n%s", v.host, v.bucket, v.object, got, v.toSign)
		}
	}
}

func TestGCSSign(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := func(key string) []byte {
		b, err := json.Marshal(map[string]string{"client_email": "a@b", "private_key": key})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	s, err := newGCSSigner(file(pkcs1))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	u, err := s.sign("http://localhost:8080", "bucket", "a b/c", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(u, "http://localhost:8080/bucket/a%20b/c?X-Goog-Algorithm=") {
		t.Errorf("URL %s", u)
	}
	_, signature, _ := strings.Cut(u, "&X-Goog-Signature=")
	raw, err := hex.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	toSign, _, _ := s.canonical("localhost", "bucket", "a b/c", now.UTC(), time.Hour)
	sum := sha256.Sum256([]byte(toSign))
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], raw); err != nil {
		t.Error(err)
	}
	if s, err := newGCSSigner([]byte(`{"type":"authorized_user"}`)); s != nil || err != nil {
		t.Errorf("credentials without a key: %v, %v", s, err)
	}
	for _, bad := range []string{"secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"} {
		if _, err := newGCSSigner(file(bad)); err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("a bad key: %v", err)
		}
	}
}
