package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
	"github.com/daybook-dev/daybook/journal/store/storetest"
)

// withStores returns a function that starts a cluster in a directory with stores, again with what it had.
func withStores(t *testing.T, opts store.Options) func() *cluster {
	t.Helper()
	dir, scratch := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(scratch); err != nil || len(left) != 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	})
	return func() *cluster {
		t.Helper()
		stores := store.NewRegistry(opts)
		c := startWith(t, dir, disklog.Options{}, broker.Config{Stores: stores, Scratch: scratch})
		c.closers = append(c.closers, stores.Close)
		return c
	}
}

// memory opens the same bucket in memory for every store.
func memory(b *bucket.Mem) store.Options {
	return store.Options{Open: func(context.Context, *url.URL, map[string]string) (bucket.Bucket, error) { return b, nil }}
}

const memoryStore = "s3://bucket/prefix/"

func storedSpec(name string, codec protocol.CompressionCodec, stores ...string) *protocol.JournalSpec {
	s := spec(name)
	s.Fragment.Stores, s.Fragment.CompressionCodec, s.Fragment.Length = stores, codec, 1<<10
	s.Fragment.RefreshInterval = durationpb.New(time.Second)
	return s
}

func (c *cluster) createStored(s *protocol.JournalSpec) {
	c.t.Helper()
	if resp := c.apply(&protocol.ApplyRequest_Change{Upsert: s}); resp.GetStatus() != protocol.Status_OK {
		c.t.Fatal(resp)
	}
}

func (c *cluster) fragments(req *protocol.FragmentsRequest) []*protocol.FragmentsResponse_XFragment {
	c.t.Helper()
	resp, err := c.client.ListFragments(c.t.Context(), req)
	if err != nil || resp.GetStatus() != protocol.Status_OK {
		c.t.Fatalf("list fragments: %v, %v", resp, err)
	}
	valid(c.t, resp)
	return resp.GetFragments()
}

// awaitStored waits until the broker has stored all content of a journal up to an offset.
func (c *cluster) awaitStored(journal string, end int64) []*protocol.FragmentsResponse_XFragment {
	c.t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		all := c.fragments(&protocol.FragmentsRequest{Journal: journal})
		done := int64(0)
		for _, f := range all {
			if f.GetSpec().GetBackingStore() == "" {
				break
			}
			done = f.GetSpec().GetEnd()
		}
		if done >= end {
			return all
		}
		if time.Since(begin) > testkit.Patience {
			c.t.Fatalf("%d of %d bytes are stored: %v", done, end, all)
		}
	}
}

// TestStoredRoundTrip appends in every codec, and reads what was stored, from everywhere.
func TestStoredRoundTrip(t *testing.T) {
	codecs := []protocol.CompressionCodec{
		protocol.CompressionCodec_NONE, protocol.CompressionCodec_GZIP, protocol.CompressionCodec_ZSTANDARD,
		protocol.CompressionCodec_SNAPPY, protocol.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION,
	}
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	for _, codec := range codecs {
		name := "test/" + strings.ToLower(codec.String())
		s := storedSpec(name, codec, memoryStore)
		s.Fragment.PathPostfixTemplate = `year={{.Spool.FirstAppendTime.Format "2006"}}`
		c.createStored(s)
		var want []byte
		for i := range 10 {
			content := strings.Repeat(fmt.Sprint(i), 700)
			c.mustAppend(name, content)
			want = append(want, content...)
		}
		c.mustAppend(name, "the end")
		stored := c.awaitStored(name, 6300) // the first append, and then two by two
		if p := stored[0].GetSpec().GetPathPostfix(); p != "year="+time.Now().UTC().Format("2006") {
			t.Errorf("postfix %q", p)
		}
		want = append(want, "the end"...)
		for _, from := range []int64{0, 1, 699, 700, 3333, int64(len(want)) - 3} {
			got, metas := c.read(&protocol.ReadRequest{Journal: name, Offset: from}, 0)
			if !bytes.Equal(got, want[from:]) {
				t.Errorf("%s from %d: other content", name, from)
			}
			for _, m := range metas {
				if m.GetFragmentUrl() != "" {
					t.Errorf("%s: a URL is signed that nobody asked for", name)
				}
			}
			if got, _ := c.read(&protocol.ReadRequest{Journal: name, Offset: from, EndOffset: from + 2}, 0); !bytes.Equal(got, want[from:from+2]) {
				t.Errorf("%s from %d, two bytes: %q", name, from, got)
			}
		}
		got, metas := c.read(&protocol.ReadRequest{Journal: name, Offset: 5, DoNotProxy: true}, 0)
		if len(got) != 0 || len(metas) != 1 || !strings.HasPrefix(metas[0].GetFragmentUrl(), "mem://") || metas[0].GetOffset() != 5 {
			t.Errorf("%s without a proxy: %d bytes, %v", name, len(got), metas)
		}
		signed := c.fragments(&protocol.FragmentsRequest{Journal: name, SignatureTTL: durationpb.New(time.Hour)})
		if u := signed[0].GetSignedUrl(); !strings.Contains(u, "ttl=1h") {
			t.Errorf("signed URL %q", u)
		}
	}
	c.stop()
	keys := len(b.Keys())
	c = open()
	defer c.stop()
	for _, codec := range codecs {
		name := "test/" + strings.ToLower(codec.String())
		if got, _ := c.read(&protocol.ReadRequest{Journal: name}, 0); len(got) != 7007 {
			t.Errorf("%s after a restart: %d bytes", name, len(got))
		}
	}
	if n := len(b.Keys()); n != keys {
		t.Errorf("%d objects after a restart, %d before", n, keys)
	}
}

