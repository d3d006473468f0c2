package prpc_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// exchange is what an unmodified LogDog client sent to the servers that it was made for, and what it got.
type exchange struct {
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Headers  map[string]string `json:"request_headers"`
	Body     []byte            `json:"request_body_b64"`
	Status   int               `json:"status"`
	Answered map[string]string `json:"response_headers"`
	Response []byte            `json:"response_body_b64"`
}

func exchanges(t *testing.T) []exchange {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "prpc.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Exchanges []exchange `json:"exchanges"`
	}
	if err := json.Unmarshal(b, &v); err != nil || len(v.Exchanges) != 6 {
		t.Fatal(err, len(v.Exchanges))
	}
	return v.Exchanges
}

// send sends what the client sent, and checks status and headers. Headers in except are not compared.
func (x *exchange) send(t *testing.T, s *httptest.Server, except ...string) (http.Header, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), x.Method, s.URL+x.Path, bytes.NewReader(x.Body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range x.Headers {
		if k != "Content-Length" { // of the secret that the test does not know
			r.Header.Set(k, v)
		}
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for k := range resp.Header {
		if k != "Content-Length" && !slices.Contains(except, k) {
			got[k] = resp.Header.Get(k)
		}
	}
	want := map[string]string{}
	for k, v := range x.Answered {
		if !slices.Contains(except, k) {
			want[k] = v
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || resp.StatusCode != x.Status {
		t.Errorf("status %d, want %d; headers: %s; body %q", resp.StatusCode, x.Status, diff, body)
	}
	return resp.Header, body
}

type noArchives struct{}

func (noArchives) Open(context.Context, string, string) (reader.Archive, error) {
	return nil, errors.New("nothing is archived here")
}

func (noArchives) SignedURL(context.Context, string, time.Duration) (string, error) {
	return "", errors.New("nothing is archived here")
}

// newCoordinator returns a real Coordinator and the storage that it reads.
func newCoordinator(t *testing.T) (*coordinator.Coordinator, *memory.Storage) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	entries := memory.New()
	settings, err := config.Parse("settings", []byte("projects: {testproj: , p: }"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := coordinator.New(coordinator.Config{
		Store: store, Storage: entries, Archives: noArchives{}, Settings: config.Fixed(settings), Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, entries
}

func listen(t *testing.T, register func(grpc.ServiceRegistrar), interceptors ...grpc.UnaryServerInterceptor) *httptest.Server {
	t.Helper()
	s := prpc.NewServer(prpc.Config{Logger: slog.New(slog.DiscardHandler), Interceptors: interceptors})
	register(s)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return h
}

func decode[M proto.Message](t *testing.T, b []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The life of a stream as existing tools see it: the exchanges are sent to our services in their order, each answer is compared with
// the recorded one. What differs is what each installation makes up: the secret, the topic, and the time.
func TestReplay(t *testing.T) {
	c, entries := newCoordinator(t)
	s := listen(t, c.Register)
	all := exchanges(t)
	registerPrefix, batch, get, query, refused, tooLarge := &all[0], &all[1], &all[2], &all[3], &all[4], &all[5]

	_, body := registerPrefix.send(t, s)
	registered := decode(t, body, &logdog.RegisterPrefixResponse{})
	if len(registered.GetSecret()) != 36 {
		t.Errorf("a secret of %d bytes", len(registered.GetSecret()))
	}
	if topic := strings.Split(registered.GetLogBundleTopic(), "/"); len(topic) != 4 || topic[0] != "projects" || topic[2] != "topics" || len(topic[3]) < 3 {
		t.Errorf("topic %q", registered.GetLogBundleTopic())
	}
	// The client that got no answer asks again, and must get the same secret.
	if _, again := registerPrefix.send(t, s); !proto.Equal(registered, decode(t, again, &logdog.RegisterPrefixResponse{})) {
		t.Error("the repeated registration has another answer")
	}

	recordedSecret := decode(t, registerPrefix.Response, &logdog.RegisterPrefixResponse{}).GetSecret()
	batch.Body = bytes.ReplaceAll(batch.Body, recordedSecret, registered.GetSecret())
	batch.Response = bytes.ReplaceAll(batch.Response, recordedSecret, registered.GetSecret())
	_, body = batch.send(t, s)
	if diff := cmp.Diff(decode(t, batch.Response, &logdog.BatchResponse{}), decode(t, body, &logdog.BatchResponse{}), protocmp.Transform()); diff != "" {
		t.Errorf("Batch: %s", diff)
	}

	want := decode(t, get.Response, &logdog.GetResponse{})
	for i, e := range want.GetLogs() {
		err := entries.Put(t.Context(), storage.PutRequest{
			Stream: storage.Stream{Project: "testproj", Path: "e2e/one/+/stdout"}, Index: types.MessageIndex(i), Values: [][]byte{encode(t, e)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, body = get.send(t, s)
	got := decode(t, body, &logdog.GetResponse{})
	if age := time.Since(got.GetState().GetCreated().AsTime()); age < 0 || age > time.Hour {
		t.Error("created", got.GetState().GetCreated())
	}
	got.State.Created, want.State.Created = nil, nil
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Get: %s", diff)
	}

	_, body = query.send(t, s)
	if !bytes.Equal(body, query.Response) {
		t.Errorf("Query: %q", body)
	}

	// Whoever has no access gets the answer that clients know, wherever in the program that is decided.
	said := strings.TrimSuffix(string(refused.Response), "\n")
	closed := listen(t, c.Register, func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return nil, status.Error(codes.PermissionDenied, said)
	})
	if _, body = refused.send(t, closed); !bytes.Equal(body, refused.Response) {
		t.Errorf("without access: %q", body)
	}

	// Too large an answer: the recorded one, with its size, and a real one.
	recorded := detailOf(t, tooLarge.Answered["X-Prpc-Status-Details-Bin"])
	padding := int(recorded.GetResponseTooBig().GetResponseSize()) - len("\x0a\xd9\x17")
	padded := listen(t, func(r grpc.ServiceRegistrar) { logdog.RegisterLogsServer(r, padded(padding)) })
	header, _ := tooLarge.send(t, padded, "X-Prpc-Status-Details-Bin")
	if diff := cmp.Diff(recorded, detailOf(t, header.Get("X-Prpc-Status-Details-Bin")), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	size := proto.Size(decode(t, get.Response, &logdog.GetResponse{}))
	tooLarge.Body = get.Body
	header, _ = tooLarge.send(t, s, "X-Prpc-Status-Details-Bin")
	if d := detailOf(t, header.Get("X-Prpc-Status-Details-Bin")).GetResponseTooBig(); d.GetResponseLimit() != 100 || d.GetResponseSize() < int64(size-10) {
		t.Errorf("%v, of about %d", d, size)
	}
}

func detailOf(t *testing.T, header string) *prpcpb.ErrorDetails {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(t, b, &anypb.Any{}).UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	return m.(*prpcpb.ErrorDetails)
}

// padded answers Get with a response of a size.
func padded(n int) logdog.LogsServer { return paddedLogs{n: n} }

type paddedLogs struct {
	logdog.UnimplementedLogsServer
	n int
}

func (p paddedLogs) Get(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error) {
	return &logdog.GetResponse{Project: strings.Repeat("x", p.n)}, nil
}

// Butlers and readers of ours work with a Coordinator that they reach by pRPC alone.
func TestClientOfCoordinator(t *testing.T) {
	c, entries := newCoordinator(t)
	h := listen(t, c.Register)
	conn := prpc.NewClient(prpc.ClientConfig{Host: strings.TrimPrefix(h.URL, "http://"), Insecure: true, HTTP: h.Client()})
	ctx := t.Context()
	registered, err := logdog.NewRegistrationClient(conn).RegisterPrefix(ctx, &logdog.RegisterPrefixRequest{
		Project: "p", Prefix: "a/b", OpNonce: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	desc := decode(t, exchanges(t)[2].Response, &logdog.GetResponse{}).GetDesc()
	desc.Prefix = "a/b"
	stream, err := logdog.NewServicesClient(conn).RegisterStream(ctx, &logdog.RegisterStreamRequest{
		Project: "p", Secret: registered.GetSecret(), ProtoVersion: "1", Desc: encode(t, desc), TerminalIndex: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = entries.Put(ctx, storage.PutRequest{
		Stream: storage.Stream{Project: "p", Path: "a/b/+/stdout"}, Index: 0,
		Values: [][]byte{encode(t, &logpb.LogEntry{Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: []byte("x")}}}}})},
	})
	if err != nil {
		t.Fatal(err)
	}
	logs := logdog.NewLogsClient(conn)
	for _, path := range []string{"a/b/+/stdout", stream.GetId()} {
		tail, err := logs.Tail(ctx, &logdog.TailRequest{Project: "p", Path: path, State: true})
		if err != nil || len(tail.GetLogs()) != 1 || tail.GetState().GetTerminalIndex() != -1 || tail.GetDesc() == nil {
			t.Errorf("%s: %v, %v", path, tail, err)
		}
	}
	if _, err := logs.Get(ctx, &logdog.GetRequest{Project: "p", Path: "a/b/+/nothing"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if _, err := logs.Get(ctx, &logdog.GetRequest{Project: "P"}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}
