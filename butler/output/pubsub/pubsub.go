// Package pubsub is the output to an existing Coordinator and its Google Pub/Sub topic, for fleets in which both are used
// (spec butler 8.6).
//
//	client, err := pubsub.NewClient(ctx, project)       // cloud.google.com/go/pubsub/v2
//	out, err := New(ctx, Config{Project: "p", Prefix: "a/b", Registration: r, Connect: connect})
//	err = out.SendBundle(bundle)                        // returns when the topic has it
//
// A bundle lives in memory until the topic has taken it: unlike package daybook this output has no spool, and what was not published
// when the process dies is lost. Errors that time may cure are waited out for as long as the output's context lives; others, and
// the end of that context, lose the bundle, and are counted and told.
//
// An Output is safe for concurrent use.
package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// MaxMessage is the most bytes that Pub/Sub takes as the data of a message.
	MaxMessage = 10_000_000
	// maxBundle is the size that bundles are made to.
	maxBundle = 5_000_000
	// nonceLength is that of a registration's nonce.
	nonceLength = 32
	// room is what a message has besides its bundle.
	room = 1024
	// senders is how many bundles are published at once.
	senders = 16
	// callTimeout bounds one attempt.
	callTimeout = 30 * time.Second
	// firstWait and longestWait are between attempts.
	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
)

// Config is what an Output needs.
type Config struct {
	// Project and Prefix are where the streams will be. The prefix must be new.
	Project types.Project
	Prefix  types.StreamName
	// Registration claims the prefix, and tells the topic.
	Registration logdog.RegistrationClient
	// Connect returns a client of Pub/Sub for the project of the topic, which the output closes.
	Connect func(ctx context.Context, project string) (*pubsub.Client, error)
	// CoordinatorHost is what links to the streams begin with.
	CoordinatorHost string
	// SourceInfo is sent along with the registration: free text about who writes.
	SourceInfo []string
	// Realm and Expiration are passed to the registration; zero is the server's default.
	Realm      string
	Expiration time.Duration
	// Logger gets what goes wrong and is tried again. nil discards it.
	Logger *slog.Logger
}

// Output publishes bundles.
type Output struct {
	c      Config
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	client *pubsub.Client
	topic  string
	secret types.PrefixSecret

	encoders sync.Pool
	mu       sync.Mutex
	stats    output.Stats
}

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// New registers the prefix, which it tries until ctx ends, and connects to the topic. The output works until ctx ends or it is closed.
func New(ctx context.Context, c Config) (*Output, error) {
	o := &Output{c: c, log: c.Logger}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if err := o.open(ctx); err != nil {
		return nil, fmt.Errorf("pubsub output: register %s/%s: %w", c.Project, c.Prefix, err)
	}
	o.ctx, o.cancel = context.WithCancel(ctx)
	return o, nil
}

