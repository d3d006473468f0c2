// Package door is the way into the ingest journal for Butlers that know no journals: the service google.pubsub.v1.Publisher, as far
// as publishing to the topic of a project needs it.
//
//	d := door.New(door.Config{Journals: client})
//	pubsubpb.RegisterPublisherServer(server, d)
//
// The messages of a request become records of an ingest journal, in their order and by one append, so that all of them are published or
// none. Those of a connection go to the same journal, for as long as there are no others. A request is answered when that append is on stable storage. Small requests of any number of publishers share the stream of
// appends that the journal's client has, and the broker's syncs. What will pass (a broker that is not there, a disk that is full) is
// waited for a while, and then answered Unavailable, which makes publishers try again; the same message may then be in the journal
// twice, and the Collector stores its entries once.
//
// A message is looked at only as far as its frames go, which is before anything is decompressed. That it belongs to a registered
// prefix is proven by the secret that it carries, to the Collector. Attributes and ordering keys are not used.
//
// A Door is safe for concurrent use.
package door

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/peer"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// MaxMessage is the most bytes that a message may have: those of Pub/Sub.
	MaxMessage = 10_000_000
	// MaxMessages is the most messages of a request: those of Pub/Sub.
	MaxMessages = 1000
	// maxHeld bounds the bytes of requests that wait for the journal. More are told to come again.
	maxHeld = 128 << 20
	// patience is how long the journal may take. Publishers have more of it: existing Butlers give a call 30 s, and drop what their
	// deadline hits.
	patience = 10 * time.Second
	// idDigits makes the ids of messages in a journal sort as text, too.
	idDigits = 19
)

// Config configures a Door. Journals must be set.
type Config struct {
	Journals protocol.RoutedJournalClient
	// Writable names the ingest journals that take messages, as they are at the time; nil or none is the default one.
	Writable func() []string
	// Authorize says whether a caller may write to a project; its error is the answer. nil is yes.
	Authorize func(context.Context, types.Project) error
	// Registerer gets the metrics; nil is none.
	Registerer prometheus.Registerer
}

// Door implements pubsubpb.PublisherServer.
type Door struct {
	pubsubpb.UnimplementedPublisherServer
	conf     Config
	room     *semaphore.Weighted
	patience time.Duration
	// closed ends with Close.
	closed context.Context
	close  context.CancelFunc

	messages, bytes prometheus.Counter
	failures        *prometheus.CounterVec // by kind
}

// New returns a Door.
func New(c Config) *Door {
	auto := promauto.With(c.Registerer)
	d := &Door{
		conf:     c,
		room:     semaphore.NewWeighted(maxHeld),
		patience: patience,
		messages: auto.NewCounter(prometheus.CounterOpts{
			Name: "daybook_door_messages_total", Help: "Messages published by way of Pub/Sub.",
		}),
		bytes: auto.NewCounter(prometheus.CounterOpts{
			Name: "daybook_door_bytes_total", Help: "Bytes of these messages.",
		}),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "daybook_door_failures_total", Help: "Requests to publish that failed, by kind of failure.",
		}, []string{"kind"}),
	}
	d.closed, d.close = context.WithCancel(context.Background())
	return d
}

// Close ends the calls that wait for the journal, with Unavailable. It returns at once.
func (d *Door) Close() { d.close() }

// GetTopic tells that the topic of a project exists, which clients may want to know before they publish.
func (d *Door) GetTopic(ctx context.Context, r *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	if err := d.authorize(ctx, r.GetTopic()); err != nil {
		return nil, fault.GRPC(err)
	}
	return &pubsubpb.Topic{Name: r.GetTopic()}, nil
}

