package door

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The SDK has them in its imports, for as long as the process lives.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const topic = "projects/daybook/topics/ingest-local"

// house is a door on a broker on a disk.
type house struct {
	*Door
	addr     string
	journals protocol.RoutedJournalClient
	full     atomic.Bool // the disk
	server   *grpc.Server
}

func newHouse(t testing.TB, change func(*Config)) *house {
	t.Helper()
	h := new(house)
	log, err := disklog.Open(t.Context(), t.TempDir(), disklog.Options{FS: vfs.Inject(vfs.OS, vfs.NoSpace(h.full.Load)), SegmentSize: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = listener.Addr().String()
	b, err := broker.New(t.Context(), broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "broker"}, Endpoint: protocol.Endpoint("http://" + h.addr), Scratch: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.server = grpc.NewServer(append(client.ServerOptions(), grpc.WaitForHandlers(true))...)
	protocol.RegisterJournalServer(h.server, b)
	protocol.RegisterPipelineServer(h.server, b.Pipeline())
	conn, err := client.Dial(h.addr)
	if err != nil {
		t.Fatal(err)
	}
	dialed := journalclient.NewClient(conn, journalclient.DialConfig{})
	h.journals = dialed
	conf := Config{Journals: h.journals, Registerer: prometheus.NewRegistry()}
	if change != nil {
		change(&conf)
	}
	h.Door = New(conf)
	h.patience = testkit.Patience
	pubsubpb.RegisterPublisherServer(h.server, h.Door)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(listener) }()
	t.Cleanup(func() {
		h.Close()
		_ = dialed.Close()
		_ = conn.Close()
		h.server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
		_ = b.Close(context.Background())
	})
	_, err = journalclient.ApplyJournals(t.Context(), h.journals, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{
		Upsert: &protocol.JournalSpec{
			Name: ingest.DefaultJournal, Replication: 1,
			Fragment: &protocol.JournalSpec_Fragment{Length: 64 << 20, CompressionCodec: protocol.CompressionCodec_NONE, RefreshInterval: durationpb.New(1 << 40)},
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// publisher returns a client as clients are that nobody wrote for us.
func (h *house) publisher(t testing.TB) pubsubpb.PublisherClient {
	t.Helper()
	conn, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pubsubpb.NewPublisherClient(conn)
}

// records returns the messages in the journal, by the ids that they must have.
func (h *house) records(t testing.TB) (ids []string, messages [][]byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ingest.NewReader(readable{journalclient.NewReader(ctx, h.journals, &protocol.ReadRequest{Journal: ingest.DefaultJournal})})
	for {
		at := r.Consumed()
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ids, messages
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Skipped > 0 {
			t.Fatalf("%d bytes of the journal are no records", r.Skipped)
		}
		ids, messages = append(ids, fmt.Sprintf("%019d", at)), append(messages, bytes.Clone(m))
	}
}

// readable ends where the journal ends now.
type readable struct{ r *journalclient.Reader }

func (r readable) Read(p []byte) (int, error) {
	for {
		n, err := r.r.Read(p)
		if errors.Is(err, journalclient.ErrOffsetNotYetAvailable) {
			err = io.EOF
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// What is published goes to the journals that take messages, that of a connection to one of them.
func TestSeveralJournals(t *testing.T) {
	var writable []string
	h := newHouse(t, func(c *Config) { c.Writable = func() []string { return writable } })
	var changes []*protocol.ApplyRequest_Change
	for i := range 4 {
		writable = append(writable, fmt.Sprint("daybook/ingest/more/", i))
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: &protocol.JournalSpec{
			Name: writable[i], Replication: 1,
			Fragment: &protocol.JournalSpec_Fragment{Length: 64 << 20, CompressionCodec: protocol.CompressionCodec_NONE, RefreshInterval: durationpb.New(1 << 40)},
		}})
	}
	if _, err := journalclient.ApplyJournals(t.Context(), h.journals, &protocol.ApplyRequest{Changes: changes}); err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	used := make(map[string]bool)
	for range 32 {
		p, own := h.publisher(t), ""
		for range 2 {
			r, err := p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: ingest.Topic("local"), Messages: []*pubsubpb.PubsubMessage{message(t, "a")}})
			if err != nil {
				t.Fatal(err)
			}
			id := r.GetMessageIds()[0]
			_, journal, _ := strings.Cut(id, "@")
			if ids[id] || own != "" && journal != own || !slices.Contains(writable, journal) {
				t.Fatalf("id %q, after one in %s", id, own)
			}
			ids[id], used[journal], own = true, true, journal
		}
	}
	if len(used) < 2 {
		t.Errorf("32 connections used %v", used)
	}
	if _, messages := h.records(t); len(messages) > 0 {
		t.Errorf("%d messages are in another journal", len(messages))
	}
}

// message returns a message whose bundle says so.
func message(t testing.TB, says string) *pubsubpb.PubsubMessage {
	t.Helper()
	w := envelope.Writer{Compression: envelope.Zlib}
	data, err := w.Append(nil, &logpb.ButlerLogBundle{Project: "local", Prefix: says})
	if err != nil {
		t.Fatal(err)
	}
	return &pubsubpb.PubsubMessage{Data: data}
}

// sized returns a message of that many bytes. What follows the frames is nothing to anybody.
func sized(t testing.TB, size int) *pubsubpb.PubsubMessage {
	t.Helper()
	m := message(t, "sized")
	m.Data = append(m.Data, bytes.Repeat([]byte("x"), size-len(m.Data))...)
	return m
}

// The official client publishes as it does to an emulator, from many goroutines: everything is in the journal once, under the id
// that the client was told, and each request's messages are in their order.
func TestSDK(t *testing.T) {
	h := newHouse(t, nil)
	t.Setenv("PUBSUB_EMULATOR_HOST", h.addr)
	c, err := pubsub.NewClient(t.Context(), "daybook")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic}); err != nil || got.GetName() != topic {
		t.Fatal(got, err)
	}
	p := c.Publisher(topic)
	defer p.Stop()
	const publishers, each = 16, 50
	told := make([]map[string]string, publishers)
	var running sync.WaitGroup
	for i := range publishers {
		told[i] = make(map[string]string)
		running.Go(func() {
			for j := range each {
				data := message(t, fmt.Sprintf("a/%d/%d", i, j)).GetData()
				id, err := p.Publish(t.Context(), &pubsub.Message{Data: data, Attributes: map[string]string{"a": "b"}}).Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				told[i][id] = string(data)
			}
		})
	}
	running.Wait()
	ids, messages := h.records(t)
	if len(messages) != publishers*each {
		t.Fatalf("%d messages", len(messages))
	}
	for i, id := range ids {
		found := 0
		for _, of := range told {
			if data, ok := of[id]; ok && data == string(messages[i]) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("message %d, id %s, was told %d times", i, id, found)
		}
	}
	if n := testutil.ToFloat64(h.messages); n != publishers*each {
		t.Errorf("%v messages counted", n)
	}
}

// The messages of a request lie together and in order, and so do their ids.
func TestOrder(t *testing.T) {
	h := newHouse(t, nil)
	p := h.publisher(t)
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			r := &pubsubpb.PublishRequest{Topic: topic}
			for j := range 100 {
				r.Messages = append(r.Messages, message(t, fmt.Sprintf("%d/%02d", i, j)))
			}
			resp, err := p.Publish(t.Context(), r)
			if err != nil || len(resp.GetMessageIds()) != 100 {
				t.Error(resp, err)
				return
			}
			for j := 1; j < 100; j++ {
				if ids := resp.GetMessageIds(); ids[j-1] >= ids[j] {
					t.Errorf("ids %s, %s", ids[j-1], ids[j])
				}
			}
		})
	}
	running.Wait()
	_, messages := h.records(t)
	if len(messages) != 800 {
		t.Fatalf("%d messages", len(messages))
	}
	var first string
	for i, m := range messages {
		_, b, err := envelope.Read(m)
		if err != nil {
			t.Fatal(err)
		}
		of, n, _ := strings.Cut(b.GetPrefix(), "/")
		if i%100 == 0 {
			first = of
		}
		if of != first || n != fmt.Sprintf("%02d", i%100) {
			t.Errorf("message %d is %s, in the request %s", i, b.GetPrefix(), first)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t, nil)
	p := h.publisher(t)
	good := message(t, "good")
	many := make([]*pubsubpb.PubsubMessage, MaxMessages+1)
	for i := range many {
		many[i] = good
	}
	// A frame that says more than it has, and one that says more than may be.
	short := &pubsubpb.PubsubMessage{Data: good.GetData()[:len(good.GetData())-1]}
	huge := &pubsubpb.PubsubMessage{Data: []byte("\x05\x08\x01\x1a\x011\x81\x80\x80\x05")}
	for name, c := range map[string]struct {
		topic    string
		messages []*pubsubpb.PubsubMessage
		want     codes.Code
	}{
		"no topic":                {"", []*pubsubpb.PubsubMessage{good}, codes.NotFound},
		"topic of somebody else":  {"projects/daybook/topics/other", []*pubsubpb.PubsubMessage{good}, codes.NotFound},
		"topic of another cloud":  {"projects/x/topics/ingest-local", []*pubsubpb.PubsubMessage{good}, codes.NotFound},
		"topic of no project":     {"projects/daybook/topics/ingest-UPPER", []*pubsubpb.PubsubMessage{good}, codes.NotFound},
		"no message":              {topic, nil, codes.InvalidArgument},
		"too many messages":       {topic, many, codes.InvalidArgument},
		"message without data":    {topic, []*pubsubpb.PubsubMessage{good, {Attributes: map[string]string{"a": "b"}}}, codes.InvalidArgument},
		"message is no bundle":    {topic, []*pubsubpb.PubsubMessage{{Data: []byte("hello")}, good}, codes.InvalidArgument},
		"message that is cut":     {topic, []*pubsubpb.PubsubMessage{good, short}, codes.InvalidArgument},
		"message that claims it":  {topic, []*pubsubpb.PubsubMessage{huge}, codes.InvalidArgument},
		"message over the limit":  {topic, []*pubsubpb.PubsubMessage{sized(t, MaxMessage+1)}, codes.InvalidArgument},
		"another type of content": {topic, []*pubsubpb.PubsubMessage{{Data: []byte("\x05\x08\x02\x1a\x011\x00")}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: c.topic, Messages: c.messages})
			if status.Code(err) != c.want || len(status.Convert(err).Message()) > 500 {
				t.Errorf("%v, %v; want %v", resp, err, c.want)
			}
		})
	}
	if _, err := p.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: "projects/daybook/topics/other"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if _, err := p.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	if _, messages := h.records(t); len(messages) != 0 {
		t.Errorf("%d messages are there", len(messages))
	}
	if n := testutil.ToFloat64(h.failures.WithLabelValues("invalid")); n != 8 {
		t.Errorf("%v refusals counted", n)
	}

	// The versions of others are for the Collector to judge, which keeps what it does not know.
	if _, err := p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte("\x05\x08\x01\x1a\x012")}}}); err != nil {
		t.Error(err)
	}
}

