package broker_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// cluster is a broker on a log, behind a real server.
type cluster struct {
	t      testing.TB
	log    *disklog.Log
	broker *broker.Broker
	server *grpc.Server
	client protocol.JournalClient
	conn   *grpc.ClientConn
	// closers are called after all else.
	closers []func() error
}

func start(t testing.TB, dir string, opts disklog.Options) *cluster {
	t.Helper()
	return startWith(t, dir, opts, broker.Config{})
}

// startWith starts a cluster whose broker has more than the usual configuration.
func startWith(t testing.TB, dir string, opts disklog.Options, config broker.Config) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var err error
	if c.log, err = disklog.Open(t.Context(), dir, opts); err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config.Engine, config.ID = c.log, &protocol.ProcessSpec_ID{Zone: "local", Suffix: "test"}
	config.Endpoint = protocol.Endpoint("http://" + lis.Addr().String())
	c.broker, err = broker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	c.server = grpc.NewServer(grpc.WaitForHandlers(true))
	protocol.RegisterJournalServer(c.server, c.broker)
	go func() { _ = c.server.Serve(lis) }()
	if c.conn, err = grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	c.client = protocol.NewJournalClient(c.conn)
	return c
}

func (c *cluster) stop() {
	c.t.Helper()
	c.shutDown()
	_ = c.conn.Close()
	for _, closer := range c.closers {
		if err := closer(); err != nil {
			c.t.Error(err)
		}
	}
}

// shutDown stops all but the client.
func (c *cluster) shutDown() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), testkit.Patience)
	defer cancel()
	if err := c.broker.Close(ctx); err != nil {
		c.t.Error(err)
	}
	c.server.Stop()
	if err := c.log.Close(ctx); err != nil {
		c.t.Error(err)
	}
}

// one starts a cluster with a journal for the time of a test.
func one(t testing.TB) *cluster {
	t.Helper()
	c := start(t, t.TempDir(), disklog.Options{})
	t.Cleanup(c.stop)
	c.create("test/journal")
	return c
}

func spec(name string) *protocol.JournalSpec {
	return &protocol.JournalSpec{
		Name: name, Replication: 3,
		Fragment: &protocol.JournalSpec_Fragment{
			Length: 1 << 20, CompressionCodec: protocol.CompressionCodec_SNAPPY, RefreshInterval: durationpb.New(time.Minute),
		},
	}
}

func (c *cluster) apply(changes ...*protocol.ApplyRequest_Change) *protocol.ApplyResponse {
	c.t.Helper()
	resp, err := c.client.Apply(c.t.Context(), &protocol.ApplyRequest{Changes: changes})
	if err != nil {
		c.t.Fatal(err)
	}
	valid(c.t, resp)
	return resp
}

func (c *cluster) create(name string) {
	c.t.Helper()
	if resp := c.apply(&protocol.ApplyRequest_Change{Upsert: spec(name)}); resp.GetStatus() != protocol.Status_OK {
		c.t.Fatal(resp)
	}
}

func valid(t testing.TB, m interface{ Validate() error }) {
	t.Helper()
	if err := m.Validate(); err != nil {
		t.Errorf("the response is not valid: %v\n%v", err, m)
	}
}

// append makes an append of the given chunks. A machine so slow that the client seems to have stalled makes it again.
func (c *cluster) append(opening *protocol.AppendRequest, chunks ...string) (*protocol.AppendResponse, error) {
	c.t.Helper()
	for {
		if resp, err := c.appendOnce(opening, chunks); status.Code(err) != codes.DeadlineExceeded {
			return resp, err
		}
	}
}

// appendOnce sends an append in the given chunks.
func (c *cluster) appendOnce(opening *protocol.AppendRequest, chunks []string) (*protocol.AppendResponse, error) {
	c.t.Helper()
	stream, err := c.client.Append(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	send := func(req *protocol.AppendRequest) {
		// An early answer ends the stream, and is found by CloseAndRecv.
		if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
			c.t.Error(err)
		}
	}
	send(opening)
	for _, chunk := range chunks {
		send(&protocol.AppendRequest{Content: []byte(chunk)})
	}
	send(new(protocol.AppendRequest))
	resp, err := stream.CloseAndRecv()
	if err == nil {
		valid(c.t, resp)
	}
	return resp, err
}

