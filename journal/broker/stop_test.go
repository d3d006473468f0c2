package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// Ten thousand journals with stores are there again soon after a clean stop, and cost nothing while they rest.
func TestTenThousandJournals(t *testing.T) {
	const n, most = 10_000, 2 * time.Second
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
	begin := time.Now()
	c = open()
	defer c.stop()
	c.mustAppend(fmt.Sprintf("many/journal-%05d", n-500), "more")
	if took := time.Since(begin); took > most {
		t.Errorf("the first append was done %s after the start; at most %s are good", took, most)
	} else {
		t.Logf("the first append was done %s after the start", took)
	}
	// When all stores have been listed, nobody is at work.
	for last := begin; runtime.NumGoroutine() > 100; last = time.Now() {
		if last.Sub(begin) > 30*time.Second {
			t.Fatalf("%d goroutines for journals that rest", runtime.NumGoroutine())
		}
		runtime.Gosched()
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
			if err != nil {
				t.Error(err)
				return
			}
			<-closing
			if i%4 == 3 {
				return // and never says another word
			}
			_ = stream.Send(new(protocol.AppendRequest))
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
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
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
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the end took %s", took)
	} else {
		t.Logf("the end took %s; %d of %d appends were finished", took, finished, appends*3/4)
	}
	if state, err := c.log.Load(t.Context(), "test/journal"); err != nil || int(state.Head) != 5+finished*300<<10 {
		t.Errorf("%d appends were finished, and the journal ends at %d: %v", finished, state.Head, err)
	}
}
