package auth

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// callLife is the life of the tokens of most calls, after which a long read must be made anew; applyLife that of the ones
	// that change specs.
	callLife  = time.Hour
	applyLife = time.Minute
)

// Authorizer provides tokens for calls.
type Authorizer interface {
	// Authorize returns a token that grants at least the claims, until they expire if it can choose.
	Authorize(ctx context.Context, c Claims) (token string, err error)
}

// Authorize implements Authorizer with a token of its own for each call.
func (k *Keys) Authorize(_ context.Context, c Claims) (string, error) { return k.Sign(c) }

// Token is an Authorizer of one token, whatever it grants.
type Token string

// Authorize implements Authorizer.
func (t Token) Authorize(context.Context, Claims) (string, error) { return string(t), nil }

// String keeps the token out of logs.
func (Token) String() string { return "auth.Token(…)" }

// GoString keeps the token out of logs.
func (t Token) GoString() string { return t.String() }

// NewClient returns a client whose calls carry tokens. Calls request what they need and no more, unless their context has claims
// (WithClaims). Append and Replicate must have them, since a stream says what it is about only after it was opened; the
// appenders of package client provide them.
func NewClient(jc pb.JournalClient, a Authorizer) pb.JournalClient { return &client{jc, a} }

type client struct {
	jc   pb.JournalClient
	auth Authorizer
}

// authorize returns a context with a token for the claims, or those that the context already has.
func (c *client) authorize(ctx context.Context, fallback Claims, life time.Duration) (context.Context, error) {
	claims, ok := ClaimsOf(ctx)
	if !ok {
		claims = fallback
	}
	if claims.Capability == 0 {
		return nil, fault.New(fault.Internal, "the call needs claims in its context, to say which journal it is for")
	}
	return withToken(ctx, c.auth, claims, life)
}

// WithToken returns a context whose calls carry a token for the claims. It is for calls that NewClient knows nothing of.
func WithToken(ctx context.Context, a Authorizer, claims Claims) (context.Context, error) {
	return withToken(ctx, a, claims, callLife)
}

func withToken(ctx context.Context, a Authorizer, claims Claims, life time.Duration) (context.Context, error) {
	if claims.Expires.IsZero() {
		claims.Issued = time.Now()
		claims.Expires = claims.Issued.Add(life)
	}
	token, err := a.Authorize(ctx, claims)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, header, "Bearer "+token), nil
}

func (c *client) List(ctx context.Context, in *pb.ListRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ListResponse], error) {
	ctx, err := c.authorize(ctx, Claims{Capability: List, Selector: in.GetSelector()}, callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.List(ctx, in, opts...)
}

func (c *client) Apply(ctx context.Context, in *pb.ApplyRequest, opts ...grpc.CallOption) (*pb.ApplyResponse, error) {
	ctx, err := c.authorize(ctx, Claims{Capability: Apply}, applyLife)
	if err != nil {
		return nil, err
	}
	return c.jc.Apply(ctx, in, opts...)
}

func (c *client) Read(ctx context.Context, in *pb.ReadRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ReadResponse], error) {
	ctx, err := c.authorize(ctx, ForJournal(Read, pb.Journal(in.GetJournal())), callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.Read(ctx, in, opts...)
}

func (c *client) Append(ctx context.Context, opts ...grpc.CallOption) (grpc.ClientStreamingClient[pb.AppendRequest, pb.AppendResponse], error) {
	ctx, err := c.authorize(ctx, Claims{}, callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.Append(ctx, opts...)
}

func (c *client) Replicate(ctx context.Context, opts ...grpc.CallOption) (grpc.BidiStreamingClient[pb.ReplicateRequest, pb.ReplicateResponse], error) {
	ctx, err := c.authorize(ctx, Claims{}, callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.Replicate(ctx, opts...)
}

func (c *client) ListFragments(ctx context.Context, in *pb.FragmentsRequest, opts ...grpc.CallOption) (*pb.FragmentsResponse, error) {
	ctx, err := c.authorize(ctx, ForJournal(Read, pb.Journal(in.GetJournal())), callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.ListFragments(ctx, in, opts...)
}

func (c *client) FragmentStoreHealth(ctx context.Context, in *pb.FragmentStoreHealthRequest, opts ...grpc.CallOption) (*pb.FragmentStoreHealthResponse, error) {
	ctx, err := c.authorize(ctx, Claims{Capability: Read}, callLife)
	if err != nil {
		return nil, err
	}
	return c.jc.FragmentStoreHealth(ctx, in, opts...)
}
