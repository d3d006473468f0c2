package collector

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/wake"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const testJournal = "daybook/ingest/000"

// fakeJournal is a broker of one journal in memory, over a real connection.
type fakeJournal struct {
	pb.UnimplementedJournalServer
	changed wake.Hub[string]
	// sent counts the bytes of content that readers were sent.
	sent atomic.Int64

	mu      sync.Mutex
	content []byte
	begin   int64 // what is before was deleted
	// refusals is how many of the next reads fail, hangUps how many end in the middle.
	refusals, hangUps int
	// Content from damage[0] to damage[1] cannot be read.
	damage [2]int64
}

// append appends a record of each message and returns the new head.
func (j *fakeJournal) append(t testing.TB, msgs ...[]byte) int64 {
	t.Helper()
	var b []byte
	for _, msg := range msgs {
		var err error
		if b, err = ingest.AppendHeader(b, len(msg)); err != nil {
			t.Fatal(err)
		}
		b = append(b, msg...)
	}
	return j.appendBytes(b)
}

func (j *fakeJournal) appendBytes(b []byte) int64 {
	j.mu.Lock()
	j.content = append(j.content, b...)
	head := int64(len(j.content))
	j.mu.Unlock()
	j.changed.Wake(testJournal)
	return head
}

func (j *fakeJournal) Read(req *pb.ReadRequest, stream pb.Journal_ReadServer) error {
	j.mu.Lock()
	if j.refusals > 0 {
		j.refusals--
		j.mu.Unlock()
		return stream.Send(&pb.ReadResponse{Status: pb.Status_INSUFFICIENT_JOURNAL_BROKERS})
	}
	j.mu.Unlock()
	changed, stop := j.changed.Watch(testJournal)
	defer stop()
	for offset := req.Offset; ; {
		j.mu.Lock()
		content, begin := j.content, j.begin
		hangUp := j.hangUps > 0
		if hangUp {
			j.hangUps--
		}
		j.mu.Unlock()
		head := int64(len(content))
		if offset == -1 {
			offset = head
		}
		offset = max(offset, begin)
		if offset >= head {
			if !req.Block {
				return stream.Send(&pb.ReadResponse{Status: pb.Status_OFFSET_NOT_YET_AVAILABLE, Offset: offset, WriteHead: head})
			}
			select {
			case <-changed:
			case <-stream.Context().Done():
				return nil
			}
			continue
		}
		f := &pb.Fragment{Journal: testJournal, Begin: begin, End: head, Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_NONE}
		if err := stream.Send(&pb.ReadResponse{Offset: offset, WriteHead: head, Fragment: f}); err != nil || req.MetadataOnly {
			return err
		}
		for offset < head {
			n := min(1<<17, head-offset)
			if offset < j.damage[1] && offset+n > j.damage[0] {
				if n = j.damage[0] - offset; n <= 0 {
					return status.Error(codes.DataLoss, "damaged")
				}
			}
			if hangUp {
				n = (n + 1) / 2
			}
			if err := stream.Send(&pb.ReadResponse{Offset: offset, Content: content[offset : offset+n]}); err != nil {
				return err
			}
			offset += n
			j.sent.Add(n)
			if hangUp {
				return nil
			}
		}
	}
}

// client serves the journal and returns a client. Both end with the test.
func (j *fakeJournal) client(t testing.TB) pb.RoutedJournalClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterJournalServer(server, j)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///journal", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		served.Wait()
	})
	return pb.NewRoutedJournalClient(pb.NewJournalClient(conn), pb.NoopDispatchRouter{})
}
