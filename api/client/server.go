package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Server is a server that somebody named.
type Server struct {
	// Host is host:port.
	Host string
	TLS  bool
}

// ParseServer reads host:port and http://host:port, which are in plaintext, and https://host or https://host:port. Its errors are of
// kind Invalid.
func ParseServer(name string) (Server, error) {
	s := Server{Host: name}
	if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return Server{}, notServer(name)
		}
		s = Server{Host: u.Host, TLS: u.Scheme == "https"}
		if s.TLS && u.Port() == "" {
			s.Host = net.JoinHostPort(u.Hostname(), "443")
		}
	}
	if host, port, err := net.SplitHostPort(s.Host); err != nil || host == "" || port == "" {
		return Server{}, notServer(name)
	}
	return s, nil
}

func notServer(name string) error {
	return fault.New(fault.Invalid, "server %q is not an address; give host:port, http://host:port or https://host:port", name)
}

// URL returns the address of the server's pages.
func (s Server) URL() string {
	if s.TLS {
		return "https://" + strings.TrimSuffix(s.Host, ":443")
	}
	return "http://" + s.Host
}

// Loopback reports whether the server is on this machine, by an address that nobody else can answer for.
func (s Server) Loopback() bool {
	host, _, err := net.SplitHostPort(s.Host)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// CheckToken refuses to send a token where others can read it: in plaintext to another machine, unless insecure says that this is meant.
// Its error is of kind Invalid.
func (s Server) CheckToken(token string, insecure bool) error {
	switch {
	case token == "":
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fault.New(fault.Invalid, "the token has white space or other characters that no token has; was it copied whole?")
	case !s.TLS && !s.Loopback() && !insecure:
		return fault.New(fault.Invalid, "the token would be sent to %s in plaintext, where others can read it; use --server https://%s, or --insecure if the network is yours alone", s.Host, s.Host)
	}
	return nil
}

// Options returns the options of a connection to the server whose calls carry the token that the function returns for them. caFile names
// certificates in PEM to trust instead of the system's, if it is not empty.
func (s Server) Options(token func(context.Context) string, caFile string) ([]grpc.DialOption, error) {
	options := []grpc.DialOption{Bearer(token)}
	if !s.TLS {
		if caFile != "" {
			return nil, fault.New(fault.Invalid, "--tls-ca is of no use with %s, which is plaintext; use --server https://%s", s.URL(), s.Host)
		}
		return options, nil
	}
	config, err := TLS(caFile)
	if err != nil {
		return nil, err
	}
	config.ServerName, _, _ = net.SplitHostPort(s.Host)
	return append(options, grpc.WithTransportCredentials(credentials.NewTLS(config))), nil
}

// TLS returns the config of a client that trusts the certificates in a file of PEM; those of the system if caFile is empty.
func TLS(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the trusted certificates: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "there is no certificate in %s; give a file of PEM blocks that begin with -----BEGIN CERTIFICATE-----", caFile)
	}
	return config, nil
}

// Bearer returns the option of a connection whose calls carry a token: what the function returns for the context of each, none if that
// is empty. A call that has other authorization keeps it. Tokens are sent in plaintext, too; see CheckToken.
func Bearer(token func(context.Context) string) grpc.DialOption {
	return grpc.WithPerRPCCredentials(bearer(token))
}

type bearer func(context.Context) string

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get("authorization")) > 0 {
		return nil, nil
	}
	if token := b(ctx); token != "" {
		return map[string]string{"authorization": "Bearer " + token}, nil
	}
	return nil, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// maxTokenFile is more than any token has.
const maxTokenFile = 16 << 10

// TokenFile returns where the user keeps the token for a server: daybook/tokens/HOST_PORT below their config directory. Each server has
// a file of its own, so that no server is shown the token for another.
func (s Server) TokenFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the user's config directory: %w", err)
	}
	return filepath.Join(dir, "daybook", "tokens", strings.NewReplacer(":", "_", "[", "", "]", "", "%", "_").Replace(s.Host)), nil
}

// SavedToken returns the token that the user keeps for the server; empty if there is none. A file that others may read or write is
// refused, with an error of kind Invalid.
func (s Server) SavedToken() (string, error) {
	path, err := s.TokenFile()
	if err != nil {
		return "", nil //nolint:nilerr // without a config directory, there is no token in it
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the token for %s: %w", s.Host, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read the token for %s: %w", s.Host, err)
	}
	if !info.Mode().IsRegular() || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.Invalid, "the token in %s can be read by others (%v); run chmod 600 %s, and have the token revoked if it was read", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("read the token for %s: %w", s.Host, err)
	}
	if len(b) > maxTokenFile {
		return "", fault.New(fault.Invalid, "%s is too long for a token", path)
	}
	return strings.TrimSpace(string(b)), nil
}