func (c *cluster) mustAppend(journal string, chunks ...string) *protocol.AppendResponse {
	c.t.Helper()
	resp, err := c.append(&protocol.AppendRequest{Journal: journal}, chunks...)
	if err != nil || resp.GetStatus() != protocol.Status_OK {
		c.t.Fatalf("append: %v, %v", resp, err)
	}
	return resp
}

// read reads until the stream ends, or the content has a length.
func (c *cluster) read(req *protocol.ReadRequest, length int) (content []byte, metas []*protocol.ReadResponse) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	stream, err := c.client.Read(ctx, req)
	if err != nil {
		c.t.Fatal(err)
	}
	at := int64(-1)
	for length == 0 || len(content) < length {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.t.Fatal(err)
		}
		valid(c.t, resp)
		if len(resp.GetContent()) == 0 {
			metas = append(metas, resp)
			at = resp.GetOffset()
			continue
		}
		if resp.GetOffset() != at {
			c.t.Fatalf("content at %d, expected at %d", resp.GetOffset(), at)
		}
		at += int64(len(resp.GetContent()))
		content = append(content, resp.GetContent()...)
	}
	if len(metas) > 0 && metas[0].GetHeader() == nil {
		c.t.Error("the first response has no header")
	}
	return content, metas
}

func TestAppendAndRead(t *testing.T) {
	c := one(t)
	resp := c.mustAppend("test/journal;meta", "hello, ", "world\n")
	if diff := cmp.Diff(&protocol.Fragment{
		Journal: "test/journal", Begin: 0, End: 13, Sum: protocol.SHA1SumOf([]byte("hello, world\n")),
		CompressionCodec: protocol.CompressionCodec_SNAPPY,
	}, resp.GetCommit(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if resp.GetTotalChunks() != 3 || resp.GetRegisters() == nil {
		t.Errorf("response %v", resp)
	}
	c.mustAppend("test/journal", "again\n")
	content, metas := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0)
	if string(content) != "hello, world\nagain\n" {
		t.Errorf("content %q", content)
	}
	// The first append has a fragment of its own.
	last := metas[len(metas)-1]
	if len(metas) != 3 || last.GetStatus() != protocol.Status_OFFSET_NOT_YET_AVAILABLE || last.GetOffset() != 19 || last.GetWriteHead() != 19 {
		t.Errorf("metadata %v", metas)
	}
	if content, _ = c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: 7, EndOffset: 15, Block: true}, 0); string(content) != "world\nag" {
		t.Errorf("content of a range %q", content)
	}
}

func TestZeroByteAppend(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "abc")
	resp := c.mustAppend("test/journal")
	if f := resp.GetCommit(); f.GetBegin() != 3 || f.GetEnd() != 3 || f.GetSum().ToDigest() != sha1.Sum(nil) || resp.GetTotalChunks() != 1 {
		t.Errorf("response %v", resp)
	}
}