// TestStoreDown appends while the store is down, and checks that all is stored when it returns, once and oldest first.
func TestStoreDown(t *testing.T) {
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_GZIP, memoryStore))
	c.mustAppend("test/a", "first")
	c.awaitStored("test/a", 5)

	var mu sync.Mutex
	down := true
	var order []string
	b.SetFault(func(op bucket.Op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return fault.New(fault.Transient, "the store is down")
		}
		if op == bucket.OpCommit && strings.Contains(key, "test/a/") {
			order = append(order, key)
		}
		return nil
	})
	want := "first"
	for i := range 20 {
		content := strings.Repeat(fmt.Sprint(i%10), 1025)
		c.mustAppend("test/a", content)
		want += content
	}
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a", Offset: 5}, 0); string(got) != want[5:] {
		t.Error("other content while the store is down")
	}
	c.stop()
	c = open() // what waits survives
	defer c.stop()
	c.mustAppend("test/a", "appends go on")
	want += "appends go on"
	mu.Lock()
	down = false
	mu.Unlock()
	c.awaitStored("test/a", int64(len(want)-len("appends go on")))
	mu.Lock()
	if !isSorted(order) {
		t.Errorf("stored in another order: %v", order)
	}
	mu.Unlock()
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0); string(got) != want {
		t.Error("other content after the store came back")
	}
}

func isSorted(s []string) bool {
	for i := 1; i < len(s); i++ {
		if s[i-1] >= s[i] {
			return false
		}
	}
	return true
}

// TestPathStays checks that a fragment has one path, which is that of the time at which it was finished: neither another
// attempt to store it nor a restart makes another one of a spec and of registers that have changed meanwhile.
func TestPathStays(t *testing.T) {
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	attempts := make(chan struct{}, 100)
	b.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpStat && strings.Contains(key, "test/a/") {
			attempts <- struct{}{}
			return fault.New(fault.Transient, "nobody knows whether the object is there")
		}
		return nil
	})
	s := storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore)
	s.Fragment.PathPostfixTemplate = `at={{.Spool.Registers.ValueOf "place"}}`
	s.Fragment.RefreshInterval = durationpb.New(time.Hour)
	c.createStored(s)
	for i, place := range []string{"here", "there"} {
		opening := &protocol.AppendRequest{Journal: "test/a", UnionRegisters: protocol.MustLabelSet("place", place)}
		if resp, err := c.append(opening, "content"); err != nil || resp.GetStatus() != protocol.Status_OK {
			t.Fatal(resp, err)
		}
		<-attempts
		if i == 0 {
			// The template does not count either.
			s.Fragment.PathPostfixTemplate = "new"
			c.apply(&protocol.ApplyRequest_Change{Upsert: s, ExpectModRevision: -1})
		}
	}
	c.stop()
	b.SetFault(func(op bucket.Op, _ string) error {
		if op == bucket.OpList {
			return fault.New(fault.Transient, "what is there is not told")
		}
		return nil
	})
	c = open()
	b.SetFault(nil)
	defer c.stop()
	c.awaitStored("test/a", 7)
	var objects []string
	for _, key := range b.Keys() {
		if strings.Contains(key, "test/a/") {
			objects = append(objects, key)
		}
	}
	if len(objects) != 1 || !strings.HasPrefix(objects[0], "prefix/test/a/at=here/") {
		t.Errorf("objects %v", objects)
	}
}

