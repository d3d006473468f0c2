package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// pipeline opens a stream of appends to the cluster's broker.
func (c *cluster) pipeline(ctx context.Context) protocol.Pipeline_AppendClient {
	c.t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	protocol.RegisterPipelineServer(server, c.broker.Pipeline())
	go func() { _ = server.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close(); server.Stop() })
	stream, err := protocol.NewPipelineClient(conn).Append(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return stream
}

// outcomes receives n outcomes, or all if n is zero, by their ids.
func outcomes(t *testing.T, stream protocol.Pipeline_AppendClient, n int) map[uint64]*protocol.PipelinedOutcome {
	t.Helper()
	out := make(map[uint64]*protocol.PipelinedOutcome)
	for n == 0 || len(out) < n {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) && n == 0 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range resp.GetOutcomes() {
			if out[o.GetId()] != nil {
				t.Errorf("two outcomes of %d", o.GetId())
			}
			out[o.GetId()] = o
		}
	}
	return out
}

func item(id uint64, content string) *protocol.PipelinedAppend {
	return &protocol.PipelinedAppend{Id: id, Content: []byte(content)}
}

// Each append of a stream is what it would be on its own, and is answered, also when the client ends the stream at once.
func TestPipeline(t *testing.T) {
	c := one(t)
	stream := c.pipeline(t.Context())
	const n = 500
	for id := uint64(1); id <= n; id += 5 {
		req := &protocol.PipelineRequest{}
		if id == 1 {
			req.Journal = "test/journal"
		}
		for i := range uint64(5) {
			req.Appends = append(req.Appends, item(id+i, fmt.Sprintf("line %d\n", id+i)))
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	got := outcomes(t, stream, 0)
	content, _ := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0)
	headers := 0
	for id := uint64(1); id <= n; id++ {
		resp := got[id].GetResponse()
		if resp.GetStatus() != protocol.Status_OK {
			t.Fatalf("outcome %d: %v", id, got[id])
		}
		line, f := fmt.Sprintf("line %d\n", id), resp.GetCommit()
		if at := string(content[f.GetBegin():f.GetEnd()]); at != line {
			t.Errorf("append %d is %q", id, at)
		}
		if resp.GetHeader() != nil {
			headers++
			valid(t, resp)
		}
		resp.Header = nil
		if diff := cmp.Diff(&protocol.AppendResponse{
			Commit: &protocol.Fragment{
				Journal: "test/journal", Begin: f.GetBegin(), End: f.GetEnd(), Sum: protocol.SHA1SumOf([]byte(line)),
				CompressionCodec: protocol.CompressionCodec_SNAPPY,
			},
			Registers: new(protocol.LabelSet), TotalChunks: 2,
		}, resp, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	if headers != 1 {
		t.Errorf("%d headers for one revision", headers)
	}
}

// What one append is refused for does not concern the others.
func TestPipelineRefusals(t *testing.T) {
	c := one(t)
	stream := c.pipeline(t.Context())
	if err := stream.Send(&protocol.PipelineRequest{Journal: "test/journal", Appends: []*protocol.PipelinedAppend{
		item(1, "good"),
		{Id: 2, Content: []byte("wrong"), Request: &protocol.AppendRequest{Offset: 99}},
		{Id: 3, Content: []byte("other"), Request: &protocol.AppendRequest{Journal: "test/other"}},
		{Id: 4, Content: []byte("negative"), Request: &protocol.AppendRequest{Offset: -1}},
		{Id: 5, Content: make([]byte, 1<<20+1)},
		{Id: 6, Request: &protocol.AppendRequest{UnionRegisters: protocol.MustLabelSet("author", "one")}},
		{Id: 7, Content: []byte("fenced"), Request: &protocol.AppendRequest{Journal: "test/journal", UnionRegisters: protocol.MustLabelSet("author", "one")}},
	}}); err != nil {
		t.Fatal(err)
	}
	got := outcomes(t, stream, 7)
	for id, want := range map[uint64]protocol.Status{1: protocol.Status_OK, 2: protocol.Status_WRONG_APPEND_OFFSET, 7: protocol.Status_OK} {
		if got[id].GetResponse() == nil || got[id].GetResponse().GetStatus() != want {
			t.Errorf("outcome %d: %v", id, got[id])
		}
	}
	for _, id := range []uint64{3, 4, 5, 6} {
		if got[id].GetResponse() != nil || codes.Code(got[id].GetCode()) != codes.InvalidArgument || got[id].GetMessage() == "" {
			t.Errorf("outcome %d: %v", id, got[id])
		}
	}
	if end := c.mustAppend("test/journal").GetCommit().GetEnd(); end != int64(len("goodfenced")) {
		t.Errorf("the journal ends at %d", end)
	}
	unknown := c.pipeline(t.Context())
	if err := unknown.Send(&protocol.PipelineRequest{Journal: "test/unknown", Appends: []*protocol.PipelinedAppend{item(1, "x")}}); err != nil {
		t.Fatal(err)
	}
	resp := outcomes(t, unknown, 1)[1].GetResponse()
	if resp.GetStatus() != protocol.Status_JOURNAL_NOT_FOUND {
		t.Errorf("response %v", resp)
	}
	valid(t, resp)
}

func TestPipelineMessages(t *testing.T) {
	c := one(t)
	for what, messages := range map[string][]*protocol.PipelineRequest{
		"no journal":  {{Appends: []*protocol.PipelinedAppend{item(1, "x")}}},
		"two of them": {{Journal: "test/journal"}, {Journal: "test/journal", Appends: []*protocol.PipelinedAppend{item(1, "x")}}},
	} {
		stream := c.pipeline(t.Context())
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "journal") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A stream that is open, and held back, does not keep the broker from closing; what has begun is answered.
func TestPipelineAndClose(t *testing.T) {
	const rate = 16 << 10
	c := startWith(t, t.TempDir(), disklog.Options{}, broker.Config{})
	s := spec("test/journal")
	s.MaxAppendRate = rate
	c.apply(&protocol.ApplyRequest_Change{Upsert: s})
	idle, busy := c.pipeline(t.Context()), c.pipeline(t.Context())
	for stream, appends := range map[protocol.Pipeline_AppendClient][]*protocol.PipelinedAppend{
		idle: {item(1, "x")},
		busy: {item(1, string(make([]byte, rate)))},
	} {
		if err := stream.Send(&protocol.PipelineRequest{Journal: "test/journal", Appends: appends}); err != nil {
			t.Fatal(err)
		}
		outcomes(t, stream, 1)
	}
	// More than the journal earns in any time that we would wait. The empty append is answered, so the stream was read.
	if err := busy.Send(&protocol.PipelineRequest{Appends: []*protocol.PipelinedAppend{item(2, string(make([]byte, 1<<20))), item(3, "")}}); err != nil {
		t.Fatal(err)
	}
	outcomes(t, busy, 1)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- c.broker.Close(ctx) }()
	if got := outcomes(t, busy, 0); got[2].GetResponse().GetStatus() != protocol.Status_OK || got[2].GetResponse().GetDelayedChunks() != 1 {
		t.Errorf("outcomes %v", got)
	}
	outcomes(t, idle, 0)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	c.stop()
}

// A client that goes takes its appends along, as far as they are held back.
func TestPipelineClientGone(t *testing.T) {
	c := limited(t, broker.Config{}, 1<<10)
	ctx, cancel := context.WithCancel(t.Context())
	stream := c.pipeline(ctx)
	if err := stream.Send(&protocol.PipelineRequest{Journal: "test/journal", Appends: []*protocol.PipelinedAppend{
		item(1, string(make([]byte, 1<<20))), item(2, ""),
	}}); err != nil {
		t.Fatal(err)
	}
	outcomes(t, stream, 1)
	cancel()
	// The cluster's end waits for the call.
}