func TestRollback(t *testing.T) {
	c := one(t)
	for what, messages := range map[string][]*protocol.AppendRequest{
		"no empty message":        {{Content: []byte("x")}},
		"nothing at all":          {},
		"content after empty":     {{}, {Content: []byte("x")}},
		"two empty messages":      {{Content: []byte("x")}, {}, {}},
		"second opening":          {{Content: []byte("x")}, {Journal: "test/journal"}},
		"invalid chunk":           {{Content: []byte("x"), Offset: 3}},
		"large, no empty message": {{Content: make([]byte, 1<<20)}, {Content: make([]byte, 1<<20)}},
	} {
		stream, err := c.client.Append(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
		for _, m := range messages {
			_ = stream.Send(m)
		}
		// What was only cut off may be tried again; what is wrong may not.
		want := codes.InvalidArgument
		switch what {
		case "no empty message", "large, no empty message", "nothing at all":
			want = codes.Unavailable
		}
		if resp, err := stream.CloseAndRecv(); status.Code(err) != want {
			t.Errorf("%s: %v, %v; want %v", what, resp, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.client.Append(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
	_ = stream.Send(&protocol.AppendRequest{Content: []byte("x")})
	cancel()
	if resp := c.mustAppend("test/journal"); resp.GetCommit().GetEnd() != 0 {
		t.Errorf("something was committed: %v", resp)
	}
}

func TestRegistersAndOffsets(t *testing.T) {
	c := one(t)
	set := protocol.MustLabelSet
	expect := func(want protocol.Status, req *protocol.AppendRequest, chunks ...string) *protocol.AppendResponse {
		t.Helper()
		req.Journal = "test/journal"
		resp, err := c.append(req, chunks...)
		if err != nil || resp.GetStatus() != want {
			t.Fatalf("%v, %v; want %v", resp, err, want)
		}
		return resp
	}
	expect(protocol.Status_OK, &protocol.AppendRequest{UnionRegisters: set("author", "one")}, "x")
	mine := &protocol.LabelSelector{Include: set("author", "one")}
	other := &protocol.LabelSelector{Include: set("author", "two")}
	resp := expect(protocol.Status_REGISTER_MISMATCH, &protocol.AppendRequest{CheckRegisters: other}, "y")
	if !resp.GetRegisters().Equal(set("author", "one")) {
		t.Errorf("registers %v", resp.GetRegisters())
	}
	resp = expect(protocol.Status_OK, &protocol.AppendRequest{CheckRegisters: mine, Offset: 1, SubtractRegisters: set("author", "one"), UnionRegisters: set("seq", "1")}, "y")
	if !resp.GetRegisters().Equal(set("seq", "1")) {
		t.Errorf("registers %v", resp.GetRegisters())
	}
	expect(protocol.Status_WRONG_APPEND_OFFSET, &protocol.AppendRequest{Offset: 1}, "z")
	expect(protocol.Status_WRONG_APPEND_OFFSET, &protocol.AppendRequest{Offset: 3}, "z")
	for what, req := range map[string]*protocol.AppendRequest{
		"registers without content": {UnionRegisters: set("a1", "b")},
		"huge registers":            {UnionRegisters: hugeSet()},
	} {
		req.Journal = "test/journal"
		chunks := []string{"x"}[:min(1, len(req.GetUnionRegisters().GetLabels())/2)]
		if _, err := c.append(req, chunks...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func hugeSet() *protocol.LabelSet {
	set := new(protocol.LabelSet)
	for i := range 100 {
		set.AddValue(fmt.Sprintf("label-%03d", i), string(bytes.Repeat([]byte("x"), 1000)))
	}
	return set
}

func TestStatuses(t *testing.T) {
	c := one(t)
	readOnly, writeOnly := spec("test/read-only"), spec("test/write-only")
	readOnly.Flags, writeOnly.Flags = uint32(protocol.JournalSpec_O_RDONLY), uint32(protocol.JournalSpec_O_WRONLY)
	c.apply(&protocol.ApplyRequest_Change{Upsert: readOnly}, &protocol.ApplyRequest_Change{Upsert: writeOnly})

	for _, test := range []struct {
		journal string
		chunks  []string
		want    protocol.Status
	}{
		{"test/none", nil, protocol.Status_JOURNAL_NOT_FOUND},
		{"test/read-only", nil, protocol.Status_OK},
		{"test/read-only", []string{"x"}, protocol.Status_NOT_ALLOWED},
		{"test/write-only", []string{"x"}, protocol.Status_OK},
	} {
		if resp, err := c.append(&protocol.AppendRequest{Journal: test.journal}, test.chunks...); err != nil || resp.GetStatus() != test.want {
			t.Errorf("append to %s: %v, %v", test.journal, resp, err)
		}
	}
	for journal, want := range map[string]protocol.Status{
		"test/none":       protocol.Status_JOURNAL_NOT_FOUND,
		"test/write-only": protocol.Status_NOT_ALLOWED,
		"test/read-only":  protocol.Status_OFFSET_NOT_YET_AVAILABLE,
	} {
		if _, metas := c.read(&protocol.ReadRequest{Journal: journal}, 0); len(metas) != 1 || metas[0].GetStatus() != want {
			t.Errorf("read %s: %v", journal, metas)
		}
	}
	stream, err := c.client.Replicate(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("replicate: %v", err)
	}
	foreign := &protocol.Header{ProcessId: &protocol.ProcessSpec_ID{}, Route: protocol.NewRoute(), Etcd: &protocol.Header_Etcd{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1}}
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Header: foreign}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("an append for another cluster: %v", err)
	}
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/journal", MinEtcdRevision: 1 << 40}); status.Code(err) != codes.OutOfRange {
		t.Errorf("an append for a revision that never comes: %v", err)
	}
}

func TestSuspend(t *testing.T) {
	c := one(t)
	expect := func(mode protocol.AppendRequest_Suspend, want protocol.Status, chunks ...string) {
		t.Helper()
		resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Suspend: mode}, chunks...)
		if err != nil || resp.GetStatus() != want {
			t.Fatalf("%v: %v, %v; want %v", mode, resp, err, want)
		}
	}
	level := func(want protocol.JournalSpec_Suspend_Level) {
		t.Helper()
		if got := c.log.Specs().Get("test/journal").GetSuspend().GetLevel(); got != want {
			t.Fatalf("level %v, want %v", got, want)
		}
	}
	const (
		resume, noResume = protocol.AppendRequest_SUSPEND_RESUME, protocol.AppendRequest_SUSPEND_NO_RESUME
		now, keep        = protocol.AppendRequest_SUSPEND_NOW, protocol.AppendRequest_SUSPEND_KEEP
		flushed          = protocol.AppendRequest_SUSPEND_IF_FLUSHED
	)
	expect(flushed, protocol.Status_SUSPENDED) // an empty journal is suspended in full
	level(protocol.JournalSpec_Suspend_FULL)
	expect(noResume, protocol.Status_SUSPENDED, "x")
	expect(keep, protocol.Status_SUSPENDED)
	if _, metas := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0); metas[0].GetStatus() != protocol.Status_SUSPENDED {
		t.Errorf("read: %v", metas)
	}
	expect(resume, protocol.Status_OK, "x")
	level(protocol.JournalSpec_Suspend_NONE)
	expect(flushed, protocol.Status_OK)
	expect(now, protocol.Status_SUSPENDED)
	level(protocol.JournalSpec_Suspend_PARTIAL)
	expect(noResume, protocol.Status_SUSPENDED, "x")
	expect(now, protocol.Status_SUSPENDED)
	expect(keep, protocol.Status_OK)
	expect(keep, protocol.Status_NOT_ALLOWED, "x")
	if content, _ := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0); string(content) != "x" {
		t.Errorf("content %q", content)
	}
	expect(resume, protocol.Status_OK, "y")
	level(protocol.JournalSpec_Suspend_NONE)
}

// The offset of a suspension is the least one of the next append, also where it was written by hand, and what the broker
// does not know of a spec stays in it.
func TestSuspendOffset(t *testing.T) {
	c := one(t)
	s := spec("test/journal")
	s.Suspend = &protocol.JournalSpec_Suspend{Level: protocol.JournalSpec_Suspend_FULL, Offset: 500}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7)
	s.ProtoReflect().SetUnknown(unknown)
	c.apply(&protocol.ApplyRequest_Change{Upsert: s, ExpectModRevision: -1})
	if resp := c.mustAppend("test/journal", "x"); resp.GetCommit().GetBegin() != 500 {
		t.Errorf("resumed at %v", resp.GetCommit())
	}
	got := c.log.Specs().Get("test/journal")
	if got.GetSuspend().GetLevel() != protocol.JournalSpec_Suspend_NONE || !bytes.Equal(got.ProtoReflect().GetUnknown(), unknown) {
		t.Errorf("the spec is %v", got.JournalSpec)
	}
	if content, metas := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0); string(content) != "x" || metas[0].GetOffset() != 500 {
		t.Errorf("read %q, %v", content, metas)
	}
}

