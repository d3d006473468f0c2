package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// fleet is a set of brokers of somebody else: they behave as the protocol says that Gazette's do, know nothing of our extensions,
// and fail the test when a client does what such brokers would not take.
type fleet struct {
	t       testing.TB
	brokers []*gazette
	keys    *auth.Keys

	mu       sync.Mutex
	revision int64
	journals map[string]*gazetteJournal
	changed  wake.Hub[string] // of content and topology, by journal; of specs, by ""
}

// gazetteJournal is a journal of a fleet. Its replicas share everything, as if all of them were synchronized at all times.
type gazetteJournal struct {
	spec          *pb.JournalSpec
	created, mod  int64
	members       []int // ascending
	primary       int   // of the brokers, or -1
	begin         int64 // of what the index has; before it everything was deleted
	content       []byte
	fragments     []*gazetteFragment // in stores, ascending
	registers     *pb.LabelSet
	refuseAppends []pb.Status // what the next appends are told
	loseAnswers   int         // how many of the next appends are made without an answer
	unlisted      bool        // its stores were not listed yet, so that it seems to be empty
}

type gazetteFragment struct {
	*pb.Fragment
	url string
}

// gazette is a broker of a fleet.
type gazette struct {
	pb.UnimplementedJournalServer
	fleet    *fleet
	id       *pb.ProcessSpec_ID
	endpoint string
	stop     func()
	reads    chan struct{} // receives as reads arrive

	mu    sync.Mutex
	calls map[string]int // by method; those of clients, not of peers
}

func newFleet(t testing.TB, keys *auth.Keys, zones ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, keys: keys, revision: 1, journals: make(map[string]*gazetteJournal)}
	for i, zone := range zones {
		b := &gazette{
			fleet: f, id: &pb.ProcessSpec_ID{Zone: zone, Suffix: fmt.Sprintf("broker-%d", i)},
			calls: make(map[string]int), reads: make(chan struct{}, 100),
		}
		b.serve("127.0.0.1:0")
		f.brokers = append(f.brokers, b)
	}
	return f
}

// serve begins to serve, until stop is called or the test ends.
func (b *gazette) serve(address string) {
	t := b.fleet.t
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b.endpoint = "http://" + l.Addr().String()
	server := grpc.NewServer(grpc.UnaryInterceptor(b.unary), grpc.StreamInterceptor(b.streaming))
	pb.RegisterJournalServer(server, b)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	b.stop = sync.OnceFunc(func() {
		server.Stop()
		served.Wait()
	})
	t.Cleanup(b.stop)
}

// restart breaks all connections, and serves on.
func (b *gazette) restart() {
	b.stop()
	b.serve(strings.TrimPrefix(b.endpoint, "http://"))
}

// dial returns a client that was given the address of one broker.
func (f *fleet) dial(broker int, cfg client.DialConfig) *client.Client {
	f.t.Helper()
	c, err := client.Dial(pb.Endpoint(f.brokers[broker].endpoint), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// add makes a journal that the brokers hold; the first of them is primary.
func (f *fleet) add(name string, brokers ...int) *gazetteJournal {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	j := &gazetteJournal{spec: gazetteSpec(name), created: f.revision, mod: f.revision, registers: new(pb.LabelSet)}
	j.assign(brokers...)
	f.journals[name] = j
	f.changed.Wake("")
	return j
}

// assign gives the journal to other brokers; the first of them is primary.
func (f *fleet) assign(name string, brokers ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	f.journals[name].assign(brokers...)
	f.changed.Wake(name)
}

func (j *gazetteJournal) assign(brokers ...int) {
	j.primary = -1
	if len(brokers) != 0 {
		j.primary = brokers[0]
	}
	j.members = slices.Sorted(slices.Values(brokers))
	j.spec.Replication = int32(max(1, len(brokers)))
}

func (j *gazetteJournal) end() int64 { return j.begin + int64(len(j.content)) }

// edit changes a journal.
func (f *fleet) edit(name string, change func(*gazetteJournal)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.journals[name])
	f.changed.Wake(name)
}

func (f *fleet) text(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.journals[name].content)
}

// called returns how often clients called a method of a broker since the last time.
func (b *gazette) called(method string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.calls[method]
	delete(b.calls, method)
	return n
}

