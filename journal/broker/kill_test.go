package broker_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// childDir tells a process of the test binary to be a broker on a directory.
const childDir = "DAYBOOK_TEST_BROKER"

// serveChild is a broker on dir/data, with stores in dir/stores, that tells its address and serves until its input ends.
func serveChild(dir string) error {
	ctx := context.Background()
	log, err := disklog.Open(ctx, filepath.Join(dir, "data"), disklog.Options{
		SegmentSize: 1 << 20, OpenFiles: 4, AdoptSize: 1 << 20, CheckpointInterval: 50 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	stores := store.NewRegistry(store.Options{Root: filepath.Join(dir, "stores")})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b, err := broker.New(ctx, broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "child"}, Endpoint: protocol.Endpoint("http://" + lis.Addr().String()),
		Stores: stores, Scratch: filepath.Join(dir, "scratch"),
	})
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	protocol.RegisterJournalServer(server, b)
	go func() { _ = server.Serve(lis) }()
	fmt.Println(lis.Addr())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	end, cancel := context.WithTimeout(ctx, testkit.Patience)
	defer cancel()
	err = b.Close(end)
	server.Stop()
	return errors.Join(err, stores.Close(), log.Close(end))
}

// child is a broker in a process of its own.
type child struct {
	cmd   *exec.Cmd
	input io.Closer
	conn  *grpc.ClientConn
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], "-test.run=^$")}
	c.cmd.Env = append(os.Environ(), childDir+"="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.input, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the broker does not start: %v, %v", err, c.cmd.Wait())
	}
	if c.conn, err = grpc.NewClient(strings.TrimSpace(addr), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	return c
}

// kill kills the process, and closes the connection when the clients are done.
func (c *child) kill(clients func()) error {
	err := c.cmd.Process.Kill()
	_ = c.cmd.Wait() // which tells that it was killed
	clients()
	return errors.Join(err, c.conn.Close())
}

// end has the broker end, and returns how it did.
func (c *child) end() error {
	return errors.Join(c.input.Close(), c.cmd.Wait(), c.conn.Close())
}

// An append of the test is a frame: what it is, and bytes that follow from that.
//
//	uint32  length of the frame
//	uint64  its number, which is never used again
//	uint64  before: what the journal must be like, by its register or by its head
//	...     random bytes, seeded with the number
const frameHeader = 20

func makeFrame(id, before uint64, size int) []byte {
	b := make([]byte, frameHeader+size)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	binary.LittleEndian.PutUint64(b[4:], id)
	binary.LittleEndian.PutUint64(b[12:], before)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], id)
	_, _ = rand.NewChaCha8(seed).Read(b[frameHeader:])
	return b
}

// killKind is how the clients of a journal keep out of each other's way.
type killKind int

const (
	anyhow   killKind = iota // not at all
	byOffset                 // each append names the head
	byLock                   // each append replaces the register that it knows
)

// killJournal is what must be true of a journal.
type killJournal struct {
	spec *protocol.JournalSpec
	kind killKind

	mu sync.Mutex
	// sent are the appends that may be there, acked where those are that must be.
	sent  map[uint64]bool
	acked map[uint64]int64
	// head and lock are what clients know of the journal.
	head, lock uint64
	// tailed is what the tail has read, content what was there after the last start. Only the tail, or the check, has them.
	tailed, content []byte
}

// killing is a run of TestKill.
type killing struct {
	t        *testing.T
	dir      string
	journals []*killJournal
	nextID   uint64 // guarded by mu
	mu       sync.Mutex

	client protocol.JournalClient
	ctx    context.Context // of the clients

	// specs: revision is the greatest that was acknowledged, value what journal 0 has as label, unless tried is.
	revision     int64
	value, tried int
}

// TestKill kills the broker's process again and again while clients append, read, and change specs, and stores come and go. After
// each start all that was acknowledged is there, where it was said to be; what was not is there as a whole or not at all; nobody
// has read anything else; and registers and specs are as they were last acknowledged, or as somebody had asked for since.
func TestKill(t *testing.T) {
	seed := cmp.Or(*soakSeed, rand.Uint64())
	t.Logf("-soak-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for end := time.Now().Add(*soak); ; {
		k := newKilling(t)
		for range 20 { // then from the beginning, so that memory is bounded
			k.round(random)
			if t.Failed() || time.Now().After(end) {
				break
			}
		}
		k.finish()
		if t.Failed() || time.Now().After(end) {
			return
		}
	}
}