func TestBlockingRead(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "before")
	const readers = 50
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			from := int64(-1)
			if i%2 == 0 {
				from = 6
			}
			content, _ := c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: from, Block: true, EndOffset: 0}, 10)
			if !bytes.Contains(bytes.Repeat([]byte("after..."), len(content)/8+2), content) || len(content) < 8 {
				t.Errorf("reader %d: %q", i, content)
			}
		})
	}
	// Those that start late at -1 need something to read, too.
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		default:
			c.mustAppend("test/journal", "after...")
		}
	}
}

func TestReadBeyondHead(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "0123456789")
	if _, metas := c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: -1, MetadataOnly: true}, 0); metas[0].GetOffset() != 10 || metas[0].GetStatus() != protocol.Status_OFFSET_NOT_YET_AVAILABLE {
		t.Errorf("at the head: %v", metas)
	}
	if _, metas := c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: 4, MetadataOnly: true}, 0); len(metas) != 1 || metas[0].GetFragment().GetEnd() != 10 || metas[0].GetOffset() != 4 {
		t.Errorf("metadata only: %v", metas)
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.mustAppend("test/journal", "abcdefghij") })
	defer wg.Wait()
	if content, _ := c.read(&protocol.ReadRequest{Journal: "test/journal", Offset: 15, Block: true}, 5); string(content) != "fghij" {
		t.Errorf("content %q", content)
	}
}

