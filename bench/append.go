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
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const appendTime = 3 * time.Second

// measureAppend compares durable appends through the broker, over gRPC, by clients that wait for each, with what the disk
// does: writes of a block into space that was written before, each followed by fdatasync.
func measureAppend(r *run, clients, size int) {
	raw := rawSyncs(r)

	server := r.house().Serve()
	conn, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer conn.Close()
	journals := protocol.NewRoutedJournalClient(protocol.NewJournalClient(conn), protocol.NoopDispatchRouter{})
	const journal = "bench/append"
	_, err = client.ApplyJournals(r.ctx, journals, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{
		Upsert: &protocol.JournalSpec{
			Name: journal, Replication: 1,
			Fragment: &protocol.JournalSpec_Fragment{
				Length:           1 << 30,
				CompressionCodec: protocol.CompressionCodec_NONE,
				RefreshInterval:  durationpb.New(time.Hour),
			},
		},
	}}})
	if err != nil {
		r.Fatalf("%v", err)
	}

	content := bytes.NewReader(bytes.Repeat([]byte("x"), size))
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		times []time.Duration
		fault error
	)
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
				_, err = client.Append(r.ctx, journals, &protocol.AppendRequest{Journal: journal}, content)
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
	took := time.Since(start).Seconds()
	if fault != nil {
		r.Fatalf("%v", fault)
	}
	slices.Sort(times)
	slices.Sort(raw)
	r.compare(fmt.Sprintf("durable appends of %d KiB", size>>10), perSecond, float64(len(times))/took, float64(len(raw))/rawTime.Seconds())
	r.compare("p50", seconds, quantile(times, 0.50), quantile(raw, 0.50))
	r.compare("p99", seconds, quantile(times, 0.99), quantile(raw, 0.99))
}