// TestCrashAfterPut kills the broker between a put and its record: the object is found, and not stored again under
// another path.
func TestCrashAfterPut(t *testing.T) {
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	put := make(chan struct{})
	var once sync.Once
	b.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpStat && strings.Contains(key, "test/a/") {
			once.Do(func() { close(put) })
			return fault.New(fault.Transient, "the broker dies before it knows that the object is there")
		}
		return nil
	})
	s := storedSpec("test/a", protocol.CompressionCodec_ZSTANDARD, memoryStore)
	s.Fragment.PathPostfixTemplate = `{{.Spool.Registers.ValueOf "place"}}`
	c.createStored(s)
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/a", UnionRegisters: protocol.MustLabelSet("place", "here")}, "content"); err != nil {
		t.Fatal(err)
	}
	<-put
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/a", UnionRegisters: protocol.MustLabelSet("place", "there")}, "more"); err != nil {
		t.Fatal(err)
	}
	c.stop()
	b.SetFault(nil)
	c = open()
	defer c.stop()
	stored := c.awaitStored("test/a", 7)
	if p := stored[0].GetSpec().GetPathPostfix(); p != "here" {
		t.Errorf("the fragment was stored again, in %q", p)
	}
}

// TestForeignContent creates a journal of which a store has content already.
func TestForeignContent(t *testing.T) {
	b := bucket.NewMem("b")
	f := &protocol.Fragment{Journal: "test/a", Begin: 100, End: 107, Sum: protocol.SHA1SumOf([]byte("foreign")), CompressionCodec: protocol.CompressionCodec_NONE}
	b.SetBytes("prefix/"+f.ContentPath(), []byte("foreign"))
	b.SetBytes("prefix/test/a/junk", []byte("x"))
	c := withStores(t, memory(b))()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))

	got, metas := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0)
	if string(got) != "foreign" || metas[0].GetOffset() != 100 || metas[0].GetWriteHead() != 107 {
		t.Errorf("read %q, %v", got, metas)
	}
	if _, metas := c.read(&protocol.ReadRequest{Journal: "test/a", Offset: -1}, 0); metas[0].GetOffset() != 107 {
		t.Errorf("the head is %d", metas[0].GetOffset())
	}
	for offset, want := range map[int64]protocol.Status{
		0: protocol.Status_INDEX_HAS_GREATER_OFFSET, 50: protocol.Status_WRONG_APPEND_OFFSET,
	} {
		if resp, err := c.append(&protocol.AppendRequest{Journal: "test/a", Offset: offset}, "x"); err != nil || resp.GetStatus() != want {
			t.Errorf("append at %d: %v, %v; want %v", offset, resp, err, want)
		}
	}
	// The tool's way to reset the head: nothing, at the head.
	if resp, err := c.append(&protocol.AppendRequest{Journal: "test/a", Offset: 107, Suspend: protocol.AppendRequest_SUSPEND_NO_RESUME}); err != nil || resp.GetStatus() != protocol.Status_OK {
		t.Fatalf("reset the head: %v, %v", resp, err)
	}
	if resp := c.mustAppend("test/a", "ours"); resp.GetCommit().GetBegin() != 107 {
		t.Errorf("appended at %d", resp.GetCommit().GetBegin())
	}
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0); string(got) != "foreignours" {
		t.Errorf("read %q", got)
	}
}

// TestUnlistedStore checks that a journal that nobody knows anything about takes no appends, and that others do.
func TestUnlistedStore(t *testing.T) {
	b := bucket.NewMem("b")
	b.SetFault(func(bucket.Op, string) error { return fault.New(fault.Transient, "the store is down") })
	c := withStores(t, memory(b))()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	resp, err := c.append(&protocol.AppendRequest{Journal: "test/a"}, "x")
	if err != nil || resp.GetStatus() != protocol.Status_FRAGMENT_STORE_UNHEALTHY || resp.GetStoreHealthError() == "" {
		t.Fatalf("append: %v, %v", resp, err)
	}
	b.SetFault(nil)
	// The first listing is tried again soon.
	for begin := time.Now(); resp.GetStatus() != protocol.Status_OK; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > testkit.Patience {
			t.Fatalf("append with the store back: %v", resp)
		}
		if resp, err = c.append(&protocol.AppendRequest{Journal: "test/a"}, "x"); err != nil {
			t.Fatal(err)
		}
	}
	health, err := c.client.FragmentStoreHealth(t.Context(), &protocol.FragmentStoreHealthRequest{FragmentStore: "s3://other/"})
	if status.Code(err) == codes.OK {
		t.Errorf("the health of a store that no journal names: %v", health)
	}
}