// What the existing writer makes is taken as it is, whatever the Collector will think of it. What has no frames, or frames that break a
// limit, is refused.
func TestVectors(t *testing.T) {
	file, err := os.ReadFile("../testdata/butler_bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	type vector struct {
		Name    string
		Message string `json:"message_hex"`
	}
	var vectors struct {
		Vectors   []vector
		Malformed []vector `json:"malformed_messages"`
	}
	if err := json.Unmarshal(file, &vectors); err != nil || len(vectors.Vectors) == 0 || len(vectors.Malformed) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors.Vectors), err)
	}
	h := newHouse(t, nil)
	p := h.publisher(t)
	var want [][]byte
	publish := func(v vector, refused bool) {
		t.Helper()
		b, err := hex.DecodeString(v.Message)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: b}}})
		if refused != (status.Code(err) == codes.InvalidArgument) || !refused && err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if !refused {
			want = append(want, b)
		}
	}
	for _, v := range vectors.Vectors {
		publish(v, false)
	}
	for _, v := range vectors.Malformed {
		// What is in the frames is for the Collector to say.
		publish(v, !slices.Contains([]string{"unknown_compression", "junk_body", "junk_zlib", "trailing_frames"}, v.Name))
	}
	if _, messages := h.records(t); !slices.EqualFunc(messages, want, bytes.Equal) {
		t.Errorf("%d messages are there, want %d", len(messages), len(want))
	}
}

