package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/auth"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// pipelineServer serves streams of appends as it is told.
type pipelineServer struct {
	pb.UnimplementedPipelineServer
	serve func(pb.Pipeline_AppendServer) error
}

func (s *pipelineServer) Append(stream pb.Pipeline_AppendServer) error { return s.serve(stream) }

// answering answers each append with answer's outcome.
func answering(answer func(journal string, a *pb.PipelinedAppend) *pb.PipelinedOutcome) func(pb.Pipeline_AppendServer) error {
	return func(stream pb.Pipeline_AppendServer) error {
		journal := ""
		for {
			req, err := stream.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client has ended the stream
			}
			if req.Journal != "" {
				journal = req.Journal
			}
			for _, a := range req.Appends {
				// One message for each, so that outcomes come while others are sent.
				if err := stream.Send(&pb.PipelineResponse{Outcomes: []*pb.PipelinedOutcome{answer(journal, a)}}); err != nil {
					return err
				}
			}
		}
	}
}

// startPipelined serves streams beside the broker, and returns a client that uses them.
func (b *broker) startPipelined(t *testing.T, serve func(pb.Pipeline_AppendServer) error, cfg DialConfig) *Client {
	t.Helper()
	b.journals = make(map[string][]byte)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterJournalServer(server, b)
	if serve != nil {
		pb.RegisterPipelineServer(server, &pipelineServer{serve: serve})
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(conn, cfg)
	t.Cleanup(func() {
		_ = c.Close()
		_ = conn.Close()
		server.Stop()
		served.Wait()
	})
	return c
}

func pipelineOK(b *broker) func(string, *pb.PipelinedAppend) *pb.PipelinedOutcome {
	first := true
	return func(journal string, a *pb.PipelinedAppend) *pb.PipelinedOutcome {
		begin := b.commit(&pb.AppendRequest{Journal: journal}, a.Content)
		resp := &pb.AppendResponse{
			Registers: new(pb.LabelSet),
			Commit: &pb.Fragment{
				Journal: journal, Begin: begin, End: begin + int64(len(a.Content)), Sum: pb.SHA1SumOf(a.Content), CompressionCodec: pb.CompressionCodec_NONE,
			},
		}
		if first {
			resp.Header, first = testHeader(), false
		}
		return &pb.PipelinedOutcome{Id: a.Id, Response: resp}
	}
}

// Callers of one journal share a stream; each gets its own outcome, complete.
func TestPipelinedAppends(t *testing.T) {
	b := new(broker)
	streams := 0
	c := b.startPipelined(t, func(s pb.Pipeline_AppendServer) error {
		streams++
		return answering(pipelineOK(b))(s)
	}, DialConfig{})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for k := range 20 {
				line := fmt.Sprintf("caller %d, line %d\n", i, k)
				resp, err := Append(t.Context(), c, &pb.AppendRequest{Journal: "a/journal"}, strings.NewReader(line[:3]), strings.NewReader(line[3:]))
				if err != nil {
					t.Error(err)
					return
				}
				if got := resp.Commit.Sum.ToDigest(); got != pb.SHA1SumOf([]byte(line)).ToDigest() || resp.Header == nil {
					t.Errorf("%q: %v", line, resp)
				}
			}
		})
	}
	wg.Wait()
	if n := len(b.commits()); n != 640 || streams != 1 {
		t.Errorf("%d appends over %d streams", n, streams)
	}
}

