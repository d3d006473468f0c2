package client

import (
	"crypto/tls"
	"math"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/dispatch"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	maxMessage = 16 << 20
	// window is how much of a stream may be on its way to a reader.
	window = 1 << 20
	// maxReconnect is the longest wait before another attempt to connect.
	maxReconnect = 5 * time.Second
)

// DialConfig says how to reach brokers. Its zero value is good for one broker without authorization.
type DialConfig struct {
	// Zone is where this process runs. Brokers in it are preferred.
	Zone string
	// TLS is for endpoints of the scheme https. nil stands for the system's certificate authorities.
	TLS *tls.Config
	// Authorizer provides tokens for the calls. nil sends none.
	Authorizer auth.Authorizer
	// Router learns and tells which broker serves a journal: usually a RouteCache. nil leaves that to the brokers, which pass
	// on what is not theirs.
	Router pb.DispatchRouter
}

// Client is a routed client. It makes small appends over streams that these share, with brokers that have them.
type Client struct {
	pb.RoutedJournalClient
	conn    *grpc.ClientConn // nil if it is the caller's.
	streams *pipelines
}

// NewClient returns a client of the brokers behind a connection, which stays the caller's.
func NewClient(conn grpc.ClientConnInterface, cfg DialConfig) *Client {
	jc := pb.NewJournalClient(conn)
	if cfg.Authorizer != nil {
		jc = auth.NewClient(jc, cfg.Authorizer)
	}
	router := cfg.Router
	if router == nil {
		router = pb.NoopDispatchRouter{}
	}
	return &Client{
		RoutedJournalClient: pb.NewRoutedJournalClient(jc, router),
		streams:             newPipelines(pb.NewPipelineClient(conn), router, cfg.Authorizer),
	}
}

// Dial returns a client of the brokers of which one is at endpoint: http://host:port, https://host:port or unix://localhost/path. It does
// not wait for them; calls that must not fail meanwhile do.
func Dial(endpoint pb.Endpoint, cfg DialConfig) (*Client, error) {
	target, opts, err := dispatch.Target(endpoint, cfg.Zone, cfg.TLS)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, append(opts,
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: maxReconnect,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A reader that does not read must not hold up the others of its connection. With this a stream's window is fixed, too,
		// at 64 KiB unless it is given.
		grpc.WithInitialConnWindowSize(math.MaxInt32),
		grpc.WithInitialWindowSize(window),
	)...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "connect to %s: %w", endpoint, err)
	}
	c := NewClient(conn, cfg)
	c.conn = conn
	return c, nil
}

// Close closes the connections that Dial made. Calls in flight fail.
func (c *Client) Close() error {
	c.streams.close()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func (c *Client) pipelines() *pipelines { return c.streams }
