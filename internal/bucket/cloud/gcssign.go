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
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// gcsSigner signs URLs with the key of a service account (Google's V4 signing process).
type gcsSigner struct {
	email string
	key   *rsa.PrivateKey
}

// newGCSSigner returns a signer with the key in a file of credentials, or nil if there is none. Its errors do not quote the
// file.
func newGCSSigner(credentials []byte) (*gcsSigner, error) {
	var account struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	if err := json.Unmarshal(credentials, &account); err != nil {
		return nil, errors.New("the credentials are not JSON")
	}
	if account.Key == "" {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(account.Key))
	if block == nil {
		return nil, errors.New("the private key of the credentials is not in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("the private key of the credentials is not an RSA key")
	}
	return &gcsSigner{email: account.Email, key: key}, nil
}

// sign returns a URL of an object below an address for a time from now on.
func (s *gcsSigner) sign(address, name, key string, now time.Time, ttl time.Duration) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	toSign, path, query := s.canonical(u.Hostname(), name, key, now.UTC(), ttl)
	sum := sha256.Sum256([]byte(toSign))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s://%s%s?%s&X-Goog-Signature=%x", u.Scheme, u.Host, path, query, signature), nil
}

// canonical returns the text to be signed, and the path and the query in it. The host comes without a port.
func (s *gcsSigner) canonical(host, name, key string, now time.Time, ttl time.Duration) (toSign, path, query string) {
	const algorithm = "GOOG4-RSA-SHA256"
	scope := now.Format("20060102") + "/auto/storage/goog4_request"
	at := now.Format("20060102T150405Z")
	path = "/" + percent(name) + "/" + strings.ReplaceAll(percent(key), "%2F", "/")
	query = strings.Join([]string{ // in the order of the names
		"X-Goog-Algorithm=" + algorithm,
		"X-Goog-Credential=" + percent(s.email+"/"+scope),
		"X-Goog-Date=" + at,
		fmt.Sprintf("X-Goog-Expires=%d", int(ttl.Seconds())),
		"X-Goog-SignedHeaders=host",
	}, "&")
	request := strings.Join([]string{"GET", path, query, "host:" + host, "", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(request))
	return strings.Join([]string{algorithm, at, scope, hex.EncodeToString(sum[:])}, "\n"), path, query
}

// percent encodes all bytes but letters, digits, and "-._~".
func percent(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