// What does not fit onto a shared stream has an RPC of its own: content that is large, and contexts with something to tell.
func TestNotPipelined(t *testing.T) {
	b := new(broker)
	c := b.startPipelined(t, func(pb.Pipeline_AppendServer) error {
		return status.Error(codes.Internal, "not expected")
	}, DialConfig{})
	large := bytes.Repeat([]byte("x"), maxPipelined)
	for what, ctx := range map[string]context.Context{
		"large":    t.Context(),
		"metadata": grpcmetadata.AppendToOutgoingContext(t.Context(), "key", "value"),
		"claims":   auth.WithClaims(t.Context(), auth.ForJournal(auth.Append, "a/journal")),
	} {
		content := large
		if what != "large" {
			content = content[:10]
		}
		if _, err := Append(ctx, c, &pb.AppendRequest{Journal: "a/journal"}, bytes.NewReader(content)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A broker that has no streams of appends is used as any other, and not asked again with each append.
func TestPipelineUnknown(t *testing.T) {
	b := new(broker)
	c := b.startPipelined(t, nil, DialConfig{})
	for range 3 {
		if _, err := Append(t.Context(), c, &pb.AppendRequest{Journal: "a/journal"}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.content("a/journal"); got != "xxx" {
		t.Errorf("content %q", got)
	}
	if err := c.streams.submit("a/journal", new(pipelined)); !errors.Is(err, errNotPipelined) {
		t.Errorf("asked again: %v", err)
	}
}

func TestPipelineErrors(t *testing.T) {
	var outcome *pb.PipelinedOutcome
	b := new(broker)
	c := b.startPipelined(t, answering(func(_ string, a *pb.PipelinedAppend) *pb.PipelinedOutcome {
		outcome.Id = a.Id
		return outcome
	}), DialConfig{})
	send := func(req *pb.AppendRequest) error {
		_, err := Append(t.Context(), c, req, strings.NewReader("x"))
		return err
	}
	req := &pb.AppendRequest{Journal: "a/journal", Offset: 3}
	outcome = &pb.PipelinedOutcome{Code: uint32(codes.DeadlineExceeded), Message: "too slow"}
	if err := send(req); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "too slow") {
		t.Error(err)
	}
	outcome = &pb.PipelinedOutcome{Response: &pb.AppendResponse{Status: pb.Status_WRONG_APPEND_OFFSET, Header: testHeader()}}
	if err := send(req); !errors.Is(err, ErrWrongAppendOffset) {
		t.Error(err)
	}
	outcome = new(pb.PipelinedOutcome)
	if err := send(req); err == nil {
		t.Error("no error of an answer without content")
	}
	if err := send(&pb.AppendRequest{Journal: "not a journal"}); err == nil {
		t.Error("no error of an invalid request")
	}
}

// Appends that a stream leaves behind when it ends are made again; those of contexts that have ended are not waited for.
func TestPipelineEnds(t *testing.T) {
	b := new(broker)
	streams := make(chan struct{}, 10)
	c := b.startPipelined(t, func(s pb.Pipeline_AppendServer) error {
		streams <- struct{}{}
		if len(streams) == 1 {
			_, err := s.Recv()
			return err // ends in order, without an answer
		}
		return answering(pipelineOK(b))(s)
	}, DialConfig{})
	if _, err := Append(t.Context(), c, &pb.AppendRequest{Journal: "a/journal"}, strings.NewReader("again")); err != nil {
		t.Fatal(err)
	}
	if got := b.content("a/journal"); got != "again" || len(streams) != 2 {
		t.Errorf("content %q over %d streams", got, len(streams))
	}

	silent := new(broker)
	received := make(chan struct{})
	c = silent.startPipelined(t, func(s pb.Pipeline_AppendServer) error {
		_, _ = s.Recv()
		close(received)
		<-s.Context().Done()
		return nil
	}, DialConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-received
		cancel()
	}()
	if _, err := Append(ctx, c, &pb.AppendRequest{Journal: "a/journal"}, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A stream's token is for its journal.
func TestPipelineToken(t *testing.T) {
	keys, err := auth.ParseKeys("c2VjcmV0")
	if err != nil {
		t.Fatal(err)
	}
	b := new(broker)
	c := b.startPipelined(t, func(s pb.Pipeline_AppendServer) error {
		_, cancel, claims, err := keys.VerifyCall(s.Context(), auth.Append)
		if err != nil {
			return err
		}
		defer cancel()
		if claims.Capability != auth.Append || claims.Allows(pb.MustLabelSet("name", "an/other")) {
			t.Errorf("claims %v", claims)
		}
		return answering(pipelineOK(b))(s)
	}, DialConfig{Authorizer: keys})
	if _, err := Append(t.Context(), c, &pb.AppendRequest{Journal: "a/journal"}, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
}
