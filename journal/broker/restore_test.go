package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// A data directory is brought back from an old copy, while the store has what was written since. No offset is given to other
// content: appends are refused until somebody says from where on, and what the store has can be read.
func TestRestoredCopy(t *testing.T) {
	b := bucket.NewMem("b")
	dir := t.TempDir()
	open := func() *cluster {
		stores := store.NewRegistry(memory(b))
		c := startWith(t, filepath.Join(dir, "data"), disklog.Options{}, broker.Config{Stores: stores})
		c.closers = append(c.closers, stores.Close)
		return c
	}
	c := open()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	lock := func(name string) *protocol.AppendRequest {
		return &protocol.AppendRequest{Journal: "test/a", UnionRegisters: protocol.MustLabelSet("lock", name)}
	}
	var want string
	add := func(who string) {
		t.Helper()
		content := strings.Repeat(who, 1030)
		if resp, err := c.append(lock(who), content); err != nil || resp.GetStatus() != protocol.Status_OK {
			t.Fatal(resp, err)
		}
		want += content
	}
	add("a")
	add("b")
	c.stop()
	if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(filepath.Join(dir, "data"))); err != nil {
		t.Fatal(err)
	}
	c = open()
	add("c")
	add("d")
	add("e")
	c.awaitStored("test/a", 5*1030)
	c.stop()

	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "copy"), filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	c = open()
	defer c.stop()
	expect := func(want protocol.Status, req *protocol.AppendRequest, chunks ...string) *protocol.AppendResponse {
		t.Helper()
		req.Journal = "test/a"
		resp, err := c.append(req, chunks...)
		if err != nil || resp.GetStatus() != want {
			t.Fatalf("%v, %v; want %v", resp, err, want)
		}
		return resp
	}
	// The first append after the start knows already.
	expect(protocol.Status_INDEX_HAS_GREATER_OFFSET, new(protocol.AppendRequest), "other content")
	expect(protocol.Status_WRONG_APPEND_OFFSET, &protocol.AppendRequest{Offset: 2 * 1030}, "other content")
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0); string(got) != want {
		t.Errorf("%d bytes can be read, and differ", len(got))
	}
	// Content that never reached the store had the offsets behind it: the head goes far beyond, and readers jump there at once.
	const beyond = 1 << 30
	expect(protocol.Status_OK, &protocol.AppendRequest{Offset: beyond, Suspend: protocol.AppendRequest_SUSPEND_NO_RESUME})
	if resp := expect(protocol.Status_OK, new(protocol.AppendRequest), "new"); resp.GetCommit().GetBegin() != beyond {
		t.Errorf("%v", resp)
	}
	got, metas := c.read(&protocol.ReadRequest{Journal: "test/a", Offset: 5 * 1030}, 0)
	if string(got) != "new" || metas[0].GetOffset() != beyond {
		t.Errorf("read %q from %v", got, metas)
	}
}

// A journal is not deleted before its store has what was acknowledged. Who wants that nevertheless says so.
func TestDeleteStoresFirst(t *testing.T) {
	b := bucket.NewMem("b")
	c := withStores(t, memory(b))()
	defer c.stop()
	s := storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore)
	c.createStored(s)
	for _, content := range []string{"one", "two", "three"} {
		c.mustAppend("test/a", content)
	}
	remove := &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Delete: "test/a", ExpectModRevision: -1}}}
	stored := func() (n int) {
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "prefix/test/a/") {
				n++
			}
		}
		return n
	}
	c.awaitStored("test/a", 3)
	b.SetFault(func(bucket.Op, string) error { return fault.New(fault.Transient, "the store is down") })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if resp, err := c.client.Apply(ctx, remove); err == nil {
		t.Errorf("deleted while the store is down: %v", resp)
	}
	cancel()
	if resp := c.mustAppend("test/a", "four"); resp.GetCommit().GetBegin() != 11 {
		t.Errorf("the journal goes on with %v", resp)
	}
	b.SetFault(nil)
	c.apply(remove.GetChanges()...)
	if n := stored(); n != 3 {
		t.Errorf("%d objects: %v", n, b.Keys())
	}

	s.Name = "test/b"
	c.createStored(s)
	b.SetFault(func(op bucket.Op, _ string) error {
		if op == bucket.OpList {
			return nil
		}
		return fault.New(fault.Transient, "the store takes nothing")
	})
	c.mustAppend("test/b", "nobody needs this")
	s.Fragment.Stores = nil
	c.apply(&protocol.ApplyRequest_Change{Upsert: s, ExpectModRevision: -1})
	c.apply(&protocol.ApplyRequest_Change{Delete: "test/b", ExpectModRevision: -1})
}

