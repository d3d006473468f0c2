package prpc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ClientConfig configures a Client. Host must be set.
type ClientConfig struct {
	// Host is the server's name or address, with a port if that is not the scheme's.
	Host string
	// Insecure is plain HTTP. Otherwise it is HTTPS.
	Insecure bool
	// HTTP makes the requests, and authorizes them; zero is http.DefaultClient. It should have no timeout of its own.
	HTTP *http.Client
	// UserAgent is what servers' logs name the client by; empty is "pRPC Client 1.5".
	UserAgent string
	// AttemptTimeout is how long one attempt may take; zero is as long as the call.
	AttemptTimeout time.Duration
	// Retries is how many more attempts are made when one fails in a way that may pass, after 1 s, 2 s, 4 s and so on;
	// zero is 5, negative is none.
	Retries int
	// MaxResponseSize is the largest response taken, in bytes; zero is 32 MiB less 32 KiB.
	MaxResponseSize int64
}

// Client calls the services of a server by pRPC. Its errors are gRPC statuses, with their details.
//
// Attempts that end with Internal, Unknown, Unavailable, or DeadlineExceeded while the call has time left are repeated, so every
// method that is called must tolerate repeats. Outgoing metadata becomes headers; of the call options, grpc.Header,
// grpc.Trailer and grpc.MaxCallRecvMsgSize count.
type Client struct {
	config ClientConfig
	base   url.URL
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// NewClient returns a Client. It holds nothing that would have to be closed.
func NewClient(c ClientConfig) *Client {
	c.HTTP = cmp.Or(c.HTTP, http.DefaultClient)
	c.UserAgent = cmp.Or(c.UserAgent, "pRPC Client 1.5")
	c.Retries = cmp.Or(c.Retries, 5)
	c.MaxResponseSize = cmp.Or(c.MaxResponseSize, maxResponseSize)
	scheme := "https"
	if c.Insecure {
		scheme = "http"
	}
	return &Client{config: c, base: url.URL{Scheme: scheme, Host: c.Host}}
}

// NewStream fails: pRPC has no streams.
func (c *Client) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "call %s: pRPC has no streams", method)
}

// Invoke calls a method, "/<service>/<method>". args and reply are of type proto.Message.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	in, ok := args.(proto.Message)
	out, too := reply.(proto.Message)
	if !ok || !too {
		return status.Errorf(codes.Internal, "call %s: %T and %T are not messages", method, args, reply)
	}
	body, err := proto.Marshal(in)
	if err != nil {
		return status.Errorf(codes.Internal, "call %s: encode the request: %v", method, err)
	}
	a := &attempt{client: c, url: c.base.JoinPath(Prefix, method).String(), body: body, limit: c.config.MaxResponseSize}
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			a.header = o.HeaderAddr
		case grpc.TrailerCallOption:
			a.trailer = o.TrailerAddr
		case grpc.MaxRecvMsgSizeCallOption:
			a.limit = int64(o.MaxRecvMsgSize)
		}
	}
	for again := 0; ; again++ {
		s, final := a.try(ctx, out)
		if s == nil {
			return nil
		}
		if final || again >= c.config.Retries || !mayPass(s.Code()) || ctx.Err() != nil {
			return wrap(s, "call "+method)
		}
		delay := time.Second << min(again, 10)
		if d, ok := ctx.Deadline(); ok && time.Until(d) <= delay {
			return wrap(s, "call "+method+": no time is left to try again")
		}
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return wrap(status.FromContextError(ctx.Err()), "call "+method)
		}
	}
}

// mayPass tells whether a failure may be over at the next attempt.
func mayPass(c codes.Code) bool {
	return c == codes.Internal || c == codes.Unknown || c == codes.Unavailable || c == codes.DeadlineExceeded
}

// wrap says what failed. Code and details stay.
func wrap(s *status.Status, what string) error {
	p := s.Proto()
	p.Message = what + ": " + p.Message
	return status.FromProto(p).Err()
}

// attempt is what the attempts of one call share.
type attempt struct {
	client          *Client
	url             string
	body            []byte
	limit           int64
	header, trailer *metadata.MD
}

// try makes one attempt. Its status is nil if that succeeded; final tells that another one cannot.
func (a *attempt) try(ctx context.Context, out proto.Message) (_ *status.Status, final bool) {
	whole := ctx
	if t := a.client.config.AttemptTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	failed := func(err error) (*status.Status, bool) {
		switch {
		case whole.Err() != nil:
			return status.FromContextError(whole.Err()), true
		case ctx.Err() != nil, timedOut(err):
			return status.New(codes.DeadlineExceeded, err.Error()), false
		}
		return status.New(codes.Internal, err.Error()), false
	}
	if err := ctx.Err(); err != nil {
		return failed(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(a.body))
	if err != nil {
		return status.New(codes.Internal, err.Error()), true
	}
	if err := a.headers(ctx, req.Header); err != nil {
		return status.New(codes.Internal, err.Error()), true
	}
	resp, err := a.client.config.HTTP.Do(req)
	if err != nil {
		// The address is the caller's configuration, and the method is named anyhow.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = fmt.Errorf("%s: %w", a.client.base.Host, u.Err)
		}
		return failed(err)
	}
	defer resp.Body.Close()
	if err := a.keepMetadata(resp); err != nil {
		return status.New(codes.Internal, err.Error()), false
	}
	code, err := strconv.ParseUint(resp.Header.Get(headerCode), 10, 32)
	if err != nil || code != uint64(codes.OK) || resp.StatusCode != http.StatusOK {
		s, err := failure(resp, codes.Code(code), err == nil)
		if err != nil {
			return failed(err)
		}
		return s, tooBig(s)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, min(a.limit, math.MaxInt64-1)+1))
	if err != nil {
		return failed(err)
	}
	if int64(len(body)) > a.limit {
		return status.Newf(codes.Unavailable, "the response has more than the %d bytes that are taken", a.limit), true
	}
	got := resp.Header.Get("Content-Type")
	if e, ok := encodingOf(got); got == "" || !ok || e != binary {
		return status.Newf(codes.Internal, "the response is %q and not %q", got, binary.mediaType()), false
	}
	if err := proto.Unmarshal(body, out); err != nil {
		return status.Newf(codes.Internal, "decode the response: %v", err), false
	}
	return nil, true
}

// timedOut tells whether the network was too slow, for some part of it.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// headers sets the headers of an attempt. Its time budget is what is left now.
func (a *attempt) headers(ctx context.Context, h http.Header) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	for key := range md {
		if reserved(key) {
			return fmt.Errorf("header %s is the protocol's", key)
		}
	}
	setMetadata(h, md)
	h.Set("User-Agent", a.client.config.UserAgent)
	h.Set("Content-Type", binary.mediaType())
	h.Set("Accept", binary.mediaType())
	h.Set(headerMaxResponseSize, strconv.FormatInt(a.limit, 10))
	if d, ok := ctx.Deadline(); ok {
		h.Set(headerTimeout, encodeTimeout(time.Until(d)))
	}
	return nil
}

// keepMetadata gives the caller the metadata that it asked for.
func (a *attempt) keepMetadata(resp *http.Response) (err error) {
	if a.header != nil {
		if *a.header, err = metadataOf(resp.Header); err != nil {
			return err
		}
	}
	if a.trailer != nil {
		*a.trailer, err = metadataOf(resp.Trailer)
	}
	return err
}
