//go:build unix

package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
	output "github.com/daybook-dev/daybook/butler/output/pubsub"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// noise returns bytes that do not compress, of this length.
func noise(seed, length int) []byte {
	var b []byte
	for i := 0; len(b) < length; i++ {
		sum := sha256.Sum256(fmt.Append(nil, seed, i))
		b = append(b, sum[:]...)
	}
	return b[:length]
}

// emulator returns what connects the official client of Pub/Sub to an address as PUBSUB_EMULATOR_HOST does.
func emulator(host string) func(context.Context, string) (*pubsub.Client, error) {
	return func(ctx context.Context, project string) (*pubsub.Client, error) {
		return pubsub.NewClient(ctx, project, option.WithEndpoint(host), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
}

// The official client of Pub/Sub publishes, by way of daybook luci-context, while the server is stopped, and killed. Everything is
// there afterwards once and in its order, messages of the largest size too.
func TestPublishThroughOutages(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	s := h.Serve()
	tools := h.Start("luci-context", "--server", s.Addr, "--output", t.TempDir()+"/context.json")
	pubsubHost := tools.Await(tools.Stdout, regexp.MustCompile(`PUBSUB_EMULATOR_HOST=(.*)\n`))[1]

	const writers = 4
	published := make(chan struct{}) // a third of what a writer has
	proceed := make(chan struct{})
	var running sync.WaitGroup
	for i := range writers {
		transport := new(http.Transport)
		t.Cleanup(transport.CloseIdleConnections)
		conn := prpc.NewClient(prpc.ClientConfig{Host: s.Addr, Insecure: true, HTTP: &http.Client{Transport: transport}})
		out, err := output.New(t.Context(), output.Config{
			Project: "local", Prefix: types.StreamName(prefixOf(i)), Registration: logdog.NewRegistrationClient(conn),
			Connect: emulator(pubsubHost),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = out.Close(context.Background()) })
		running.Go(func() {
			for n := range bundles {
				if n == bundles/3 || n == 2*bundles/3 {
					published <- struct{}{}
					<-proceed
				}
				if err := out.SendBundle(piece(i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// outage lets the writers go on, and then makes the outage: what they publish next goes wrong, or waits.
	outage := func(make func()) {
		for range writers {
			<-published
		}
		for range writers {
			proceed <- struct{}{}
		}
		make()
		s.Restart()
	}
	outage(s.Kill)
	outage(func() { s.Stop(testkit.Patience) })
	running.Wait()
	for i := range writers {
		var want bytes.Buffer
		for n := range bundles {
			want.Write(content(i, n))
		}
		path := "local/" + prefixOf(i) + "/+/s"
		h.Run("tail", "-f", "-n", "1", path) // until the Collector has the end
		if err := h.CompareCat(path, &want); err != nil {
			t.Error(err)
		}
	}
}

// bearing is a transport that shows a token.
type bearing struct {
	*http.Transport
	token string
}

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.Transport.RoundTrip(r)
}

// A server on another machine has TLS and demands tokens, of which clients of Pub/Sub know nothing.
func TestPublishToAnotherMachine(t *testing.T) {
	t.Parallel()
	g := serveGuarded(t)
	token := g.token("--name", "writer", "--project", "local", "--role", "writer")
	reader := g.user(t, g.token("--name", "reader", "--project", "local", "--role", "reader"))
	tools := g.user(t, token).Start("luci-context", "--output", t.TempDir()+"/context.json")
	pubsubHost := tools.Await(tools.Stdout, regexp.MustCompile(`PUBSUB_EMULATOR_HOST=(.*)\n`))[1]
	transport := &http.Transport{TLSClientConfig: g.ca.trust()}
	t.Cleanup(transport.CloseIdleConnections)
	conn := prpc.NewClient(prpc.ClientConfig{Host: g.addr, HTTP: &http.Client{Transport: bearing{transport, token}}})
	out, err := output.New(t.Context(), output.Config{
		Project: "local", Prefix: types.StreamName(prefixOf(0)), Registration: logdog.NewRegistrationClient(conn), Connect: emulator(pubsubHost),
	})
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for n := range bundles {
		want.Write(content(0, n))
		if err := out.SendBundle(piece(0, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(t.Context()); err != nil {
		t.Error(err)
	}
	path := "local/" + prefixOf(0) + "/+/s"
	reader.Run("tail", "-f", path) // until the Collector has the end
	if err := reader.CompareCat(path, &want); err != nil {
		t.Error(err)
	}
}

const bundles = 30

func prefixOf(writer int) string { return fmt.Sprint("published/", writer) }

func content(writer, n int) []byte {
	if n == bundles-2 {
		return noise(writer, 9_900_000)
	}
	return []byte(hex.EncodeToString(noise(writer*bundles+n, 100*n+1)))
}

func piece(writer, n int) *logpb.ButlerLogBundle {
	return &logpb.ButlerLogBundle{Timestamp: timestamppb.Now(), Entries: []*logpb.ButlerLogBundle_Entry{{
		Desc: &logpb.LogStreamDescriptor{
			Name: "s", StreamType: logpb.StreamType_BINARY, ContentType: "application/octet-stream", Timestamp: timestamppb.Now(),
		},
		Logs:     []*logpb.LogEntry{{StreamIndex: uint64(n), PrefixIndex: uint64(n), Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: content(writer, n)}}}},
		Terminal: n == bundles-1, TerminalIndex: uint64(n),
	}}}
}