// arrives counts a call and looks at how it was made.
func (b *gazette) arrives(ctx context.Context, method string) {
	b.mu.Lock()
	b.calls[method[strings.LastIndexByte(method, '/')+1:]]++
	b.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("content-type"); len(got) != 1 || got[0] != "application/grpc" {
		b.fleet.t.Errorf("%s: content type %q; Gazette resets such connections", method, got)
	}
	known := []string{"content-type", "user-agent", "authorization", ":authority", "grpc-accept-encoding"}
	for _, k := range slices.Collect(maps.Keys(md)) {
		if !slices.Contains(known, k) {
			b.fleet.t.Errorf("%s: metadata %q means nothing to Gazette", method, k)
		}
	}
}

func (b *gazette) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	b.arrives(ctx, info.FullMethod)
	if err := receive(req.(proto.Message)); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (b *gazette) streaming(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	b.arrives(stream.Context(), info.FullMethod)
	return handle(srv, gazetteStream{stream})
}

// gazetteStream takes messages in as Gazette does.
type gazetteStream struct{ grpc.ServerStream }

func (s gazetteStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return receive(m.(proto.Message))
}

// receive forgets what Gazette does not know of a message, and refuses it if the rest is not valid.
func receive(m proto.Message) error {
	const additions = 1000 // Our own fields have numbers from here on.
	r := m.ProtoReflect()
	r.Range(func(d protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if d.Number() >= additions {
			r.Clear(d)
		}
		return true
	})
	if err := m.(interface{ Validate() error }).Validate(); err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return nil
}

// authorize returns the claims of a call, whose context ends with them.
func (b *gazette) authorize(ctx context.Context, c auth.Capability) (context.Context, context.CancelFunc, auth.Claims, error) {
	if b.fleet.keys == nil {
		return ctx, func() {}, auth.Claims{Capability: auth.All}, nil
	}
	claims, err := b.fleet.keys.VerifyHeader(metadata.ValueFromIncomingContext(ctx, "authorization"), c)
	if err != nil {
		return ctx, func() {}, claims, status.Error(codes.Unauthenticated, err.Error())
	}
	ctx, cancel := context.WithDeadline(ctx, claims.Expires)
	return ctx, cancel, claims, nil
}

// header is what a broker says of a journal; f.mu must be held.
func (b *gazette) header(j *gazetteJournal) *pb.Header {
	f := b.fleet
	h := &pb.Header{
		ProcessId: b.id, Route: pb.NewRoute(),
		Etcd: &pb.Header_Etcd{ClusterId: 7, MemberId: 8, Revision: f.revision, RaftTerm: 9},
	}
	if j != nil {
		h.Route = f.route(j)
	}
	return h
}

func (f *fleet) route(j *gazetteJournal) *pb.Route {
	r := pb.NewRoute()
	for i, m := range j.members {
		r.Members = append(r.Members, f.brokers[m].id)
		r.Endpoints = append(r.Endpoints, f.brokers[m].endpoint)
		if m == j.primary {
			r.Primary = int32(i)
		}
	}
	return r
}

// resolve finds out which broker serves a call; f.mu must be held.
func (b *gazette) resolve(ref string, claims auth.Claims, primary, mayProxy bool) (*gazetteJournal, *pb.Header, pb.Status, *gazette) {
	f := b.fleet
	j := f.journals[string(pb.Journal(ref).StripMeta())]
	if j == nil || !claims.Allows(j.spec.LabelSetForMatching()) {
		return nil, b.header(nil), pb.Status_JOURNAL_NOT_FOUND, nil
	}
	h := b.header(j)
	self := slices.Index(f.brokers, b)
	var serves *gazette
	switch {
	case j.spec.GetSuspend().GetLevel() == pb.JournalSpec_Suspend_FULL:
		return j, h, pb.Status_SUSPENDED, nil
	case primary && j.primary < 0:
		return j, h, pb.Status_NO_JOURNAL_PRIMARY_BROKER, nil
	case len(j.members) == 0:
		return j, h, pb.Status_INSUFFICIENT_JOURNAL_BROKERS, nil
	case primary:
		serves = f.brokers[j.primary]
	case slices.Contains(j.members, self):
		serves = b
	default:
		serves = f.brokers[j.members[0]]
	}
	if serves != b && !mayProxy {
		if primary {
			return j, h, pb.Status_NOT_JOURNAL_PRIMARY_BROKER, nil
		}
		return j, h, pb.Status_NOT_JOURNAL_BROKER, nil
	}
	return j, serves.header(j), pb.Status_OK, serves
}

