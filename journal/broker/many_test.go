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

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// heapAndStacks returns the bytes that the process uses, after garbage was collected.
func heapAndStacks() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// waitingReader is a reader's end of an in-process call: what a gRPC connection takes is not the broker's.
type waitingReader struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*protocol.ReadResponse) error
}

func (r *waitingReader) Context() context.Context               { return r.ctx }
func (r *waitingReader) Send(resp *protocol.ReadResponse) error { return r.send(resp) }

// A thousand journals and a thousand readers that wait for them cost little, wake at once and only when there is something, and
// end with the broker.
func TestThousandJournalsAndReaders(t *testing.T) {
	const n = 1000
	const most = 50 << 10
	c := startWith(t, t.TempDir(), disklog.Options{}, broker.Config{})
	defer c.stop()
	before := heapAndStacks()
	var changes []*protocol.ApplyRequest_Change
	for i := range n {
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: spec(fmt.Sprintf("many/journal-%04d", i))})
	}
	c.apply(changes...)
	var appends sync.WaitGroup
	for w := range 16 {
		appends.Go(func() {
			for i := w; i < n; i += 16 {
				if resp, err := c.append(&protocol.AppendRequest{Journal: fmt.Sprintf("many/journal-%04d", i)}, "content"); err != nil || resp.GetStatus() != protocol.Status_OK {
					t.Errorf("append: %v, %v", resp, err)
				}
			}
		})
	}
	appends.Wait()
	idle := heapAndStacks()
	perJournal := (idle - before) / n

	type event struct {
		reader int
		resp   *protocol.ReadResponse
	}
	// A reader sends metadata and content for each append; two of the readers' messages are due in this test.
	events := make(chan event, 4*n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := c.broker.Read(&protocol.ReadRequest{Journal: fmt.Sprintf("many/journal-%04d", i), Offset: 7, Block: true}, &waitingReader{
				ctx: t.Context(),
				send: func(resp *protocol.ReadResponse) error {
					if len(resp.GetContent()) != 0 {
						events <- event{i, &protocol.ReadResponse{Offset: resp.GetOffset(), Content: []byte(string(resp.GetContent()))}}
					}
					return nil
				},
			})
			if err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	// A reader waits when it has subscribed; an append then wakes it, and nobody else.
	for i := 0; i < n; i += 97 {
		c.mustAppend(fmt.Sprintf("many/journal-%04d", i), "more")
		select {
		case e := <-events:
			if e.reader != i || string(e.resp.GetContent()) != "more" || e.resp.GetOffset() != 7 {
				t.Fatalf("reader %d got %v", e.reader, e.resp)
			}
		case <-time.After(testkit.Patience):
			t.Fatalf("reader %d was not woken", i)
		}
	}
	perReader := (heapAndStacks() - idle) / n
	t.Logf("%d bytes per idle journal, %d per blocked reader", perJournal, perReader)
	if perJournal > most || perReader > most {
		t.Errorf("%d bytes per idle journal and %d per blocked reader; at most %d are good", perJournal, perReader, most)
	}
	if len(events) != 0 {
		t.Errorf("%d readers were woken for nothing", len(events))
	}
	if err := c.broker.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A thousand readers by gRPC, on one connection and journal, all get what comes and end cleanly.
func TestThousandReadersOfOneJournal(t *testing.T) {
	c := one(t)
	const n = 1000
	var wg, ready sync.WaitGroup
	ready.Add(n)
	for i := range n {
		wg.Go(func() {
			stream, err := c.client.Read(t.Context(), &protocol.ReadRequest{Journal: "test/journal", Block: true})
			if err != nil {
				ready.Done()
				t.Error(err)
				return
			}
			var got string
			first := true
			for {
				resp, err := stream.Recv()
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Errorf("reader %d ends with %v", i, err)
					}
					break
				}
				got += string(resp.GetContent())
				if first && got != "" {
					first = false
					ready.Done()
				}
			}
			if got != "one" {
				t.Errorf("reader %d got %q", i, got)
			}
		})
	}
	c.mustAppend("test/journal", "one")
	ready.Wait()
	if err := c.broker.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