// The largest message that Pub/Sub has fits, with several publishers at once.
func TestLarge(t *testing.T) {
	h := newHouse(t, nil)
	p := h.publisher(t)
	large := sized(t, MaxMessage)
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			_, err := p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{large}})
			for status.Code(err) == codes.Unavailable { // a broker cuts off who rests, as the door may have to on a busy machine
				_, err = p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{large}})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	_, messages := h.records(t)
	for _, m := range messages {
		if !bytes.Equal(m, large.GetData()) {
			t.Errorf("a message of %d bytes is another one", len(m))
		}
	}
	if len(messages) != 3 {
		t.Errorf("%d messages", len(messages))
	}
}

func TestAuthorize(t *testing.T) {
	refused := fault.New(fault.Unauthenticated, "who are you?")
	var asked types.Project
	h := newHouse(t, func(c *Config) {
		c.Authorize = func(_ context.Context, p types.Project) error { asked = p; return refused }
	})
	p := h.publisher(t)
	if _, err := p.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{message(t, "a")}}); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if _, err := p.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic}); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if asked != "local" {
		t.Errorf("asked for project %q", asked)
	}
	if _, messages := h.records(t); len(messages) != 0 {
		t.Errorf("%d messages are there", len(messages))
	}
}

// What is no fault of a message is answered so that its publisher tries again.
func TestOutage(t *testing.T) {
	h := newHouse(t, nil)
	p := h.publisher(t)
	request := &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{message(t, "a")}}
	h.full.Store(true)
	h.patience = 50 * time.Millisecond
	large := &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{sized(t, MaxMessage)}}
	if _, err := p.Publish(t.Context(), large); status.Code(err) != codes.Unavailable {
		t.Errorf("on a full disk: %v", err)
	}
	h.full.Store(false)
	h.patience = testkit.Patience
	if _, err := p.Publish(t.Context(), request); err != nil {
		t.Error(err)
	}

	if !h.room.TryAcquire(maxHeld) {
		t.Fatal("there is no room")
	}
	if _, err := p.Publish(t.Context(), request); status.Code(err) != codes.Unavailable {
		t.Errorf("without room: %v", err)
	}
	h.room.Release(maxHeld)

	_, err := journalclient.ApplyJournals(t.Context(), h.journals, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{
		ExpectModRevision: -1, Delete: ingest.DefaultJournal,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), request); status.Code(err) != codes.Unavailable {
		t.Errorf("without a journal: %v", err)
	}
}

// stalled is a broker that is never there.
type stalled struct {
	protocol.JournalClient
	protocol.NoopDispatchRouter
	called chan struct{}
}

func (s stalled) Append(ctx context.Context, _ ...grpc.CallOption) (protocol.Journal_AppendClient, error) {
	s.called <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Close ends the calls that wait, and a caller who goes away ends his.
func TestEnd(t *testing.T) {
	called := make(chan struct{}, 2)
	d := New(Config{Journals: stalled{called: called}})
	request := &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{message(t, "a")}}
	ends := make(chan error)
	gone, leave := context.WithCancel(t.Context())
	go func() { _, err := d.Publish(gone, request); ends <- err }()
	<-called
	leave()
	if err := <-ends; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	go func() { _, err := d.Publish(t.Context(), request); ends <- err }()
	<-called
	d.Close()
	if err := <-ends; status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if !d.room.TryAcquire(maxHeld) {
		t.Error("room was not given back")
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10, 5 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			h := newHouse(b, nil)
			p := h.publisher(b)
			request := &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{sized(b, size)}}
			b.SetBytes(int64(size))
			b.SetParallelism(min(16, maxHeld/size/4)) // as many as fit, on any machine
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := p.Publish(b.Context(), request); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