func (o *Output) open(ctx context.Context) error {
	if err := o.c.Project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := o.c.Prefix.Validate(); err != nil {
		return fault.New(fault.Invalid, "prefix: %w", err)
	}
	nonce := make([]byte, nonceLength)
	_, _ = rand.Read(nonce) // never fails
	req := &logdog.RegisterPrefixRequest{
		Project: string(o.c.Project), Prefix: string(o.c.Prefix), Realm: o.c.Realm, OpNonce: nonce,
		SourceInfo: append(append([]string(nil), o.c.SourceInfo...), "GOARCH="+runtime.GOARCH, "GOOS="+runtime.GOOS),
		Expiration: durationpb.New(o.c.Expiration),
	}
	var resp *logdog.RegisterPrefixResponse
	outage := func(err error) bool { return curable(err) && status.Code(err) != codes.Unauthenticated }
	err := o.retry(ctx, "register the prefix", outage, func(ctx context.Context) (err error) {
		resp, err = o.c.Registration.RegisterPrefix(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	o.secret, o.topic = resp.GetSecret(), resp.GetLogBundleTopic()
	if err := o.secret.Validate(); err != nil {
		return err
	}
	project, err := projectOf(o.topic)
	if err != nil {
		return err
	}
	o.client, err = o.c.Connect(ctx, project)
	if err != nil {
		return fmt.Errorf("connect to Pub/Sub of project %s: %w", project, err)
	}
	return nil
}

// topicName is what Pub/Sub allows as the last part of a topic.
var topicName = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.~+%]{2,254}$`)

// projectOf checks a topic, projects/PROJECT/topics/NAME, and returns its project.
func projectOf(topic string) (string, error) {
	parts := strings.Split(topic, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[1] == "" || parts[2] != "topics" || !topicName.MatchString(parts[3]) ||
		strings.HasPrefix(parts[3], "goog") {
		return "", fmt.Errorf("the coordinator's topic %.300q is none of Pub/Sub", topic)
	}
	return parts[1], nil
}

// SendBundle implements output.Output.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	bundle.Project, bundle.Prefix, bundle.Secret = string(o.c.Project), string(o.c.Prefix), o.secret
	parts, err := output.Split(bundle, MaxMessage-room)
	var errs []error
	for _, part := range parts {
		errs = append(errs, o.publish(part))
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("pubsub output: publish a bundle of %s/%s: %w", o.c.Project, o.c.Prefix, err)
	}
	return nil
}

// publish publishes one message, and counts it.
func (o *Output) publish(bundle *logpb.ButlerLogBundle) error {
	data, err := o.encode(bundle)
	if err == nil {
		req := &pubsubpb.PublishRequest{Topic: o.topic, Messages: []*pubsubpb.PubsubMessage{{Data: data}}}
		err = o.retry(o.ctx, "publish", curable, func(ctx context.Context) error {
			// One layer tries again, and that is ours.
			_, err := o.client.TopicAdminClient.Publish(ctx, req, gax.WithRetry(nil))
			return err
		})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.stats.DiscardedMessages++
		return err
	}
	o.stats.SentMessages++
	o.stats.SentBytes += int64(len(data))
	return nil
}

func (o *Output) encode(bundle *logpb.ButlerLogBundle) ([]byte, error) {
	w, _ := o.encoders.Get().(*envelope.Writer)
	if w == nil {
		w = &envelope.Writer{Compression: envelope.Zlib}
	}
	defer o.encoders.Put(w)
	return w.Append(nil, bundle)
}

// retry calls fn until it succeeds, fails for good, or ctx ends.
func (o *Output) retry(ctx context.Context, what string, curable func(error) bool, fn func(context.Context) error) error {
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		err := fn(attempt)
		cancel()
		if err == nil {
			return nil
		}
		o.mu.Lock()
		o.stats.Errors++
		o.mu.Unlock()
		if ctx.Err() != nil || !curable(err) {
			return err
		}
		o.log.Info("trying again to "+what, "error", err)
		t := time.NewTimer(wait/2 + mathrand.N(wait)) //nolint:gosec // it only spreads attempts
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

// curable reports whether time may cure an error: outages, quotas, and credentials that are renewed.
func curable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch status.Code(err) {
	case codes.Internal, codes.Unknown, codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.Canceled, codes.DeadlineExceeded,
		codes.Unauthenticated:
		return true
	}
	return false
}

// MaxSendBundles implements output.Output.
func (*Output) MaxSendBundles() int { return senders }

// MaxSize implements output.Output.
func (*Output) MaxSize() int { return maxBundle }

// URLConstructionEnv implements output.Output.
func (o *Output) URLConstructionEnv() output.Environment {
	return output.Environment{CoordinatorHost: o.c.CoordinatorHost, Project: o.c.Project, Prefix: o.c.Prefix}
}

// Stats implements output.Output. Messages are those of Pub/Sub.
func (o *Output) Stats() output.Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// Extensions implements output.Extender: Collectors that do not know the extensions may read the topic.
func (*Output) Extensions() bool { return false }

// Close implements output.Output. Everything was published before, or is lost.
func (o *Output) Close(context.Context) error {
	o.cancel()
	return o.client.Close()
}