func newKilling(t *testing.T) *killing {
	k := &killing{t: t, dir: t.TempDir()}
	for _, d := range []string{"stores", "scratch"} {
		if err := os.Mkdir(filepath.Join(k.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, j := range []struct {
		kind  killKind
		codec protocol.CompressionCodec
		store bool
	}{
		{anyhow, protocol.CompressionCodec_NONE, false},
		{anyhow, protocol.CompressionCodec_ZSTANDARD, true},
		{byOffset, protocol.CompressionCodec_NONE, true},
		{byLock, protocol.CompressionCodec_NONE, false},
		{byLock, protocol.CompressionCodec_GZIP, true},
	} {
		s := spec(fmt.Sprintf("kill/journal-%d", i))
		s.Fragment.CompressionCodec, s.Fragment.Length = j.codec, 64<<10
		s.Fragment.RefreshInterval = durationpb.New(time.Second)
		if j.store {
			s.Fragment.Stores = []string{"file:///place/"}
		}
		k.journals = append(k.journals, &killJournal{spec: s, kind: j.kind, sent: make(map[uint64]bool), acked: make(map[uint64]int64)})
	}
	c := startChild(t, k.dir)
	k.client = protocol.NewJournalClient(c.conn)
	for _, j := range k.journals {
		resp, err := k.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Upsert: j.spec}}})
		if err != nil || resp.GetStatus() != protocol.Status_OK {
			t.Fatal(resp, err)
		}
	}
	if err := c.kill(func() {}); err != nil { // specs survive too
		t.Error(err)
	}
	return k
}

// round starts the broker, checks what is there, and kills it while clients are at work.
func (k *killing) round(random *rand.Rand) {
	c := startChild(k.t, k.dir)
	k.client = protocol.NewJournalClient(c.conn)
	k.check()
	ctx, cancel := context.WithCancel(k.t.Context())
	k.ctx = ctx
	var clients sync.WaitGroup
	for i := range 12 {
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		clients.Go(func() {
			for k.append(k.journals[i%len(k.journals)], r) == nil {
			}
		})
	}
	for _, j := range k.journals {
		clients.Go(func() { k.tail(j) })
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		clients.Go(func() {
			for k.ctx.Err() == nil && k.readSome(j, r) {
			}
		})
	}
	clients.Go(k.changeSpecs)
	seed := random.Uint64()
	clients.Go(func() { k.outages(ctx, seed) })
	time.Sleep(time.Duration(20+random.IntN(300)) * time.Millisecond) // the moment is at random
	err := c.kill(func() {
		cancel()
		clients.Wait()
	})
	if err != nil {
		k.t.Error(err)
	}
}

