package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const topic = "projects/cloud-project/topics/logs"

// coordinator answers registrations.
type coordinator struct {
	errs   []error
	topic  string
	secret types.PrefixSecret
	got    *logdog.RegisterPrefixRequest
	nonces [][]byte
}

func (c *coordinator) RegisterPrefix(_ context.Context, r *logdog.RegisterPrefixRequest, _ ...grpc.CallOption) (*logdog.RegisterPrefixResponse, error) {
	c.got = r
	c.nonces = append(c.nonces, r.GetOpNonce())
	if len(c.errs) > 0 {
		err := c.errs[0]
		c.errs = c.errs[1:]
		return nil, err
	}
	return &logdog.RegisterPrefixResponse{Secret: c.secret, LogBundleTopic: c.topic}, nil
}

// failing injects errors into the first calls of Publish.
type failing struct {
	mu   sync.Mutex
	errs []codes.Code
}

func (f *failing) React(any) (handled bool, ret any, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) == 0 {
		return false, nil, nil
	}
	code := f.errs[0]
	f.errs = f.errs[1:]
	return true, nil, status.Error(code, "injected")
}

type fixture struct {
	*coordinator
	server  *pstest.Server
	failing *failing
}

func newFixture(t *testing.T, errs ...codes.Code) *fixture {
	f := &fixture{
		coordinator: &coordinator{topic: topic, secret: types.NewPrefixSecret()},
		failing:     &failing{errs: errs},
	}
	f.server = pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: f.failing})
	t.Cleanup(func() { _ = f.server.Close() })
	if _, err := f.server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) config() Config {
	return Config{
		Project: "p", Prefix: "a/b", Registration: f.coordinator, CoordinatorHost: "logs.example.com", SourceInfo: []string{"a test"},
		Connect: func(ctx context.Context, project string) (*pubsub.Client, error) {
			if project != "cloud-project" {
				return nil, fmt.Errorf("project %q", project)
			}
			return pubsub.NewClient(ctx, project, option.WithEndpoint(f.server.Addr), option.WithoutAuthentication(),
				option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
		},
	}
}

func bundle(lines ...string) *logpb.ButlerLogBundle {
	e := &logpb.ButlerLogBundle_Entry{Desc: &logpb.LogStreamDescriptor{Name: "s", ContentType: "text/plain", Timestamp: timestamppb.Now()}}
	for i, l := range lines {
		e.Logs = append(e.Logs, &logpb.LogEntry{StreamIndex: uint64(i), Content: &logpb.LogEntry_Text{Text: &logpb.Text{
			Lines: []*logpb.Text_Line{{Value: []byte(l), Delimiter: "\n"}},
		}}})
	}
	return &logpb.ButlerLogBundle{Timestamp: timestamppb.Now(), Entries: []*logpb.ButlerLogBundle_Entry{e}}
}

func TestOutput(t *testing.T) {
	f := newFixture(t, codes.Unavailable, codes.ResourceExhausted)
	f.errs = []error{status.Error(codes.Unavailable, "not now")}
	o, err := New(t.Context(), f.config())
	if err != nil {
		t.Fatal(err)
	}
	if len(f.nonces) != 2 || len(f.nonces[0]) != 32 || !bytes.Equal(f.nonces[0], f.nonces[1]) {
		t.Errorf("nonces %x", f.nonces)
	}
	if f.got.GetProject() != "p" || f.got.GetPrefix() != "a/b" || f.got.GetSourceInfo()[0] != "a test" || len(f.got.GetSourceInfo()) != 3 {
		t.Errorf("request %v", f.got)
	}
	sent := bundle("hello", strings.Repeat("x", 5000))
	if err := o.SendBundle(sent); err != nil {
		t.Fatal(err)
	}
	msgs := f.server.Messages()
	if len(msgs) != 1 {
		t.Fatalf("%d messages", len(msgs))
	}
	meta, got, err := envelope.Read(msgs[0].Data)
	if err != nil || meta.GetCompression() != envelope.Zlib {
		t.Fatalf("%v, %v", meta, err)
	}
	if diff := cmp.Diff(sent, got, protocmp.Transform()); diff != "" || got.GetProject() != "p" || !f.secret.Equal(got.GetSecret()) {
		t.Error(diff)
	}
	if s := o.Stats(); s.SentMessages != 1 || s.SentBytes != int64(len(msgs[0].Data)) || s.DiscardedMessages != 0 || s.Errors != 3 {
		t.Errorf("%+v", s)
	}
	if env := o.URLConstructionEnv(); env.CoordinatorHost != "logs.example.com" || env.Prefix != "a/b" {
		t.Errorf("%+v", env)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A bundle that is larger than a message goes in several.
func TestLargeBundle(t *testing.T) {
	f := newFixture(t)
	o, err := New(t.Context(), f.config())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close(t.Context())
	random := make([]string, 12)
	for i := range random {
		b := make([]byte, 1<<20)
		for j := range b {
			b[j] = byte('a' + (j*(i+7)+j>>8)%26)
		}
		random[i] = string(b)
	}
	if err := o.SendBundle(bundle(random...)); err != nil {
		t.Fatal(err)
	}
	next := uint64(0)
	for _, m := range f.server.Messages() {
		if len(m.Data) > MaxMessage {
			t.Errorf("message of %d bytes", len(m.Data))
		}
		_, b, err := envelope.Read(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range b.GetEntries()[0].GetLogs() {
			if l.GetStreamIndex() != next {
				t.Errorf("entry %d, want %d", l.GetStreamIndex(), next)
			}
			next++
		}
	}
	if n := len(f.server.Messages()); n < 2 || next != 12 {
		t.Errorf("%d messages with %d entries", n, next)
	}
}

func TestFinalErrors(t *testing.T) {
	f := newFixture(t, codes.PermissionDenied)
	o, err := New(t.Context(), f.config())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close(t.Context())
	if err := o.SendBundle(bundle("x")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("error %v", err)
	}
	if s := o.Stats(); s.DiscardedMessages != 1 || s.Errors != 1 {
		t.Errorf("%+v", s)
	}
}

// An outage lasts as long as the owner's context.
func TestOutageEnds(t *testing.T) {
	many := make([]codes.Code, 1000)
	for i := range many {
		many[i] = codes.Unavailable
	}
	f := newFixture(t, many...)
	ctx, cancel := context.WithCancel(t.Context())
	o, err := New(ctx, f.config())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close(t.Context())
	done := make(chan error)
	go func() { done <- o.SendBundle(bundle("x")) }()
	for o.Stats().Errors == 0 {
		select {
		case err := <-done:
			t.Fatalf("gave up: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		t.Errorf("error %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for name, change := range map[string]func(*fixture, *Config){
		"project": func(_ *fixture, c *Config) { c.Project = "" },
		"prefix":  func(_ *fixture, c *Config) { c.Prefix = "a//b" },
		"taken":   func(f *fixture, _ *Config) { f.errs = []error{status.Error(codes.AlreadyExists, "taken")} },
		"login":   func(f *fixture, _ *Config) { f.errs = []error{status.Error(codes.Unauthenticated, "who")} },
		"secret":  func(f *fixture, _ *Config) { f.secret = []byte("short") },
		"connect": func(f *fixture, _ *Config) { f.topic = "projects/other/topics/logs" },
		"topic":   func(f *fixture, _ *Config) { f.topic = "projects/cloud-project/topics/goog-logs" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			c := f.config()
			change(f, &c)
			if _, err := New(t.Context(), c); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestTopics(t *testing.T) {
	for topic, want := range map[string]string{
		topic: "cloud-project", "projects/a/topics/abc": "a",
		"projects/a/topics/ab": "", "projects//topics/abc": "", "topics/abc": "", "projects/a/topics/abc/d": "", "projects/a/topics/1bc": "",
		"projects/a/topics/" + strings.Repeat("a", 256): "", "projects/a/topics/a b": "",
	} {
		if got, err := projectOf(topic); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", topic, got, err)
		}
	}
}
