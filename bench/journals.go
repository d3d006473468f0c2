package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// journals is a server with journals, and a connection to it.
type journals struct {
	r      *run
	server *testkit.Server
	data   string  // the server's data directory
	cpu    float64 // seconds that the server took for the last measurement that counts them
	protocol.RoutedJournalClient
}

// serveJournals starts a server with n journals.
func serveJournals(r *run, n int) *journals {
	house := r.house()
	j := &journals{r: r, server: house.Serve(), data: house.Data}
	c, err := client.Dial(protocol.Endpoint(j.server.URL), client.DialConfig{})
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() { _ = c.Close() })
	j.RoutedJournalClient = c
	for i := range n {
		j.create(specOf(i))
	}
	return j
}

func (j *journals) create(specs ...*protocol.JournalSpec) {
	var changes []*protocol.ApplyRequest_Change
	for _, s := range specs {
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: s})
	}
	if _, err := client.ApplyJournals(j.r.ctx, j, &protocol.ApplyRequest{Changes: changes}); err != nil {
		j.r.Fatalf("%v", err)
	}
}

func specOf(i int) *protocol.JournalSpec {
	return &protocol.JournalSpec{
		Name: journalName(i), Replication: 1,
		Fragment: &protocol.JournalSpec_Fragment{
			Length: 1 << 30, CompressionCodec: protocol.CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Hour),
		},
	}
}

func journalName(i int) string { return fmt.Sprintf("bench/journal-%04d", i) }

func (j *journals) append(i int, content []byte) {
	if _, err := client.Append(j.r.ctx, j.RoutedJournalClient, &protocol.AppendRequest{Journal: journalName(i)}, bytes.NewReader(content)); err != nil {
		j.r.Fatalf("append: %v", err)
	}
}

// measureLargeAppend measures one durable append of 64 MiB.
func measureLargeAppend(r *run) {
	const size = 64 << 20
	j := serveJournals(r, 1)
	content := make([]byte, size)
	j.append(0, content[:1<<10]) // which opens the connection
	start := time.Now()
	j.append(0, content)
	r.report("one append of 64 MiB", bytesPerSecond, size/time.Since(start).Seconds())
}

// measureBacklog measures how fast a reader gets what is already there.
func measureBacklog(r *run) {
	const size, part = 1 << 30, 64 << 20
	j := serveJournals(r, 1)
	content := make([]byte, part)
	for range size / part {
		j.append(0, content)
	}
	for _, most := range []int32{0, 128 << 10} {
		took := j.readAll(most, size)
		name := "read 1 GiB"
		if most != 0 {
			name += " in large messages"
		}
		r.report(name, bytesPerSecond, size/took)
	}
}

// readAll reads the first journal from its beginning, in messages of at most so much content, and returns how many seconds it took.
func (j *journals) readAll(most int32, size int64) float64 {
	start := time.Now()
	stream, err := j.Read(j.r.ctx, &protocol.ReadRequest{Journal: journalName(0), MaxContent: most})
	if err != nil {
		j.r.Fatalf("%v", err)
	}
	n := int64(0)
	for err == nil {
		var resp *protocol.ReadResponse
		if resp, err = stream.Recv(); err == nil {
			n += int64(len(resp.GetContent()))
		}
	}
	if !errors.Is(err, io.EOF) || n != size {
		j.r.Fatalf("read %d bytes: %v", n, err)
	}
	return time.Since(start).Seconds()
}

// measureWake measures the time from the start of an append until a reader that waits for it has it.
func measureWake(r *run) {
	const appends = 2000
	j := serveJournals(r, 1)
	stream, err := j.Read(r.ctx, &protocol.ReadRequest{Journal: journalName(0), Block: true})
	if err != nil {
		r.Fatalf("%v", err)
	}
	content := make([]byte, 1<<10)
	var took []time.Duration
	for range appends {
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := client.Append(r.ctx, j.RoutedJournalClient, &protocol.AppendRequest{Journal: journalName(0)}, bytes.NewReader(content))
			if err != nil {
				r.Logf("append: %v", err)
			}
		}()
		for n := 0; n < len(content); {
			resp, err := stream.Recv()
			if err != nil {
				r.Fatalf("read: %v", err)
			}
			n += len(resp.GetContent())
		}
		took = append(took, time.Since(begin))
		<-done
	}
	slices.Sort(took)
	r.report("append to blocked reader, p50", seconds, quantile(took, 0.50))
	r.report("append to blocked reader, p99", seconds, quantile(took, 0.99))
}

// measureService measures an AppendService that is given records as fast as it takes them, until all are durable.
func measureService(r *run, size, spread int) {
	const total = 256 << 20
	j := serveJournals(r, spread)
	s := client.NewAppendService(r.ctx, j.RoutedJournalClient)
	record := bytes.Repeat([]byte("x"), size)
	start := time.Now()
	for i := range total / size {
		op := s.StartAppend(&protocol.AppendRequest{Journal: journalName(i % spread)}, nil)
		if _, err := op.Writer().Write(record); err != nil {
			r.Fatalf("%v", err)
		}
		if err := op.Release(); err != nil {
			r.Fatalf("%v", err)
		}
	}
	if err := s.Close(r.ctx); err != nil {
		r.Fatalf("%v", err)
	}
	r.report(fmt.Sprintf("records of %d bytes", size), bytesPerSecond, total/time.Since(start).Seconds())
}

// measureWaiting measures what a thousand journals, and a thousand readers that wait, cost the server.
func measureWaiting(r *run) {
	const n = 1000
	j := serveJournals(r, 0)
	before := residentMemory(r, j.server.Pid())
	var specs []*protocol.JournalSpec
	for i := range n {
		specs = append(specs, specOf(i))
	}
	j.create(specs...)
	for i := range n {
		j.append(i, []byte("content"))
	}
	idle := residentMemory(r, j.server.Pid())
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var waiting sync.WaitGroup
	for i := range n {
		stream, err := j.Read(ctx, &protocol.ReadRequest{Journal: journalName(i), Block: true})
		if err != nil {
			r.Fatalf("%v", err)
		}
		waiting.Go(func() {
			for range 2 { // metadata and content; then it waits
				if _, err := stream.Recv(); err != nil {
					r.Logf("read: %v", err)
				}
			}
		})
	}
	waiting.Wait()
	blocked := residentMemory(r, j.server.Pid())
	r.report("memory for an idle journal", kibibytes, float64(idle-before)/n)
	r.report("memory for a blocked reader", kibibytes, float64(blocked-idle)/n)
}