// finish checks for the last time, and ends the broker as one should.
func (k *killing) finish() {
	c := startChild(k.t, k.dir)
	k.client = protocol.NewJournalClient(c.conn)
	k.check()
	if err := c.end(); err != nil {
		k.t.Errorf("the broker's end: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(k.dir, "scratch")); err != nil || len(left) != 0 {
		k.t.Errorf("left behind: %v, %v", left, err)
	}
	acked, total := 0, 0
	for _, j := range k.journals {
		acked, total = acked+len(j.acked), total+len(j.content)
	}
	k.t.Logf("%d appends were acknowledged, %d bytes are there", acked, total)
}

// append makes one append. An error ends the client.
func (k *killing) append(j *killJournal, r *rand.Rand) error {
	k.mu.Lock()
	k.nextID++
	id := k.nextID
	k.mu.Unlock()
	req := &protocol.AppendRequest{Journal: j.spec.GetName()}
	size := r.IntN(2 << 10)
	switch r.IntN(100) {
	case 0:
		size = 1<<20 + r.IntN(1<<20) // staged, and adopted if it is large
	case 1, 2, 3:
		size = r.IntN(300 << 10)
	}
	j.mu.Lock()
	before := uint64(0)
	switch j.kind {
	case byOffset:
		before = j.head
		req.Offset = int64(before)
	case byLock:
		before = j.lock
		req.CheckRegisters = &protocol.LabelSelector{Include: protocol.MustLabelSet("lock", fmt.Sprint(before))}
		req.UnionRegisters = protocol.MustLabelSet("lock", fmt.Sprint(id))
	}
	j.sent[id] = true
	j.mu.Unlock()
	resp, err := sendAppend(k.ctx, k.client, req, makeFrame(id, before, size))
	if status.Code(err) == codes.DeadlineExceeded && k.ctx.Err() == nil {
		return nil // a slow machine makes it look as if we had stalled
	}
	if err != nil {
		if status.Code(err) != codes.Unavailable && k.ctx.Err() == nil {
			k.t.Errorf("append to %s: %v", j.spec.GetName(), err)
		}
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch resp.GetStatus() {
	case protocol.Status_OK:
		j.acked[id] = resp.GetCommit().GetBegin()
		j.head = max(j.head, uint64(resp.GetCommit().GetEnd()))
		j.lock = id
	case protocol.Status_WRONG_APPEND_OFFSET, protocol.Status_REGISTER_MISMATCH:
		delete(j.sent, id)
		if values := resp.GetRegisters().ValuesOf("lock"); len(values) == 1 {
			if _, err := fmt.Sscan(values[0], &j.lock); err != nil {
				k.t.Error(err)
			}
		}
	case protocol.Status_FRAGMENT_STORE_UNHEALTHY: // an empty journal whose stores cannot be listed
		delete(j.sent, id)
	default:
		k.t.Errorf("append to %s: %v", j.spec.GetName(), resp)
	}
	return nil
}

// sendAppend sends an append in messages that every broker takes.
func sendAppend(ctx context.Context, client protocol.JournalClient, req *protocol.AppendRequest, content []byte) (*protocol.AppendResponse, error) {
	stream, err := client.Append(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(req)
	for chunk := range slices.Chunk(content, 500<<10) {
		if err == nil {
			err = stream.Send(&protocol.AppendRequest{Content: chunk})
		}
	}
	if err == nil {
		err = stream.Send(new(protocol.AppendRequest))
	}
	stream.Context() // so that gRPC does not send a part of it again
	resp, recvErr := stream.CloseAndRecv()
	if recvErr == nil && err != nil {
		return nil, err
	}
	return resp, recvErr
}

// tail reads on from where it was, as long as the broker lives.
func (k *killing) tail(j *killJournal) {
	stream, err := k.client.Read(k.ctx, &protocol.ReadRequest{Journal: j.spec.GetName(), Offset: int64(len(j.tailed)), Block: true})
	for err == nil {
		var resp *protocol.ReadResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		if resp.GetOffset() != int64(len(j.tailed)) {
			k.t.Errorf("%s: the tail is at %d, and is sent %d", j.spec.GetName(), len(j.tailed), resp.GetOffset())
			return
		}
		j.tailed = append(j.tailed, resp.GetContent()...)
	}
	if status.Code(err) != codes.Unavailable && k.ctx.Err() == nil {
		k.t.Errorf("tail of %s: %v", j.spec.GetName(), err)
	}
}

// readSome compares a range with what was there at the start. Its store may be away.
func (k *killing) readSome(j *killJournal, r *rand.Rand) bool {
	if len(j.content) == 0 {
		return false
	}
	begin := r.IntN(len(j.content))
	end := begin + 1 + r.IntN(min(len(j.content)-begin, 500<<10))
	got, err := readRange(k.ctx, k.client, j.spec.GetName(), begin, end)
	if !bytes.Equal(got, j.content[begin:begin+len(got)]) {
		k.t.Errorf("%s: [%d, %d) reads differently", j.spec.GetName(), begin, end)
	}
	if err != nil && status.Code(err) != codes.Unavailable && k.ctx.Err() == nil {
		k.t.Errorf("read [%d, %d) of %s: %v", begin, end, j.spec.GetName(), err)
	}
	return err == nil || k.ctx.Err() == nil && status.Code(err) == codes.Unavailable && r.IntN(20) != 0
}

// readRange reads a range; end 0 is the head.
func readRange(ctx context.Context, client protocol.JournalClient, journal string, begin, end int) (got []byte, err error) {
	stream, err := client.Read(ctx, &protocol.ReadRequest{Journal: journal, Offset: int64(begin), EndOffset: int64(end), MaxContent: 1 << 20})
	for err == nil {
		var resp *protocol.ReadResponse
		if resp, err = stream.Recv(); err == nil && resp.GetOffset() != int64(begin+len(got)) {
			return got, fmt.Errorf("at %d, sent %d", begin+len(got), resp.GetOffset())
		}
		got = append(got, resp.GetContent()...)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return got, err
}

// changeSpecs changes a label again and again, and creates and deletes a journal.
func (k *killing) changeSpecs() {
	for {
		k.tried = k.value + 1
		s := spec("kill/label")
		s.Labels = protocol.MustLabelSet("value", fmt.Sprint(k.tried))
		changes := []*protocol.ApplyRequest_Change{{Upsert: s, ExpectModRevision: -1}}
		if k.tried%2 == 0 {
			changes = append(changes, &protocol.ApplyRequest_Change{Upsert: spec("kill/even"), ExpectModRevision: -1})
		} else {
			changes = append(changes, &protocol.ApplyRequest_Change{Delete: "kill/even", ExpectModRevision: -1})
		}
		resp, err := k.client.Apply(k.ctx, &protocol.ApplyRequest{Changes: changes})
		if err != nil {
			return
		}
		if resp.GetStatus() != protocol.Status_OK || resp.GetHeader().GetEtcd().GetRevision() <= k.revision {
			k.t.Errorf("apply after revision %d: %v", k.revision, resp)
		}
		k.revision, k.value = resp.GetHeader().GetEtcd().GetRevision(), k.tried
		if _, err := sendAppend(k.ctx, k.client, &protocol.AppendRequest{Journal: "kill/even"}, []byte("x")); err != nil {
			return
		}
	}
}

// outages takes the stores away from time to time.
func (k *killing) outages(ctx context.Context, seed uint64) {
	here, away := filepath.Join(k.dir, "stores"), filepath.Join(k.dir, "away")
	r := rand.New(rand.NewPCG(seed, 0))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(r.IntN(50)) * time.Millisecond):
		}
		if err := os.Rename(here, away); err != nil {
			k.t.Error(err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.IntN(50)) * time.Millisecond):
		}
		if err := os.Rename(away, here); err != nil {
			k.t.Error(err)
			return
		}
	}
}

