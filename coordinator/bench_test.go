package coordinator_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// BenchmarkFollowers puts an entry every 20 ms into a stream that many follow, and reports how long the slowest of them wait for it.
func BenchmarkFollowers(b *testing.B) {
	for _, followers := range []int{1, 1000} {
		b.Run(fmt.Sprint(followers), func(b *testing.B) {
			h := newHouse(b)
			_, v1 := h.serve()
			id := h.register("stdout")
			var mu sync.Mutex
			put := make([]time.Time, b.N)
			var delays []time.Duration
			var ready, done sync.WaitGroup
			for range followers {
				ready.Add(1)
				done.Go(func() {
					s, err := v1.Follow(b.Context(), follow("stdout"))
					if err == nil {
						_, err = s.Recv() // the state
					}
					ready.Done()
					for err == nil {
						r, rerr := s.Recv()
						if err = rerr; err != nil || r.GetEnd() != nil {
							break
						}
						now := time.Now()
						mu.Lock()
						for _, e := range r.GetLogs() {
							delays = append(delays, now.Sub(put[e.GetStreamIndex()]))
						}
						mu.Unlock()
					}
					if err != nil {
						b.Error(err)
					}
				})
			}
			ready.Wait()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			b.ResetTimer()
			for i := range b.N {
				<-tick.C
				data, err := proto.Marshal(entry(i))
				if err != nil {
					b.Fatal(err)
				}
				mu.Lock()
				put[i] = time.Now()
				mu.Unlock()
				err = h.storage.Put(b.Context(), storage.PutRequest{
					Stream: storage.Stream{Project: project, Path: types.StreamName(prefix).Join("stdout")}, Index: types.MessageIndex(i), Values: [][]byte{data},
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			h.terminate(id, int64(b.N-1))
			done.Wait()
			slices.Sort(delays)
			b.ReportMetric(float64(delays[len(delays)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds()), "p99-µs")
		})
	}
}
