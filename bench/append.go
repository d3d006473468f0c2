package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const appendTime = 3 * time.Second

// measureAppend compares durable appends through the broker, over gRPC, by clients that wait for each, with what the disk
// does: writes of a block into space that was written before, each followed by fdatasync.
func measureAppend(r *run, clients, size int) {
	raw := rawSyncs(r)
	j := serveJournals(r, 1)
	times, took := appendFor(r, j, clients, size)
	slices.Sort(raw)
	r.compare(fmt.Sprintf("durable appends of %d KiB", size>>10), perSecond, float64(len(times))/took, float64(len(raw))/rawTime.Seconds())
	r.compare("p50", seconds, quantile(times, 0.50), quantile(raw, 0.50))
	r.compare("p99", seconds, quantile(times, 0.99), quantile(raw, 0.99))
	r.report("CPU of the server, each", seconds, j.cpu/float64(len(times)))
}

// measureAppendCalls compares durable appends that are each a call of its own, as all clients but ours make them, with the same
// calls of a server that does nothing.
func measureAppendCalls(r *run, clients, size int) {
	idle, _ := appendFor(r, &journals{r: r, RoutedJournalClient: plainClient(r, serveFloor(r))}, clients, size)
	j := serveJournals(r, 1)
	j.RoutedJournalClient = plainClient(r, j.server.Addr)
	times, took := appendFor(r, j, clients, size)
	r.compare(fmt.Sprintf("durable appends of %d KiB", size>>10), perSecond, float64(len(times))/took, float64(len(idle))/appendTime.Seconds())
	r.compare("p50", seconds, quantile(times, 0.50), quantile(idle, 0.50))
	r.compare("p99", seconds, quantile(times, 0.99), quantile(idle, 0.99))
	r.report("CPU of the server, each", seconds, j.cpu/float64(len(times)))
}

// plainClient is a client as the protocol's generated code makes it.
func plainClient(r *run, addr string) protocol.RoutedJournalClient {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() { _ = conn.Close() })
	return protocol.NewRoutedJournalClient(protocol.NewJournalClient(conn), protocol.NoopDispatchRouter{})
}

// appendFor appends to the first journal, and returns how long each append took, ascending, and all together in seconds.
func appendFor(r *run, j *journals, clients, size int) (times []time.Duration, took float64) {
	content := bytes.NewReader(bytes.Repeat([]byte("x"), size))
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		fault error
	)
	if j.server != nil {
		before := cpuSeconds(r, j.server.Pid())
		defer func() { j.cpu = cpuSeconds(r, j.server.Pid()) - before }()
	}
	ctx, cancel := context.WithTimeout(r.ctx, appendTime)
	defer cancel()
	start := time.Now()
	for range clients {
		wg.Go(func() {
			var own []time.Duration
			var err error
			for err == nil && ctx.Err() == nil {
				before := time.Now()
				// An append that has begun may end, so that none is counted by half.
				_, err = client.Append(r.ctx, j.RoutedJournalClient, &protocol.AppendRequest{Journal: journalName(0)}, content)
				own = append(own, time.Since(before))
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, own...)
			if err != nil {
				fault = fmt.Errorf("append: %w", err)
			}
		})
	}
	wg.Wait()
	took = time.Since(start).Seconds()
	if fault != nil {
		r.Fatalf("%v", fault)
	}
	slices.Sort(times)
	return times, took
}
