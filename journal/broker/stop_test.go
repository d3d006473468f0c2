package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// Ten thousand journals with stores are there again soon after a clean stop: appends wait for the listing of their own journal's stores
// and for no other. When they rest, they cost nothing.
func TestTenThousandJournals(t *testing.T) {
	const n = 10_000
	b := bucket.NewMem("b")
	dir := t.TempDir()
	open := func() *cluster {
		stores := store.NewRegistry(memory(b))
		c := startWith(t, dir, disklog.Options{}, broker.Config{Stores: stores})
		c.closers = append(c.closers, stores.Close)
		return c
	}
	c := open()
	var changes []*protocol.ApplyRequest_Change
	for i := range n {
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: storedSpec(fmt.Sprintf("many/journal-%05d", i), protocol.CompressionCodec_NONE, memoryStore)})
		changes[i].Upsert.Fragment.RefreshInterval = spec("").Fragment.RefreshInterval
	}
	if _, err := c.log.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < n; i += 500 {
		c.mustAppend(fmt.Sprintf("many/journal-%05d", i), "content")
	}
	c.stop()
	appended := make(chan struct{})
	last := fmt.Sprintf("many/journal-%05d", n-1) // which was never written, so that only the listing tells where it ends
	b.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpList && !strings.Contains(key, last) {
			<-appended
		}
		return nil
	})
	begin := time.Now()
	c = open()
	defer c.stop()
	goOn := sync.OnceFunc(func() { close(appended) })
	defer goOn()
	c.mustAppend(last, "more")
	t.Logf("the first append was done %s after the start", time.Since(begin))
	goOn()
	// When all stores have been listed, nobody is at work.
	for begin := time.Now(); runtime.NumGoroutine() > 100; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > testkit.Patience {
			t.Fatalf("%d goroutines for journals that rest", runtime.NumGoroutine())
		}
	}
}

// The end comes in time, whoever is there: a hundred clients in the middle of an append, and a thousand readers that wait. What
// was begun can be finished, what is new is refused, and readers and those who watch see a clean end.
func TestStopWithManyClients(t *testing.T) {
	const appends, reads = 100, 1000
	c := one(t)
	c.mustAppend("test/journal", "first")
	var readers, waiting sync.WaitGroup
	waiting.Add(reads)
	for i := range reads {
		readers.Go(func() {
			stream, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/journal", Block: true})
			got := ""
			for err == nil {
				var resp *protocol.ReadResponse
				if resp, err = stream.Recv(); err == nil && got == "" && len(resp.GetContent()) > 0 {
					waiting.Done()
				}
				got += string(resp.GetContent())
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("reader %d ends with %v", i, err)
			}
		})
	}
	waiting.Wait()
	var clients, streaming sync.WaitGroup
	streaming.Add(appends)
	closing := make(chan struct{})
	var mu sync.Mutex
	finished := 0
	for i := range appends {
		clients.Go(func() {
			stream, err := c.client.Append(t.Context())
			if err == nil {
				err = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
			}
			for range 3 { // more than fits any window, so that the broker has surely begun to take it
				if err == nil {
					err = stream.Send(&protocol.AppendRequest{Content: make([]byte, 100<<10)})
				}
			}
			streaming.Done()
			if err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
				return
			}
			<-closing
			if i%4 == 3 {
				return // and never says another word
			}
			if err == nil { // else the broker has ended it, and says why
				_ = stream.Send(new(protocol.AppendRequest))
			}
			resp, err := stream.CloseAndRecv()
			if status.Code(err) == codes.DeadlineExceeded {
				return // a slow machine made it one of those who say nothing
			}
			if err != nil || resp.GetStatus() != protocol.Status_OK {
				t.Errorf("append %d, which was under way: %v, %v", i, resp, err)
				return
			}
			mu.Lock()
			finished++
			mu.Unlock()
		})
	}
	streaming.Wait()

	begin := time.Now()
	ended := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		ended <- c.broker.Close(ctx)
	}()
	readers.Wait()
	if _, err := c.append(&protocol.AppendRequest{Journal: "test/journal"}, "late"); status.Code(err) != codes.Unavailable {
		t.Errorf("a late append: %v", err)
	}
	close(closing)
	clients.Wait()
	// Those who say no more are cut off by and by, for want of a least rate.
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("the end took %s; %d of %d appends were finished", time.Since(begin), finished, appends*3/4)
	if state, err := c.log.Load(t.Context(), "test/journal"); err != nil || int(state.Head) != 5+finished*300<<10 {
		t.Errorf("%d appends were finished, and the journal ends at %d: %v", finished, state.Head, err)
	}
}