// A journal that was deleted and created again has nothing of the one before: without a store it begins anew, and with one it
// waits for a word on what that has.
func TestRecreated(t *testing.T) {
	b := bucket.NewMem("b")
	open := withStores(t, memory(b))
	c := open()
	specs := []*protocol.JournalSpec{storedSpec("test/local", protocol.CompressionCodec_NONE), storedSpec("test/stored", protocol.CompressionCodec_NONE, memoryStore)}
	for _, s := range specs {
		c.createStored(s)
		for range 3 {
			req := &protocol.AppendRequest{Journal: s.GetName(), UnionRegisters: protocol.MustLabelSet("lock", "old")}
			if resp, err := c.append(req, strings.Repeat("old", 500)); err != nil || resp.GetStatus() != protocol.Status_OK {
				t.Fatal(resp, err)
			}
		}
	}
	c.awaitStored("test/stored", 3000)
	streaming, err := c.client.Append(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = streaming.Send(&protocol.AppendRequest{Journal: "test/local"})
	for range 3 { // more than fits any window, so that the broker has surely begun to take it
		_ = streaming.Send(&protocol.AppendRequest{Content: make([]byte, 1<<20)})
	}
	c.apply(
		&protocol.ApplyRequest_Change{Delete: "test/local", ExpectModRevision: -1}, &protocol.ApplyRequest_Change{Delete: "test/stored", ExpectModRevision: -1},
	)
	for _, s := range specs {
		c.createStored(s)
	}
	_ = streaming.Send(new(protocol.AppendRequest))
	if resp, err := streaming.CloseAndRecv(); err != nil || resp.GetStatus() != protocol.Status_JOURNAL_NOT_FOUND {
		t.Errorf("an append that was begun before: %v, %v", resp, err)
	}
	for range 2 {
		resp, err := c.append(&protocol.AppendRequest{Journal: "test/local"})
		if err != nil || resp.GetStatus() != protocol.Status_OK || resp.GetCommit().GetEnd() != 0 || len(resp.GetRegisters().GetLabels()) != 0 {
			t.Errorf("without a store: %v, %v", resp, err)
		}
		if got, metas := c.read(&protocol.ReadRequest{Journal: "test/local"}, 0); len(got) != 0 || metas[0].GetWriteHead() != 0 {
			t.Errorf("without a store: %q, %v", got, metas)
		}
		resp, err = c.append(&protocol.AppendRequest{Journal: "test/stored"}, "new")
		if err != nil || resp.GetStatus() != protocol.Status_INDEX_HAS_GREATER_OFFSET || len(resp.GetRegisters().GetLabels()) != 0 {
			t.Errorf("with a store: %v, %v", resp, err)
		}
		c.stop()
		c = open()
	}
	defer c.stop()
	if resp := c.mustAppend("test/local", "new"); resp.GetCommit().GetBegin() != 0 {
		t.Errorf("%v", resp)
	}
	if err := c.broker.Trim(t.Context(), "test/none", 5); !fault.Is(err, fault.NotFound) {
		t.Error("a journal that does not exist is trimmed", err)
	}
}