func unknown(format string, args ...any) error { return status.Errorf(codes.Unknown, format, args...) }

// ofClient refuses a header, which only brokers attach.
func (b *gazette) ofClient(method string, h *pb.Header) {
	if h != nil {
		b.fleet.t.Errorf("%s: a client sent a header", method)
	}
}

func (b *gazette) Append(stream pb.Journal_AppendServer) error {
	f := b.fleet
	open, err := stream.Recv()
	if err != nil {
		return unknown("%v", err)
	}
	ctx, cancel, claims, err := b.authorize(stream.Context(), auth.Append)
	defer cancel()
	if err != nil {
		return err
	}
	b.ofClient("Append", open.Header)
	f.mu.Lock()
	j, h, s, _ := b.resolve(open.Journal, claims, true, !open.DoNotProxy)
	if s == pb.Status_SUSPENDED && open.Suspend == pb.AppendRequest_SUSPEND_RESUME {
		// It has nobody right after it was resumed, and has them a little later.
		j.spec.Suspend.Level = pb.JournalSpec_Suspend_NONE
		s = pb.Status_NO_JOURNAL_PRIMARY_BROKER
	}
	if s == pb.Status_OK && len(j.refuseAppends) != 0 {
		s, j.refuseAppends = j.refuseAppends[0], j.refuseAppends[1:]
	}
	if s == pb.Status_OK {
		s = j.precondition(open)
	}
	resp := &pb.AppendResponse{Status: s, Header: h}
	if s == pb.Status_REGISTER_MISMATCH {
		resp.Registers = j.registers
	}
	f.mu.Unlock()
	if s != pb.Status_OK {
		return stream.SendAndClose(resp) // Before the content has come.
	}
	content, chunks, err := gazetteContent(ctx, stream)
	if err != nil {
		return err
	}
	resp, err = f.commit(j, open, content)
	if err != nil {
		return err
	}
	resp.Header, resp.TotalChunks = h, chunks
	return stream.SendAndClose(resp)
}

// precondition evaluates what an append demands; f.mu must be held.
func (j *gazetteJournal) precondition(open *pb.AppendRequest) pb.Status {
	if open.CheckRegisters != nil && len(j.registers.Labels) != 0 && !open.CheckRegisters.Matches(j.registers) {
		return pb.Status_REGISTER_MISMATCH
	}
	if open.Offset != 0 && open.Offset != j.end() {
		return pb.Status_WRONG_APPEND_OFFSET
	}
	return pb.Status_OK
}

// gazetteContent receives what follows the opening message up to the intent to commit and the end of the stream.
func gazetteContent(ctx context.Context, stream pb.Journal_AppendServer) (content []byte, chunks int64, err error) {
	for intent := false; ; chunks++ {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && intent:
			return content, chunks, nil
		case errors.Is(err, io.EOF):
			return nil, 0, unknown("append stream: unexpected EOF")
		case err != nil:
			return nil, 0, err
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case m.Journal != "":
			return nil, 0, unknown("unexpected opening message")
		case intent:
			return nil, 0, unknown("unexpected message behind the intent to commit")
		case len(m.Content) == 0:
			intent = true
		default:
			content = append(content, m.Content...)
		}
	}
}

func (f *fleet) commit(j *gazetteJournal, open *pb.AppendRequest, content []byte) (*pb.AppendResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := j.precondition(open); s != pb.Status_OK {
		// The pipeline would have been held meanwhile. Nothing of it can be seen by a client.
		return &pb.AppendResponse{Status: s, Registers: j.registers}, nil
	}
	if len(content) == 0 && (open.UnionRegisters != nil || open.SubtractRegisters != nil) {
		return nil, unknown("register modification requires non-empty Append")
	}
	begin := j.end()
	j.content = append(j.content, content...)
	j.registers = pb.UnionLabelSets(open.UnionRegisters, pb.SubtractLabelSets(j.registers, open.SubtractRegisters))
	f.changed.Wake(j.spec.Name)
	if j.loseAnswers > 0 {
		j.loseAnswers--
		return nil, status.Error(codes.Unavailable, "transport is closing")
	}
	return &pb.AppendResponse{
		Commit: &pb.Fragment{
			Journal: j.spec.Name, Begin: begin, End: j.end(), Sum: pb.SHA1SumOf(content), CompressionCodec: j.spec.Fragment.CompressionCodec,
		},
		Registers: j.registers,
	}, nil
}

