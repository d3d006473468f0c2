package protocol

import (
	"net/url"
	"strings"
)

// Endpoint is the URL of a process.
type Endpoint string

// Validate returns an error unless the endpoint is an absolute URL with a host.
func (e Endpoint) Validate() error {
	_, err := e.url()
	return err
}

func (e Endpoint) url() (*url.URL, error) {
	u, err := absoluteURL(string(e))
	if err != nil {
		return nil, err
	}
	if u.Host == "" {
		return nil, violation(URLMissingHost, "endpoint %s has no host", quote(string(e)))
	}
	return u, nil
}

// DialAddress returns the address to connect to, as gRPC writes it: "host:port", or "unix:///path" for a Unix socket.
func (e Endpoint) DialAddress() (string, error) {
	u, err := e.url()
	switch {
	case err != nil:
		return "", err
	case u.Scheme == "unix":
		return "unix://" + u.Path, nil
	case u.Port() != "":
		return u.Host, nil
	case u.Scheme == "http":
		return u.Host + ":80", nil
	case u.Scheme == "https":
		return u.Host + ":443", nil
	}
	return u.Host, nil
}

// TLS reports whether connections to the endpoint are encrypted, and the server's name for its certificate.
func (e Endpoint) TLS() (serverName string, ok bool) {
	u, err := e.url()
	if err != nil || u.Scheme != "https" {
		return "", false
	}
	return u.Hostname(), true
}

func absoluteURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The error of net/url repeats the whole URL, which may carry a secret.
		return nil, violation(InvalidURL, "not a URL")
	}
	if !u.IsAbs() {
		return nil, violation(URLNotAbsolute, "URL %s is not absolute", quote(s))
	}
	return u, nil
}

// FragmentStore is the URL of a place for fragments. The exact text matters: it is what a fragment names as its backing
// store.
type FragmentStore string

// Validate returns an error unless the URL is of a known scheme and names a directory.
func (s FragmentStore) Validate() error {
	_, err := s.URL()
	return err
}

// URL returns the parsed and validated URL.
func (s FragmentStore) URL() (*url.URL, error) {
	u, err := absoluteURL(string(s))
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "s3", "gs", "azure":
		if u.Host == "" {
			return nil, violation(StoreBucket, "store has no bucket; write %s://bucket/prefix/", u.Scheme)
		}
	case "azure-ad":
		if err := validateAzureAD(u); err != nil {
			return nil, err
		}
	case "file":
		if u.Host != "" {
			return nil, violation(FileStoreHost, "file store has the host %s; write file:///prefix/", quote(u.Host))
		}
	default:
		return nil, violation(StoreScheme, "store has the unknown scheme %s", quote(u.Scheme))
	}
	if !strings.HasSuffix(u.Path, "/") {
		return nil, violation(StoreTrailingSlash, "path of the store must end with a slash")
	}
	return u, nil
}

// validateAzureAD checks azure-ad://tenant/account/container/prefix/.
func validateAzureAD(u *url.URL) error {
	account, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	container, _, _ := strings.Cut(rest, "/")
	switch {
	case u.Host == "":
		return violation(StoreTenant, "store has no tenant; write azure-ad://tenant/account/container/prefix/")
	case account == "":
		return violation(StoreAccount, "store has no account; write azure-ad://tenant/account/container/prefix/")
	case container == "":
		return violation(StoreContainer, "store has no container; write azure-ad://tenant/account/container/prefix/")
	}
	return nil
}