// check compares everything with what must be. Nobody else is at work, and stores are there.
func (k *killing) check() {
	for _, j := range k.journals {
		if err := k.checkJournal(j); err != nil {
			k.t.Errorf("%s after a start: %v", j.spec.GetName(), err)
		}
	}
	k.checkSpecs()
}

func (k *killing) checkJournal(j *killJournal) error {
	content, err := readRange(k.t.Context(), k.client, j.spec.GetName(), 0, 0)
	if err != nil {
		return err
	}
	for what, before := range map[string][]byte{"at the last start": j.content, "by a tail": j.tailed} {
		if !bytes.HasPrefix(content, before) {
			return fmt.Errorf("%d bytes were read %s, and of %d now some are different", len(before), what, len(content))
		}
	}
	j.content = content
	there := make(map[uint64]bool)
	lock := uint64(0)
	for at := 0; at < len(content); {
		rest := content[at:]
		if len(rest) < frameHeader || int(binary.LittleEndian.Uint32(rest)) > len(rest) {
			return fmt.Errorf("a part of an append at %d", at)
		}
		size := int(binary.LittleEndian.Uint32(rest))
		id, before := binary.LittleEndian.Uint64(rest[4:]), binary.LittleEndian.Uint64(rest[12:])
		switch {
		case !j.sent[id]:
			return fmt.Errorf("append %d at %d was refused, or never made", id, at)
		case there[id]:
			return fmt.Errorf("append %d at %d is there twice", id, at)
		case !bytes.Equal(rest[:size], makeFrame(id, before, size-frameHeader)):
			return fmt.Errorf("append %d at %d has other bytes", id, at)
		case j.kind == byOffset && before != uint64(at) && before != 0:
			return fmt.Errorf("append %d for offset %d is at %d", id, before, at)
		case j.kind == byLock && before != lock:
			return fmt.Errorf("append %d at %d followed %d, and is behind %d", id, at, before, lock)
		}
		if want, ok := j.acked[id]; ok && want != int64(at) {
			return fmt.Errorf("append %d is at %d instead of %d", id, at, want)
		}
		there[id] = true
		lock = id
		at += size
	}
	for id, at := range j.acked {
		if !there[id] {
			return fmt.Errorf("append %d at %d was acknowledged and is lost", id, at)
		}
	}
	j.sent = there // what is not there now must not come any more
	resp, err := sendAppend(k.t.Context(), k.client, &protocol.AppendRequest{Journal: j.spec.GetName()}, nil)
	if err != nil || resp.GetStatus() != protocol.Status_OK || resp.GetCommit().GetEnd() != int64(len(content)) {
		return fmt.Errorf("an append of nothing to %d bytes: %v, %w", len(content), resp, err)
	}
	if got := resp.GetRegisters().ValuesOf("lock"); j.kind == byLock && lock != 0 && !slices.Equal(got, []string{fmt.Sprint(lock)}) {
		return fmt.Errorf("the lock is %v instead of %d", got, lock)
	}
	j.head, j.lock = uint64(len(content)), lock
	return nil
}

func (k *killing) checkSpecs() {
	stream, err := k.client.List(k.t.Context(), new(protocol.ListRequest))
	if err != nil {
		k.t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		k.t.Fatal(err)
	}
	revision := resp.GetHeader().GetEtcd().GetRevision()
	if revision < k.revision {
		k.t.Errorf("revision %d after a start, %d before", revision, k.revision)
	}
	value, even := 0, false
	for _, l := range resp.GetJournals() {
		switch l.GetSpec().GetName() {
		case "kill/even":
			even = true
		case "kill/label":
			if _, err := fmt.Sscan(l.GetSpec().GetLabels().ValueOf("value"), &value); err != nil {
				k.t.Error(err)
			}
		}
	}
	if value != k.value && value != k.tried || even != (value > 0 && value%2 == 0) {
		k.t.Errorf("the label is %d, and the journal is there: %v; %d was acknowledged, %d tried", value, even, k.value, k.tried)
	}
	k.revision, k.value = revision, value
}