// Publish puts messages into the journal. Their ids grow in the order in which they lie there.
func (d *Door) Publish(ctx context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	ids, err := d.publish(ctx, r)
	if err != nil {
		d.failures.WithLabelValues(fault.KindOf(err).String()).Inc()
		return nil, fault.GRPC(err)
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}

func (d *Door) publish(ctx context.Context, r *pubsubpb.PublishRequest) ([]string, error) {
	if err := d.authorize(ctx, r.GetTopic()); err != nil {
		return nil, err
	}
	size, err := check(r.GetMessages())
	if err != nil {
		return nil, err
	}
	if !d.room.TryAcquire(size) {
		return nil, fault.New(fault.Transient, "%d bytes of messages wait for the journal; try again", maxHeld)
	}
	defer d.room.Release(size)
	journal := d.journal(ctx, r.GetTopic())
	begin, err := d.append(ctx, journal, r.GetMessages())
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(r.GetMessages()))
	for i, m := range r.GetMessages() {
		ids[i] = fmt.Sprintf("%0*d", idDigits, begin)
		if journal != ingest.DefaultJournal {
			ids[i] += "@" + journal
		}
		begin += int64(ingest.HeaderSize + len(m.GetData()))
		d.bytes.Add(float64(len(m.GetData())))
	}
	d.messages.Add(float64(len(ids)))
	return ids, nil
}

// authorize finds out whose topic it is, and whether the caller may write there.
func (d *Door) authorize(ctx context.Context, topic string) error {
	project, ok := ingest.ProjectOf(topic)
	if !ok {
		return fault.New(fault.NotFound, "topic %.300q is none of this server; RegisterPrefix tells which one to publish to", topic)
	}
	if d.conf.Authorize == nil {
		return nil
	}
	return d.conf.Authorize(ctx, project)
}

// check checks the limits of messages, and returns how many bytes they have.
func check(messages []*pubsubpb.PubsubMessage) (size int64, err error) {
	if len(messages) == 0 || len(messages) > MaxMessages {
		return 0, fault.New(fault.Invalid, "request has %d messages; 1 to %d are allowed", len(messages), MaxMessages)
	}
	for i, m := range messages {
		n := len(m.GetData())
		if n > MaxMessage {
			return 0, fault.New(fault.Invalid, "message %d has %d bytes; at most %d are allowed", i, n, MaxMessage)
		}
		if _, _, err := envelope.Open(m.GetData()); err != nil {
			return 0, fault.New(fault.Invalid, "message %d is no bundle of log entries: %w", i, err)
		}
		size += int64(n)
	}
	if size > maxHeld {
		return 0, fault.New(fault.Invalid, "request has %d bytes; at most %d are allowed", size, maxHeld)
	}
	return size, nil
}

// journal returns the ingest journal that takes the messages of a caller. Which prefix they belong to is known only when they are
// decompressed, so it goes by the connection.
func (d *Door) journal(ctx context.Context, topic string) string {
	if d.conf.Writable == nil {
		return ingest.DefaultJournal
	}
	project, _ := ingest.ProjectOf(topic)
	var from types.StreamName
	if p, ok := peer.FromContext(ctx); ok {
		from = types.StreamName(p.Addr.String())
	}
	return ingest.Choose(d.conf.Writable(), project, from)
}

// append appends the messages to the journal, and returns the offset of the first.
func (d *Door) append(ctx context.Context, journal string, messages []*pubsubpb.PubsubMessage) (int64, error) {
	wait, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	defer context.AfterFunc(d.closed, cancel)()
	content := make([]io.ReaderAt, 0, 2*len(messages))
	for _, m := range messages {
		header, err := ingest.AppendHeader(make([]byte, 0, ingest.HeaderSize), len(m.GetData()))
		if err != nil {
			return 0, fault.Wrap(fault.Invalid, err)
		}
		content = append(content, bytes.NewReader(header), bytes.NewReader(m.GetData()))
	}
	resp, err := client.Append(wait, d.conf.Journals, &protocol.AppendRequest{Journal: journal}, content...)
	switch {
	case err == nil:
		return resp.GetCommit().GetBegin(), nil
	case d.closed.Err() != nil:
		return 0, fault.New(fault.Transient, "the server is shutting down")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return 0, fault.New(fault.Deadline, "publish: %w", err)
	case ctx.Err() != nil:
		return 0, fault.New(fault.Canceled, "publish: %w", err)
	case wait.Err() != nil:
		return 0, fault.New(fault.Transient, "the journal takes nothing, since %v; try again", d.patience)
	}
	// Whatever it is, it says nothing about the messages, which publishers would drop for it.
	return 0, fault.New(fault.Transient, "publish: %w", err)
}