func TestStoreHealth(t *testing.T) {
	root := t.TempDir()
	c := withStores(t, store.Options{Root: root})()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, "file:///here/"))
	c.createStored(storedSpec("test/b", protocol.CompressionCodec_NONE, "file:///x/?unknown=1"))
	for name, want := range map[string]protocol.Status{
		"file:///here/": protocol.Status_OK, "file:///x/?unknown=1": protocol.Status_FRAGMENT_STORE_UNHEALTHY,
	} {
		resp, err := c.client.FragmentStoreHealth(t.Context(), &protocol.FragmentStoreHealthRequest{FragmentStore: name, CheckDelete: true, CheckDeletePrefix: "some/"})
		if err != nil || resp.GetStatus() != want || (resp.GetStoreHealthError() == "") != (want == protocol.Status_OK) {
			t.Errorf("%s: %v, %v; want %v", name, resp, err, want)
		}
		if err == nil {
			valid(t, resp)
		}
	}
	// Fragments in a directory are read through the broker, also by those who would fetch them.
	c.mustAppend("test/a", "content")
	c.awaitStored("test/a", 7)
	if got, metas := c.read(&protocol.ReadRequest{Journal: "test/a", DoNotProxy: true}, 0); string(got) != "content" || metas[0].GetFragment().GetBackingStore() == "" {
		t.Errorf("read %q, %v", got, metas)
	}
	if _, err := os.Stat(filepath.Join(root, "here", "test", "a")); err != nil {
		t.Error(err)
	}
}

// TestDamagedObject reads fragments that a store has changed: no byte of a wrong end is returned.
func TestDamagedObject(t *testing.T) {
	b := bucket.NewMem("b")
	c := withStores(t, memory(b))()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	c.mustAppend("test/a", "content")
	c.mustAppend("test/a", "next")
	f := c.awaitStored("test/a", 7)[0].GetSpec()
	read := func() ([]byte, error) {
		stream, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/a"})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for {
			resp, err := stream.Recv()
			if err != nil {
				return got, err
			}
			got = append(got, resp.GetContent()...)
		}
	}
	for _, content := range []string{"Content", "conten", "contents", ""} {
		b.SetBytes("prefix/"+f.ContentPath(), []byte(content))
		if got, err := read(); status.Code(err) != codes.DataLoss || !strings.HasPrefix("content", string(got)) {
			t.Errorf("%q: %q, %v; want DataLoss, and before it nothing that is wrong", content, got, err)
		}
	}
	// An object that somebody has removed is jumped over.
	if err := b.Delete(t.Context(), "prefix/"+f.ContentPath()); err != nil {
		t.Fatal(err)
	}
	if got, err := read(); !errors.Is(err, io.EOF) && status.Code(err) != codes.OK || string(got) != "next" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestTrimStored drops content that is stored, and checks that its objects go.
func TestTrimStored(t *testing.T) {
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	for range 4 {
		c.mustAppend("test/a", strings.Repeat("x", 1500))
	}
	c.awaitStored("test/a", 6000)
	if err := c.broker.Trim(t.Context(), "test/a", 3200); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, metas := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0)
		if len(got) != 3000 || metas[0].GetOffset() != 3000 {
			t.Errorf("%d bytes from %d", len(got), metas[0].GetOffset())
		}
		if n := len(b.Keys()); n != 3 { // two, and what checks the store's health
			t.Errorf("objects %v", b.Keys())
		}
		c.stop()
		c = open()
	}
	c.stop()
}

func TestNestedNames(t *testing.T) {
	c := one(t)
	for what, changes := range map[string][]*protocol.ApplyRequest_Change{
		"below": {{Upsert: spec("test/journal/below")}},
		"above": {{Upsert: spec("test")}},
		"both":  {{Upsert: spec("a/bcd")}, {Upsert: spec("a/bcd/e")}},
	} {
		if _, err := c.client.Apply(t.Context(), &protocol.ApplyRequest{Changes: changes}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	c.create("test/journal-2")
	c.apply(&protocol.ApplyRequest_Change{Delete: "test/journal", ExpectModRevision: -1}, &protocol.ApplyRequest_Change{Upsert: spec("test/journal/below")})
}

// TestS3 runs the broker on a real server, which dies and comes back while fragments are stored.
func TestS3(t *testing.T) {
	server := storetest.StartS3(t)
	c := withStores(t, store.Options{})()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_SNAPPY, string(server.Store("fragments/"))))
	var want []byte
	add := func(n int) {
		for i := range n {
			content := strings.Repeat(fmt.Sprint(i%10), 1100)
			c.mustAppend("test/a", content)
			want = append(want, content...)
		}
	}
	add(5)
	c.awaitStored("test/a", 1100)
	server.Kill()
	add(20)
	server.Start()
	add(5)
	c.awaitStored("test/a", int64(len(want)))
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0); !bytes.Equal(got, want) {
		t.Error("other content")
	}
	_, metas := c.read(&protocol.ReadRequest{Journal: "test/a", Offset: 1200, DoNotProxy: true}, 0)
	if u := metas[0].GetFragmentUrl(); !strings.Contains(u, "X-Amz-Signature") {
		t.Errorf("URL %q is not signed", u)
	}
}
