package coordinator_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/collector"
	collectorcoordinator "github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// pipeline is a house with a Collector, and with an Archivist at work.
type pipeline struct {
	*house
	t         *testing.T
	bucket    *bucket.Mem
	collector *collector.Collector
	logs      logdog.LogsClient
	v1        daybookv1.LogsClient
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	p := &pipeline{t: t, bucket: bucket.NewMem("archive")}
	places := archive.NewPlaces(p.bucket, nil)
	archives, err := archive.NewReader(places, 10)
	if err != nil {
		t.Fatal(err)
	}
	p.house = newHouse(t, func(c *coordinator.Config) {
		c.Archives, c.Policy.OpenLimit = reader.FromArchive(archives), 2*time.Hour
	})
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(client.ServerOptions()...)
	p.Register(s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	conn, err := client.Dial("passthrough:bufconn", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return l.DialContext(ctx)
	}))
	if err != nil {
		t.Fatal(err)
	}
	p.logs, p.v1 = logdog.NewLogsClient(conn), daybookv1.NewLogsClient(conn)
	services := logdog.NewServicesClient(conn)
	p.collector = &collector.Collector{
		Coordinator: collectorcoordinator.NewCache(collectorcoordinator.NewCoordinator(services), 0, 0), Storage: p.storage,
	}
	a, err := archivist.New(archivist.Config{Services: services, Storage: p.storage, Places: places, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		working.Wait()
		p.collector.Close()
		_ = conn.Close()
		s.Stop()
		serving.Wait()
	})
	return p
}

// send has the Collector process entries, as often as it takes, and the end unless it is negative.
func (p *pipeline) send(name string, end int, indices ...int) {
	p.t.Helper()
	var entries []*logpb.ButlerLogBundle_Entry
	for _, i := range indices {
		entries = append(entries, &logpb.ButlerLogBundle_Entry{Desc: descriptor(name), Logs: []*logpb.LogEntry{entry(i)}})
	}
	if end >= 0 {
		entries = append(entries, &logpb.ButlerLogBundle_Entry{Desc: descriptor(name), Terminal: true, TerminalIndex: uint64(end)})
	}
	msg, err := new(envelope.Writer).Append(nil, &logpb.ButlerLogBundle{Project: project, Prefix: prefix, Secret: p.secret, Entries: entries})
	if err != nil {
		p.t.Fatal(err)
	}
	for {
		err := p.collector.Process(p.t.Context(), msg)
		if err == nil {
			return
		}
		if !fault.IsTransient(err) {
			p.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Entries come in any order, repeatedly, and as late as can be: while others are archived, while storage is cleared, and after. Whatever
// the time, readers see exactly what came, once; in the end the stream is complete, in one archive, and nothing is left in storage.
func TestEntriesAtAnyTime(t *testing.T) {
	// What archives share is made outside of the bubbles that use it.
	none := func(func(archive.Entry, error) bool) {}
	b := bucket.NewMem("archive")
	m, err := archive.Write(t.Context(), b, archive.Params{Project: project, Desc: descriptor("x"), TerminalIndex: -1}, none)
	if err == nil {
		err = archive.Verify(t.Context(), b, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	for seed := range 8 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(uint64(seed), 0))
				p := newPipeline(t)
				const n = 12
				order := random.Perm(n)
				path := prefix + "/+/stdout"
				var sent []int
				look := func() {
					t.Helper()
					r, err := p.logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: path, NonContiguous: true})
					if err != nil {
						t.Fatal(err)
					}
					slices.Sort(sent)
					sent = slices.Compact(sent)
					equal(t, fmt.Sprintf("read after %d", len(sent)), indices(r.GetLogs()), sent)
				}
				// The end is known at some time, and entries come in runs, the last of them twice.
				ends := random.IntN(n)
				for i, index := range order {
					end := -1
					if i >= ends {
						end = n - 1
					}
					also := order[random.IntN(i+1)]
					p.send("stdout", end, index, also)
					sent = append(sent, index, also)
					look()
					pauses := []time.Duration{
						0, time.Millisecond, time.Second, time.Minute, 9 * time.Minute, 11 * time.Minute, 15 * time.Minute,
						15*time.Minute + time.Duration(random.IntN(1000))*time.Millisecond, 3 * time.Hour, // silence
					}
					time.Sleep(pauses[random.IntN(len(pauses))])
					look()
				}
				time.Sleep(time.Hour)
				look()
				s, err := p.v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: path})
				if err != nil || s.GetState() != daybookv1.StreamState_COMPLETE {
					t.Errorf("in the end: %v, %v", s, err)
				}
				if keys := p.bucket.Keys(); len(keys) != 2 {
					t.Errorf("objects: %q", keys)
				}
				left := 0
				key := storage.Stream{Project: project, Path: types.StreamPath(path)}
				err = p.storage.Get(t.Context(), storage.GetRequest{Stream: key, KeysOnly: true}, func(storage.Entry) bool { left++; return true })
				if tasks := p.lease(); err != nil || left != 0 || len(tasks) != 0 {
					t.Errorf("%d entries and the tasks %v are left; %v", left, tasks, err)
				}
			})
		})
	}
}
