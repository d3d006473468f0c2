package client

import (
	"fmt"
	"testing"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// BenchmarkAppendService measures small releases into a service with a spool directory, against a broker that discards.
func BenchmarkAppendService(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			rjc := (&broker{discard: true}).start(b)
			s, err := OpenAppendService(b.Context(), rjc, b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			record := make([]byte, size)
			req := &pb.AppendRequest{Journal: "bench/journal"}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				op := s.StartAppend(req, nil)
				_, _ = op.Writer().Write(record)
				if err := op.Release(); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkAppendLatency measures one append at a time, from StartAppend to the acknowledgement.
func BenchmarkAppendLatency(b *testing.B) {
	rjc := (&broker{discard: true}).start(b)
	s, err := OpenAppendService(b.Context(), rjc, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	record := make([]byte, 1<<10)
	req := &pb.AppendRequest{Journal: "bench/journal"}
	for b.Loop() {
		op := s.StartAppend(req, nil)
		_, _ = op.Writer().Write(record)
		if err := op.Release(); err != nil {
			b.Fatal(err)
		}
		if err := op.Err(); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
