package broker_test

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkAppend is one client that appends a kilobyte at a time.
func BenchmarkAppend(b *testing.B) {
	c := one(b)
	content := make([]byte, 1<<10)
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		c.send(b, content)
		took = append(took, time.Since(begin))
	}
	report(b, took)
}

// send appends without the checks of tests.
func (c *cluster) send(b *testing.B, content []byte) {
	stream, err := c.client.Append(b.Context())
	if err == nil {
		err = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
	}
	for err == nil && len(content) > 0 {
		n := min(len(content), 1<<20)
		err = stream.Send(&protocol.AppendRequest{Content: content[:n]})
		content = content[n:]
	}
	if err == nil {
		err = stream.Send(new(protocol.AppendRequest))
	}
	if err != nil {
		b.Error(err)
		return
	}
	if resp, err := stream.CloseAndRecv(); err != nil || resp.GetStatus() != protocol.Status_OK {
		b.Error(resp, err)
	}
}

// BenchmarkAppend64 is 64 appends of 4 KiB at a time.
func BenchmarkAppend64(b *testing.B) {
	c := one(b)
	content := make([]byte, 4<<10)
	b.SetBytes(int64(len(content)))
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < b.N; i += 64 {
				c.send(b, content)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

// BenchmarkLargeAppend is one append of 64 MiB.
func BenchmarkLargeAppend(b *testing.B) {
	c := one(b)
	content := make([]byte, 64<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		c.send(b, content)
	}
}

// BenchmarkBacklog reads a journal from its beginning, in messages as all clients take them and in large ones.
func BenchmarkBacklog(b *testing.B) {
	c := start(b, b.TempDir(), disklog.Options{})
	defer c.stop()
	c.create("test/journal")
	content := make([]byte, 32<<20)
	for range 8 {
		c.send(b, content)
	}
	const size = 256 << 20
	for name, most := range map[string]int32{"stock": 0, "large": 128 << 10} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				stream, err := c.client.Read(b.Context(), &protocol.ReadRequest{Journal: "test/journal", MaxContent: most}, grpc.MaxCallRecvMsgSize(2<<20))
				if err != nil {
					b.Fatal(err)
				}
				var n int
				for {
					resp, err := stream.Recv()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					n += len(resp.GetContent())
				}
				if n != size {
					b.Fatalf("%d bytes", n)
				}
			}
		})
	}
}
