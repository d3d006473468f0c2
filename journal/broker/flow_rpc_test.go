package broker_test

import (
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// limited starts a cluster with bounds on rates, and with a journal of a maximum rate.
func limited(t *testing.T, config broker.Config, rate int64) *cluster {
	t.Helper()
	c := startWith(t, t.TempDir(), disklog.Options{}, config)
	t.Cleanup(c.stop)
	s := spec("test/journal")
	s.MaxAppendRate = rate
	c.apply(&protocol.ApplyRequest_Change{Upsert: s})
	return c
}

// A client that stalls is cut off, wherever it stalls, and holds nobody meanwhile.
func TestStalledAppends(t *testing.T) {
	c := limited(t, broker.Config{MinAppendRate: 1 << 20}, 0)
	var wg sync.WaitGroup
	for what, messages := range map[string][]*protocol.AppendRequest{
		"before any content":  {},
		"after some":          {{Content: []byte("x")}},
		"after much":          {{Content: make([]byte, 3<<20)}},
		"after the empty one": {{Content: []byte("x")}, {}},
	} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			defer cancel()
			stream, err := c.client.Append(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			_ = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
			for _, m := range messages {
				_ = stream.Send(m)
			}
			// The client does not half-close: the broker has to end the call.
			err = stream.RecvMsg(new(protocol.AppendResponse))
			if status.Code(err) != codes.DeadlineExceeded || ctx.Err() != nil || !strings.Contains(err.Error(), "rolled back") {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for range 4 {
		c.mustAppend("test/journal", "another client's")
	}
	wg.Wait()
	if resp := c.mustAppend("test/journal"); resp.GetCommit().GetEnd() != int64(4*len("another client's")) {
		t.Errorf("something was committed: %v", resp)
	}
}

// A journal's maximum rate holds for all of its clients together, and for none of another journal.
func TestMaximumRate(t *testing.T) {
	for what, c := range map[string]*cluster{
		"the journal's": limited(t, broker.Config{}, 200_000),
		"the fleet's":   limited(t, broker.Config{MaxAppendRate: 200_000}, 0),
	} {
		begin := time.Now()
		var delayed int64
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal"}, strings.Repeat("x", 50_000), strings.Repeat("y", 50_000))
				if err != nil || resp.GetStatus() != protocol.Status_OK || resp.GetTotalChunks() != 3 {
					t.Errorf("%s: %v, %v", what, resp, err)
				}
				mu.Lock()
				delayed += resp.GetDelayedChunks()
				mu.Unlock()
			})
		}
		wg.Wait()
		// The first 200,000 are in the bank, the others take half a second.
		if took := time.Since(begin); took < 400*time.Millisecond || delayed == 0 {
			t.Errorf("%s: took %s with %d delayed chunks", what, took, delayed)
		}
	}
}

// Whoever is held back when the broker closes is let through, so that the end does not wait for rates.
func TestCloseLiftsRates(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := limited(t, broker.Config{Registerer: reg}, 1)
	stream, err := c.client.Append(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
	_ = stream.Send(&protocol.AppendRequest{Content: make([]byte, 100<<10)})
	for counted(t, reg, "daybook_journal_append_delayed_chunks_total") == 0 {
		runtime.Gosched()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.broker.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	_ = stream.Send(&protocol.AppendRequest{Content: make([]byte, 100<<10)})
	_ = stream.Send(new(protocol.AppendRequest))
	resp, err := stream.CloseAndRecv()
	if err != nil || resp.GetStatus() != protocol.Status_OK || resp.GetDelayedChunks() == 0 {
		t.Errorf("%v, %v", resp, err)
	}
	wg.Wait()
}

// counted returns the sum of a metric over its labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// Calls, bytes and waits are counted under the names that dashboards know, and what waits is gone when nobody waits.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := limited(t, broker.Config{Registerer: reg}, 0)
	c.mustAppend("test/journal", "content")
	if resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Offset: 3}, "xyz"); err != nil || resp.GetStatus() != protocol.Status_WRONG_APPEND_OFFSET {
		t.Fatal(resp, err)
	}
	c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0)
	c.list("")
	if _, err := c.client.ListFragments(t.Context(), &protocol.FragmentsRequest{Journal: "test/journal"}); err != nil {
		t.Fatal(err)
	}
	if err := c.broker.Close(t.Context()); err != nil { // after which all calls have been counted
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"gazette_journal_server_started_totals":   6,
		"gazette_journal_server_completed_totals": 6,
		"daybook_journal_call_seconds":            6,
		"gazette_spool_commits_total":             1,
		"gazette_spool_commit_bytes_total":        7,
		"gazette_spool_rollbacks_total":           1,
		"gazette_spool_rollback_bytes_total":      3,
		"daybook_journal_read_bytes_total":        7,
		"daybook_journal_appends_receiving":       0,
		"daybook_journal_appends_committing":      0,
		"daybook_journal_blocked_reads":           0,
		"daybook_journal_append_stalls_total":     0,
	} {
		if got := counted(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// Many clients append to one journal, small appends and large ones: each lands whole, and none in another.
func TestManyAppenders(t *testing.T) {
	c := one(t)
	const clients, each = 24, 12
	type landed struct{ begin, end int64 }
	sums := make(map[landed][sha1.Size]byte)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for k := range each {
				n := 1 + (i*each+k)*37%5000
				if k == 0 && i%4 == 0 {
					n = 2<<20 + i
				}
				content := strings.Repeat(string(rune('a'+i)), n)
				resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal"}, content[:n/2+1], content[n/2+1:]+"\n")
				if err != nil || resp.GetStatus() != protocol.Status_OK {
					t.Errorf("%v, %v", resp, err)
					return
				}
				mu.Lock()
				sums[landed{resp.GetCommit().GetBegin(), resp.GetCommit().GetEnd()}] = sha1.Sum([]byte(content + "\n"))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got, _ := c.read(&protocol.ReadRequest{Journal: "test/journal"}, 0)
	var total int64
	for at, sum := range sums {
		if sha1.Sum(got[at.begin:at.end]) != sum {
			t.Errorf("[%d, %d) is not what was appended", at.begin, at.end)
		}
		total += at.end - at.begin
	}
	if len(sums) != clients*each || total != int64(len(got)) {
		t.Errorf("%d appends of %d bytes; the journal has %d", len(sums), total, len(got))
	}
}

// Of clients that race for an offset, one wins.
func TestRaceForOffset(t *testing.T) {
	c := one(t)
	c.mustAppend("test/journal", "x")
	for offset := int64(1); offset < 15; offset++ {
		var wins [64]bool
		var wg sync.WaitGroup
		for i := range wins {
			wg.Go(func() {
				resp, err := c.append(&protocol.AppendRequest{Journal: "test/journal", Offset: offset}, "y")
				if err != nil {
					t.Error(err)
				}
				wins[i] = resp.GetStatus() == protocol.Status_OK
			})
		}
		wg.Wait()
		n := 0
		for _, won := range wins {
			if won {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%d clients won offset %d", n, offset)
		}
	}
}

// A client that goes away in the middle of a large append leaves nothing behind.
func TestClientGone(t *testing.T) {
	c := one(t)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.client.Append(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&protocol.AppendRequest{Journal: "test/journal"})
		for range 3 {
			_ = stream.Send(&protocol.AppendRequest{Content: make([]byte, 1<<20)})
		}
		cancel()
		if err := stream.RecvMsg(new(protocol.AppendResponse)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the append ends with %v", err)
		}
	}
	if resp := c.mustAppend("test/journal", "x"); resp.GetCommit().GetBegin() != 0 {
		t.Errorf("%v", resp)
	}
}
