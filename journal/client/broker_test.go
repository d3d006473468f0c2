package client

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/wake"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a point of an append at which the broker may be made to fail.
type stage int

const (
	atOpen   stage = iota // Before any content was read.
	atChunk               // After a chunk.
	atCommit              // When it should commit.
	atAnswer              // After it has committed: the acknowledgement is lost.
)

// broker keeps journals in memory, and fails as it is told.
type broker struct {
	pb.UnimplementedJournalServer

	// fail is asked at each stage. A status error ends the RPC; a brokerStatus is sent as a response.
	fail func(journal string, at stage) error
	// hold, if it is set, is received from before each commit.
	hold chan struct{}
	// answer is the response to each append, instead of one that says what was done.
	answer *pb.AppendResponse
	// reads answers Read RPCs, if it is set.
	reads func(*pb.ReadRequest, pb.Journal_ReadServer) error
	// discard drops content, for measurements.
	discard bool
	// list and apply answer those RPCs.
	list  func(*pb.ListRequest) []*pb.ListResponse
	apply func(*pb.ApplyRequest) *pb.ApplyResponse
	// watch answers List RPCs instead of list, if it is set.
	watch func(*pb.ListRequest, pb.Journal_ListServer) error
	// fragments and health answer those RPCs.
	fragments func(*pb.FragmentsRequest) (*pb.FragmentsResponse, error)
	health    func(*pb.FragmentStoreHealthRequest) (*pb.FragmentStoreHealthResponse, error)

	mu       sync.Mutex
	journals map[string][]byte
	appends  []committed
	wake     wake.Hub[string]
}

type committed struct {
	request *pb.AppendRequest
	content []byte
}

type brokerStatus pb.Status

func (s brokerStatus) Error() string { return pb.Status(s).String() }

func testHeader() *pb.Header {
	id := &pb.ProcessSpec_ID{Zone: "local", Suffix: "broker"}
	return &pb.Header{
		ProcessId: id,
		Route:     &pb.Route{Members: []*pb.ProcessSpec_ID{id}, Primary: 0, Endpoints: []string{"http://broker"}},
		Etcd:      &pb.Header_Etcd{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1},
	}
}

func (b *broker) at(journal string, s stage) error {
	if b.fail == nil {
		return nil
	}
	return b.fail(journal, s)
}

func (b *broker) Append(stream pb.Journal_AppendServer) error {
	err := b.append(stream)
	var s brokerStatus
	if errors.As(err, &s) {
		return stream.SendAndClose(&pb.AppendResponse{
			Status: pb.Status(s), Header: testHeader(), Registers: &pb.LabelSet{}, StoreHealthError: "disk on fire",
		})
	}
	return err
}

func (b *broker) append(stream pb.Journal_AppendServer) error {
	open, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := open.Validate(); err != nil || !open.IsOpening() {
		return status.Errorf(codes.InvalidArgument, "bad opening: %v", err)
	}
	if err := b.at(open.Journal, atOpen); err != nil {
		return err
	}
	var content []byte
	commit := false
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case commit || m.IsOpening():
			return status.Error(codes.Unknown, "unexpected message")
		case len(m.Content) == 0:
			commit = true
		case !b.discard:
			content = append(content, m.Content...)
		}
		if err := b.at(open.Journal, atChunk); err != nil {
			return err
		}
	}
	if !commit {
		return status.Error(codes.Unknown, "unexpected EOF")
	}
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	if err := b.at(open.Journal, atCommit); err != nil {
		return err
	}
	begin := b.commit(open, content)
	if err := b.at(open.Journal, atAnswer); err != nil {
		return err
	}
	if b.answer != nil {
		return stream.SendAndClose(b.answer)
	}
	return stream.SendAndClose(&pb.AppendResponse{
		Header: testHeader(),
		Commit: &pb.Fragment{
			Journal: string(pb.Journal(open.Journal).StripMeta()), Begin: begin, End: begin + int64(len(content)),
			Sum: pb.SHA1SumOf(content), CompressionCodec: pb.CompressionCodec_NONE,
		},
		Registers: &pb.LabelSet{},
	})
}

func (b *broker) commit(open *pb.AppendRequest, content []byte) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := string(pb.Journal(open.Journal).StripMeta())
	begin := int64(len(b.journals[name]))
	b.journals[name] = append(b.journals[name], content...)
	if !b.discard {
		b.appends = append(b.appends, committed{proto.CloneOf(open), content})
	}
	b.wake.Wake(name)
	return begin
}

func (b *broker) content(journal string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.journals[journal])
}

func (b *broker) commits() []committed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.appends)
}

func (b *broker) Read(req *pb.ReadRequest, stream pb.Journal_ReadServer) error {
	if b.reads != nil {
		return b.reads(req, stream)
	}
	name := string(pb.Journal(req.Journal).StripMeta())
	changed, stop := b.wake.Watch(name)
	defer stop()
	header := testHeader()
	for offset := req.Offset; ; {
		content := b.content(name)
		if offset == -1 {
			offset = int64(len(content))
		}
		if offset >= int64(len(content)) {
			if !req.Block {
				return stream.Send(&pb.ReadResponse{
					Status: pb.Status_OFFSET_NOT_YET_AVAILABLE, Header: header, Offset: offset, WriteHead: int64(len(content)),
				})
			}
			select {
			case <-changed:
			case <-stream.Context().Done():
				return nil
			}
			continue
		}
		f := &pb.Fragment{Journal: name, End: int64(len(content)), Sum: &pb.SHA1Sum{}, CompressionCodec: pb.CompressionCodec_NONE}
		if err := stream.Send(&pb.ReadResponse{Header: header, Offset: offset, WriteHead: f.End, Fragment: f}); err != nil || req.MetadataOnly {
			return err
		}
		header = nil
		if req.EndOffset != 0 {
			content = content[:min(req.EndOffset, int64(len(content)))]
		}
		for offset < int64(len(content)) {
			n := min(32736, int64(len(content))-offset)
			if err := stream.Send(&pb.ReadResponse{Offset: offset, Content: []byte(content[offset : offset+n])}); err != nil {
				return err
			}
			offset += n
		}
		if req.EndOffset != 0 && offset >= req.EndOffset {
			return nil
		}
	}
}

func (b *broker) List(req *pb.ListRequest, stream pb.Journal_ListServer) error {
	if b.watch != nil {
		return b.watch(req, stream)
	}
	for _, m := range b.list(req) {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (b *broker) Apply(_ context.Context, req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	return b.apply(req), nil
}

func (b *broker) ListFragments(_ context.Context, req *pb.FragmentsRequest) (*pb.FragmentsResponse, error) {
	return b.fragments(req)
}

func (b *broker) FragmentStoreHealth(_ context.Context, req *pb.FragmentStoreHealthRequest) (*pb.FragmentStoreHealthResponse, error) {
	return b.health(req)
}

// start serves the broker on a loopback connection and returns a client of it. Both end with the test.
func (b *broker) start(t testing.TB) pb.RoutedJournalClient {
	t.Helper()
	conn, err := grpc.NewClient(b.serve(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewRoutedJournalClient(pb.NewJournalClient(conn), pb.NoopDispatchRouter{})
}

// serve serves the broker on a loopback address until the test ends.
func (b *broker) serve(t testing.TB) (addr string) {
	t.Helper()
	b.journals = make(map[string][]byte)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterJournalServer(server, b)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })

	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	return l.Addr().String()
}