func TestTrimJump(t *testing.T) {
	c := one(t)
	small := spec("test/small")
	small.Fragment.Length = 1024
	c.apply(&protocol.ApplyRequest_Change{Upsert: small})
	for range 10 {
		c.mustAppend("test/small", string(make([]byte, 2000)))
	}
	if err := c.broker.Trim(t.Context(), "test/small", 9000); err != nil {
		t.Fatal(err)
	}
	content, metas := c.read(&protocol.ReadRequest{Journal: "test/small", Offset: 100}, 0)
	if metas[0].GetOffset() != 8000 || len(content) != 12000 {
		t.Errorf("%d bytes from %d on", len(content), metas[0].GetOffset())
	}
	resp, err := c.client.ListFragments(t.Context(), &protocol.FragmentsRequest{Journal: "test/small", PageLimit: 4})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, resp)
	if f := resp.GetFragments(); len(f) != 4 || f[0].GetSpec().GetBegin() != 8000 || resp.GetNextPageToken() != 16000 {
		t.Errorf("fragments: %v", resp)
	}
	resp, err = c.client.ListFragments(t.Context(), &protocol.FragmentsRequest{Journal: "test/small", NextPageToken: resp.GetNextPageToken()})
	if err != nil || len(resp.GetFragments()) != 2 || resp.GetNextPageToken() != 0 {
		t.Errorf("second page: %v, %v", resp, err)
	}
}

func TestLargeAppends(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir, disklog.Options{})
	c.create("test/journal")
	random := rand.NewChaCha8([32]byte{2})
	var want []byte
	for _, size := range []int{1 << 20, 1<<20 + 1, 5 << 20, 20 << 20, 100} {
		content := make([]byte, size)
		_, _ = random.Read(content)
		var chunks []string
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1<<18)
			chunks, rest = append(chunks, string(rest[:n])), rest[n:]
		}
		resp := c.mustAppend("test/journal", chunks...)
		if resp.GetCommit().GetSum().ToDigest() != sha1.Sum(content) {
			t.Error("the sum is wrong")
		}
		want = append(want, content...)
	}
	for _, most := range []int32{0, 100_000, 1 << 30} {
		if got, _ := c.read(&protocol.ReadRequest{Journal: "test/journal", MaxContent: most}, 0); !bytes.Equal(got, want) {
			t.Errorf("content differs in chunks of %d", most)
		}
	}
	c.stop()
	c = start(t, dir, disklog.Options{})
	defer c.stop()
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0); !bytes.Equal(got, want) {
		t.Error("content differs after a restart")
	}
}

func TestClose(t *testing.T) {
	c := start(t, t.TempDir(), disklog.Options{})
	c.create("test/journal")
	tail, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/journal", Block: true})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := c.client.List(t.Context(), &protocol.ListRequest{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	running, err := c.client.Append(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = running.Send(&protocol.AppendRequest{Journal: "test/journal"})
	for range 3 {
		// More than fits any window, so that the broker has surely begun to take it.
		_ = running.Send(&protocol.AppendRequest{Content: make([]byte, 1<<20)})
	}
	c.mustAppend("test/journal", "x")
	if _, err := tail.Recv(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := c.broker.Close(t.Context()); err != nil {
			t.Error(err)
		}
		c.server.GracefulStop()
	}()
	for {
		if _, err := tail.Recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the tail ended with %v", err)
			}
			break
		}
	}
	if _, err := watch.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/journal"}, "late"); status.Code(err) != codes.Unavailable {
		t.Errorf("a late append: %v", err)
	}
	_ = running.Send(new(protocol.AppendRequest))
	if resp, err := running.CloseAndRecv(); err != nil || resp.GetStatus() != protocol.Status_OK {
		t.Errorf("the append that was under way: %v, %v", resp, err)
	}
	<-closed
	c.stop()
}