func (b *gazette) Read(req *pb.ReadRequest, stream pb.Journal_ReadServer) error {
	ctx, cancel, claims, err := b.authorize(stream.Context(), auth.Read)
	defer cancel()
	if err != nil {
		return err
	}
	b.ofClient("Read", req.Header)
	select {
	case b.reads <- struct{}{}:
	default:
	}
	return b.read(ctx, req, claims, stream)
}

func (b *gazette) read(ctx context.Context, req *pb.ReadRequest, claims auth.Claims, stream pb.Journal_ReadServer) error {
	f := b.fleet
	name := string(pb.Journal(req.Journal).StripMeta())
	changed, stop := f.changed.Watch(name)
	defer stop()
	f.mu.Lock()
	j, header, s, serves := b.resolve(req.Journal, claims, false, !req.DoNotProxy)
	f.mu.Unlock()
	if s != pb.Status_OK {
		return stream.Send(&pb.ReadResponse{Status: s, Header: header})
	}
	for offset := req.Offset; ; {
		f.mu.Lock()
		held := slices.Contains(j.members, slices.Index(f.brokers, serves))
		if offset == -1 && !j.unlisted {
			offset = j.end()
		}
		resp, remote := j.query(req, offset)
		content := bytes.Clone(j.content[min(int64(len(j.content)), max(0, resp.Offset-j.begin)):])
		f.mu.Unlock()
		if !held {
			return nil // It has been given to others.
		}
		if resp.Status == pb.Status_OFFSET_NOT_YET_AVAILABLE && req.Block {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		resp.Header, header = header, nil // Of the first message alone.
		offset = resp.Offset
		if err := stream.Send(resp); err != nil {
			return err
		}
		switch {
		case resp.Status != pb.Status_OK, req.MetadataOnly, remote && req.DoNotProxy, req.EndOffset != 0 && offset >= req.EndOffset:
			return nil
		}
		end := resp.Fragment.End
		if req.EndOffset != 0 {
			end = min(end, req.EndOffset)
		}
		for content = content[:end-offset]; len(content) != 0; {
			const most = 1<<15 - 32
			n := min(most, len(content))
			if err := stream.Send(&pb.ReadResponse{Offset: offset, Content: content[:n]}); err != nil {
				return err
			}
			content = content[n:]
			offset += int64(n)
		}
		if req.EndOffset != 0 && offset >= req.EndOffset {
			return nil
		}
	}
}

// query is an answer from the index, and whether content is in a store alone.
func (j *gazetteJournal) query(req *pb.ReadRequest, offset int64) (resp *pb.ReadResponse, remote bool) {
	if j.unlisted {
		return &pb.ReadResponse{Status: pb.Status_OFFSET_NOT_YET_AVAILABLE, Offset: max(0, offset)}, false
	}
	offset = max(offset, j.begin) // What was deleted is jumped over.
	for _, fr := range j.fragments {
		if offset >= fr.Begin && offset < fr.End {
			if fr.ModTime < req.BeginModTime {
				offset = fr.End
				continue
			}
			return &pb.ReadResponse{Offset: offset, WriteHead: j.end(), Fragment: fr.Fragment, FragmentUrl: fr.url}, true
		}
	}
	if offset >= j.end() {
		return &pb.ReadResponse{Status: pb.Status_OFFSET_NOT_YET_AVAILABLE, Offset: offset, WriteHead: j.end()}, false
	}
	begin := j.begin
	if n := len(j.fragments); n != 0 {
		begin = j.fragments[n-1].End
	}
	local := &pb.Fragment{
		Journal: j.spec.Name, Begin: begin, End: j.end(), CompressionCodec: j.spec.Fragment.CompressionCodec,
		Sum: pb.SHA1SumOf(j.content[begin-j.begin:]),
	}
	return &pb.ReadResponse{Offset: offset, WriteHead: j.end(), Fragment: local}, false
}
