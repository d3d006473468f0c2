package dispatch

import (
	"context"
	"crypto/tls"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Target returns what to give to grpc.NewClient for connections to the brokers of which one is at endpoint.
//
// Calls prefer brokers of the zone. A nil config stands for the system's certificate authorities.
func Target(endpoint pb.Endpoint, zone string, config *tls.Config) (target string, opts []grpc.DialOption, err error) {
	if target, err = endpoint.DialAddress(); err != nil {
		return "", nil, err
	}
	if !strings.HasPrefix(target, "unix:") {
		// The dialer resolves names, each time anew.
		target = "passthrough:///" + target
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	_, encrypted := endpoint.TLS()
	return target, []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig(zone)),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(&transport{
			TransportCredentials: insecure.NewCredentials(), tls: credentials.NewTLS(config), byDefault: encrypted,
		}),
	}, nil
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", address)
}

type tlsKey struct{}

func withTLS(a resolver.Address, encrypted bool) resolver.Address {
	a.Attributes = attributes.New(tlsKey{}, encrypted)
	return a
}

// transport are credentials that encrypt, or do not, as each address says. Addresses that do not say are the dialed one.
type transport struct {
	credentials.TransportCredentials // In plain text.

	tls       credentials.TransportCredentials
	byDefault bool
}

func (t *transport) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	encrypted, ok := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(tlsKey{}).(bool)
	if !ok {
		encrypted = t.byDefault
	}
	if encrypted {
		return t.tls.ClientHandshake(ctx, authority, conn)
	}
	return t.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

func (t *transport) Clone() credentials.TransportCredentials {
	c := *t
	return &c
}
