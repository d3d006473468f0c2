package archivist_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
)

func TestMain(m *testing.M) {
	// The compressors, which all archives share, must not be born inside a synctest bubble.
	b := bucket.NewMem("warm")
	none := iter.Seq2[archive.Entry, error](func(func(archive.Entry, error) bool) {})
	desc := &logpb.LogStreamDescriptor{Prefix: "a", Name: "b"}
	manifest, err := archive.Write(context.Background(), b, archive.Params{Project: "p", Desc: desc, TerminalIndex: -1}, none)
	if err == nil {
		err = archive.Verify(context.Background(), b, manifest)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// content reads the archive that counts.
func content(t *testing.T, h *house, id string) string {
	t.Helper()
	r := h.report(id)
	if r == nil {
		t.Fatalf("%s is not archived; tasks were handed back with %q", id, h.reasons)
	}
	s, err := archive.Open(t.Context(), h.bucket, r.GetStreamUrl(), r.GetIndexUrl())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	var b bytes.Buffer
	if err := s.WriteContent(t.Context(), &b); err != nil {
		t.Fatalf("WriteContent: %v", err)
	}
	return b.String()
}

func lines(indices ...int) string {
	var b strings.Builder
	for _, i := range indices {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func drain(t *testing.T, a *archivist.Archivist) {
	t.Helper()
	if err := a.Drain(t.Context()); err != nil {
		t.Fatalf("Drain: %v", err)
	}
}

// TestLife archives a stream and, on the second task, removes its entries.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.storage.MaxGetCount = 2 // reads stop early
		h.run(nil)
		h.register("s")
		h.put("s", 0, 1, 2, 3, 4)
		h.terminate("s", 4)
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0, 1, 2, 3, 4) {
			t.Errorf("archive holds %q", got)
		}
		r := h.report("s")
		want := &logdog.ArchiveStreamRequest{
			Project: project, Id: "s", LogEntryCount: 5, TerminalIndex: 4, ContentSize: 35, Lines: 5,
			StreamUrl: r.StreamUrl, StreamSize: r.StreamSize, IndexUrl: r.IndexUrl, IndexSize: r.IndexSize,
		}
		if diff := cmp.Diff(want, r, protocmp.Transform()); diff != "" || r.StreamSize == 0 || r.IndexSize == 0 {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if n := h.rows("s"); n != 5 {
			t.Errorf("%d entries are in storage before the grace period ended", n)
		}
		for range 2 { // the second finds nothing to remove
			time.Sleep(time.Hour)
			h.enqueue("s")
			synctest.Wait()
			if n, tasks := h.rows("s"), h.pendingTasks(); n != 0 || tasks != 0 {
				t.Errorf("%d entries and %d tasks are left", n, tasks)
			}
		}
		if got := content(t, h, "s"); got != lines(0, 1, 2, 3, 4) {
			t.Errorf("archive holds %q", got)
		}
	})
}

// TestEnds archives streams in each state of their end.
func TestEnds(t *testing.T) {
	unreadable := []byte{0xff}
	for _, c := range []struct {
		name     string
		indices  []int
		bad      int   // this one cannot be parsed
		terminal int64 // -1 empty, -2 open
		want     *logdog.ArchiveStreamRequest
		lines    []int
	}{
		{"complete", []int{0, 1}, -1, 1, &logdog.ArchiveStreamRequest{LogEntryCount: 2, TerminalIndex: 1, ContentSize: 14, Lines: 2}, []int{0, 1}},
		{"empty", nil, -1, -1, &logdog.ArchiveStreamRequest{TerminalIndex: -1}, nil},
		{"empty, and more", []int{0, 2}, -1, -1, &logdog.ArchiveStreamRequest{TerminalIndex: -1}, nil},
		{"open", []int{0, 1, 5}, -1, -2, &logdog.ArchiveStreamRequest{
			LogEntryCount: 3, TerminalIndex: 5, ContentSize: 21, Lines: 3, Missing: []*logdog.MissingRange{{First: 2, Last: 4}},
		}, []int{0, 1, 5}},
		{"gap", []int{0, 1, 3, 4}, -1, 4, &logdog.ArchiveStreamRequest{
			LogEntryCount: 4, TerminalIndex: 4, ContentSize: 28, Lines: 4, Missing: []*logdog.MissingRange{{First: 2, Last: 2}},
		}, []int{0, 1, 3, 4}},
		{"end missing", []int{0, 1, 2}, -1, 9, &logdog.ArchiveStreamRequest{
			LogEntryCount: 3, TerminalIndex: 9, ContentSize: 21, Lines: 3, Missing: []*logdog.MissingRange{{First: 3, Last: 9}},
		}, []int{0, 1, 2}},
		{"all missing", nil, -1, 5, &logdog.ArchiveStreamRequest{TerminalIndex: 5, Missing: []*logdog.MissingRange{{First: 0, Last: 5}}}, nil},
		{"more than the end", []int{0, 1, 2, 3, 4}, -1, 3, &logdog.ArchiveStreamRequest{LogEntryCount: 4, TerminalIndex: 3, ContentSize: 28, Lines: 4}, []int{0, 1, 2, 3}},
		{"unreadable", []int{0, 2}, 1, 2, &logdog.ArchiveStreamRequest{
			LogEntryCount: 2, TerminalIndex: 2, ContentSize: 14, Lines: 2, Missing: []*logdog.MissingRange{{First: 1, Last: 1, Reason: "unreadable"}},
		}, []int{0, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.register("s")
				h.put("s", c.indices...)
				if c.bad >= 0 {
					h.putRaw("s", c.bad, unreadable)
				}
				if c.terminal == -2 {
					h.enqueue("s")
				} else {
					h.terminate("s", c.terminal)
				}
				time.Sleep(time.Hour) // no more waiting
				a := h.archivist(nil)
				drain(t, a)
				got := h.report("s")
				if got == nil {
					t.Fatalf("not archived: %q", h.reasons)
				}
				c.want.Project, c.want.Id = project, "s"
				if diff := cmp.Diff(c.want, got, protocmp.Transform(), protocmp.IgnoreFields(c.want, "stream_url", "stream_size", "index_url", "index_size")); diff != "" {
					t.Errorf("report (-want +got):\n%s", diff)
				}
				if got := content(t, h, "s"); got != lines(c.lines...) {
					t.Errorf("archive holds %q", got)
				}
				h.enqueue("s")
				drain(t, a)
				if n, tasks := h.rows("s"), h.pendingTasks(); n != 0 || tasks != 0 {
					t.Errorf("%d entries and %d tasks are left: %q", n, tasks, h.reasons)
				}
			})
		})
	}
}

// TestStragglers checks that the last entries, which come right after the end, are waited for without handing back the task.
func TestStragglers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.run(nil)
		h.register("s")
		h.terminate("s", 2)
		for i := range 3 {
			time.Sleep(10 * time.Millisecond)
			h.put("s", 2-i)
		}
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0, 1, 2) || len(h.handed) > 0 {
			t.Errorf("archive holds %q; handed back %v", got, h.handed)
		}
	})
}

// TestWaitsForMissing checks that the task goes back, later and later, until the missing entry comes.
func TestWaitsForMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.run(nil)
		h.register("s")
		h.put("s", 0, 2)
		h.terminate("s", 2)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if h.report("s") != nil {
			t.Fatal("archived without waiting")
		}
		first, last := h.handed[0], h.handed[len(h.handed)-1]
		if first != 100*time.Millisecond || last != 30*time.Second || len(h.handed) > 40 {
			t.Errorf("handed back %d times: %v", len(h.handed), h.handed)
		}
		if h.reasons[0] != "entry 1 of 0 to 2 is missing" {
			t.Errorf("reason %q", h.reasons[0])
		}
		if keys := h.bucket.Keys(); len(keys) > 0 {
			t.Errorf("objects were written: %v", keys)
		}
		h.put("s", 1)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0, 1, 2) || h.report("s").GetMissing() != nil {
			t.Errorf("archive holds %q", got)
		}
	})
}

func TestGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.run(func(c *archivist.Config) { c.WaitForMissing = time.Minute })
		h.register("s")
		h.put("s", 0)
		h.terminate("s", 2)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if h.report("s") != nil {
			t.Fatal("archived before the limit")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0) {
			t.Errorf("archive holds %q", got)
		}
	})
}

func TestGoneAndPurged(t *testing.T) {
	h := newHouse(t)
	h.enqueue("gone")
	h.register("purged").state.Purged = true
	h.put("purged", 0, 1)
	h.put("other", 0)
	h.terminate("purged", 1)
	a := h.archivist(nil)
	drain(t, a)
	// It may be shown again, so nothing is lost of it.
	if h.rows("purged") != 2 || content(t, h, "purged") != lines(0, 1) || h.pendingTasks() != 0 {
		t.Errorf("%d entries, %d tasks are left", h.rows("purged"), h.pendingTasks())
	}
	h.enqueue("purged")
	h.tasks[0].task.Remove = true
	drain(t, a)
	if h.rows("purged") != 0 || h.rows("other") != 1 || h.pendingTasks() != 0 || len(h.bucket.Keys()) != 0 {
		t.Errorf("%d and %d entries, %d tasks, and objects %q are left", h.rows("purged"), h.rows("other"), h.pendingTasks(), h.bucket.Keys())
	}
}

// TestFailuresPass lets each step fail for a while: the task stays, nothing is reported and nothing is left behind; then the
// stream is archived.
func TestFailuresPass(t *testing.T) {
	broken := fault.New(fault.Transient, "broken")
	unavailable := status.Error(codes.Unavailable, "broken")
	inBucket := func(op bucket.Op, suffix string) func(*house, bool) {
		return func(h *house, fail bool) {
			h.bucket.SetFault(func(o bucket.Op, key string) error {
				if fail && o == op && strings.HasSuffix(key, suffix) {
					return broken
				}
				return nil
			})
		}
	}
	inCall := func(method string) func(*house, bool) {
		return func(h *house, fail bool) {
			h.setBefore(func(m string, _ proto.Message) error {
				if fail && m == method {
					return unavailable
				}
				return nil
			})
		}
	}
	for name, fault := range map[string]func(*house, bool){
		"create entries": inBucket(bucket.OpCreate, ".zst"), "write entries": inBucket(bucket.OpWrite, ".zst"), "commit entries": inBucket(bucket.OpCommit, ".zst"),
		"create index": inBucket(bucket.OpCreate, ".index"), "write index": inBucket(bucket.OpWrite, ".index"), "commit index": inBucket(bucket.OpCommit, ".index"),
		"read back": inBucket(bucket.OpRead, ".zst"), "stat index": inBucket(bucket.OpStat, ".index"),
		"lease": inCall("lease"), "load": inCall("load"),
		"storage": func(h *house, fail bool) {
			if fail {
				h.storage.SetErr(broken)
			} else {
				h.storage.SetErr(nil)
			}
		},
		"damage": func(h *house, fail bool) { // what is read back is not what was written
			h.bucket.SetFault(func(op bucket.Op, key string) error {
				if fail && op == bucket.OpGet && strings.HasSuffix(key, ".zst") {
					data := h.bucket.Bytes(key)
					data[len(data)/2] ^= 1
					h.bucket.SetBytes(key, data)
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				fault(h, true)
				h.run(nil)
				h.register("s")
				h.storage.SetErr(nil)
				h.put("s", 0, 1)
				fault(h, true)
				h.terminate("s", 1)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if h.report("s") != nil || h.pendingTasks() != 1 {
					t.Errorf("archived, or the task is gone")
				}
				if keys := h.bucket.Keys(); len(keys) > 0 {
					t.Errorf("left in the bucket: %v", keys)
				}
				fault(h, false)
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := content(t, h, "s"); got != lines(0, 1) || h.pendingTasks() != 0 {
					t.Errorf("archive holds %q", got)
				}
			})
		})
	}
}

// TestGivesUp checks that what can never succeed is reported, and its entries stay.
func TestGivesUp(t *testing.T) {
	for name, spoil := range map[string]func(*fakeStream){
		"descriptor":       func(s *fakeStream) { s.desc = []byte{0xff} },
		"path":             func(s *fakeStream) { s.desc = nil },
		"protocol version": func(s *fakeStream) { s.state.ProtoVersion = "2" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.run(func(c *archivist.Config) { c.MaxFailures = 3 })
				spoil(h.register("s"))
				h.put("s", 0)
				h.terminate("s", 0)
				time.Sleep(time.Hour)
				synctest.Wait()
				r := h.report("s")
				if r.GetError() == "" || r.GetStreamUrl() != "" || r.GetTerminalIndex() != -1 || h.pendingTasks() != 0 || len(h.handed) != 2 {
					t.Errorf("report %v, %d tasks, handed back %v", r, h.pendingTasks(), h.handed)
				}
				if h.rows("s") != 1 {
					t.Error("the entry is gone")
				}
			})
		})
	}
	// An archive without a URL, as after a failure, is no reason to remove entries.
	h := newHouse(t)
	h.register("s").state.Archived = true
	h.put("s", 0)
	h.enqueue("s")
	drain(t, h.archivist(nil))
	if h.rows("s") != 1 || h.pendingTasks() != 0 {
		t.Errorf("%d entries, %d tasks", h.rows("s"), h.pendingTasks())
	}
}

// TestRace lets another Archivist be first: ours deletes its objects and does no harm.
func TestRace(t *testing.T) {
	h := newHouse(t)
	h.register("s")
	h.put("s", 0)
	h.terminate("s", 0)
	second := h.archivist(nil)
	raced := false
	h.setBefore(func(method string, _ proto.Message) error {
		if method == "archive" && !raced {
			raced = true
			h.enqueue("s") // its own lease
			drain(t, second)
		}
		return nil
	})
	drain(t, h.archivist(nil))
	if s := h.streams["s"]; s.reports != 2 || len(h.bucket.Keys()) != 2 || h.pendingTasks() != 0 {
		t.Errorf("%d reports, objects %v, %d tasks", s.reports, h.bucket.Keys(), h.pendingTasks())
	}
	if got := content(t, h, "s"); got != lines(0) {
		t.Errorf("archive holds %q", got)
	}
}

// TestReportInDoubt checks what becomes of the objects when the report fails.
func TestReportInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Recorded, but the answer is lost.
		h := newHouse(t)
		h.after = func() error { return status.Error(codes.Unavailable, "cut off") }
		h.register("s")
		h.put("s", 0)
		h.terminate("s", 0)
		drain(t, h.archivist(nil))
		if got := content(t, h, "s"); got != lines(0) || h.pendingTasks() != 0 {
			t.Errorf("archive holds %q, %d tasks", got, h.pendingTasks())
		}
		// Not recorded as far as one can see: it may be yet.
		for code, kept := range map[codes.Code]int{codes.Unavailable: 2, codes.FailedPrecondition: 0} {
			h = newHouse(t)
			h.setBefore(func(method string, _ proto.Message) error {
				if method == "archive" {
					return status.Error(code, "no")
				}
				return nil
			})
			h.register("s")
			h.put("s", 0)
			h.terminate("s", 0)
			drain(t, h.archivist(nil))
			if n := len(h.bucket.Keys()); n != kept || h.pendingTasks() != 1 {
				t.Errorf("after %s %d objects are left, want %d; %d tasks", code, n, kept, h.pendingTasks())
			}
		}
	})
}

// TestRelease checks that entries stay in storage unless the archive has them all.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*house, *logdog.ArchiveStreamRequest)
		stay   bool
	}{
		{"sound", func(*house, *logdog.ArchiveStreamRequest) {}, false},
		{"unreadable late entry", func(h *house, _ *logdog.ArchiveStreamRequest) { h.putRaw("s", 2, []byte{0xff}) }, false},
		{"entries behind the end", func(h *house, _ *logdog.ArchiveStreamRequest) { h.put("s", 6, 8) }, false},
		{"index gone", func(h *house, r *logdog.ArchiveStreamRequest) { damage(h, r.GetIndexUrl(), nil) }, false},
		{"entries gone", func(h *house, r *logdog.ArchiveStreamRequest) {
			key, _ := h.bucket.KeyOf(r.GetStreamUrl())
			_ = h.bucket.Delete(h.t.Context(), key)
		}, true},
		{"entries damaged", func(h *house, r *logdog.ArchiveStreamRequest) { damage(h, r.GetStreamUrl(), []byte("x")) }, true},
		{"another end", func(h *house, _ *logdog.ArchiveStreamRequest) { h.streams["s"].state.TerminalIndex = 7 }, true},
		{"bucket unreachable", func(h *house, _ *logdog.ArchiveStreamRequest) {
			h.bucket.SetFault(func(bucket.Op, string) error { return fault.New(fault.Transient, "down") })
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.register("s")
				h.put("s", 0, 1, 3)
				h.terminate("s", 5)
				time.Sleep(time.Hour)
				a := h.archivist(nil)
				drain(t, a)
				if got := content(t, h, "s"); got != lines(0, 1, 3) {
					t.Fatalf("archive holds %q", got)
				}
				c.change(h, h.report("s"))
				before := h.rows("s")
				h.enqueue("s")
				drain(t, a)
				if n := h.rows("s"); c.stay && (n != before || h.pendingTasks() != 1) || !c.stay && (n != 0 || h.pendingTasks() != 0) {
					t.Errorf("%d of %d entries, %d tasks are left: %q", n, before, h.pendingTasks(), h.reasons)
				}
			})
		})
	}
}

// damage overwrites the beginning of an object.
func damage(h *house, url string, with []byte) {
	key, err := h.bucket.KeyOf(url)
	if err != nil {
		h.t.Fatal(err)
	}
	data := h.bucket.Bytes(key)
	if with == nil {
		data = nil
	}
	copy(data, with)
	h.bucket.SetBytes(key, data)
}

// TestStopHandsBack checks that a task under work is handed back when the Archivist stops.
func TestStopHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0)
		ctx, cancel := context.WithCancel(t.Context())
		h.bucket.SetFault(func(op bucket.Op, _ string) error {
			if op == bucket.OpCommit {
				cancel()
				return ctx.Err()
			}
			return nil
		})
		h.terminate("s", 0)
		if err := h.archivist(nil).Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(h.handed) != 1 || h.handed[0] != time.Millisecond || h.report("s") != nil || len(h.bucket.Keys()) > 0 {
			t.Errorf("handed back %v %q, objects %v", h.handed, h.reasons, h.bucket.Keys())
		}
		if err := h.archivist(nil).Drain(ctx); !errors.Is(err, context.Canceled) && !fault.Is(err, fault.Canceled) {
			t.Errorf("Drain: %v", err)
		}
	})
}

// TestDrainBesideRun checks that Drain waits for what Run has begun.
func TestDrainBesideRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0)
		h.setBefore(func(method string, _ proto.Message) error {
			if method == "archive" {
				time.Sleep(time.Minute)
			}
			return nil
		})
		a := h.run(nil)
		h.terminate("s", 0)
		synctest.Wait()
		drain(t, a)
		if got := content(t, h, "s"); got != lines(0) || h.pendingTasks() != 0 {
			t.Errorf("archive holds %q", got)
		}
	})
}

// TestSecondTask checks that a second task for a stream under work waits for the first.
func TestSecondTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0)
		block := make(chan struct{})
		h.setBefore(func(method string, _ proto.Message) error {
			if method == "archive" {
				<-block
			}
			return nil
		})
		h.run(nil)
		h.terminate("s", 0)
		h.enqueue("s")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if len(h.handed) != 2 || h.handed[0] != time.Second {
			t.Errorf("handed back %v", h.handed)
		}
		close(block)
		time.Sleep(time.Minute)
		synctest.Wait()
		if h.streams["s"].reports != 1 || h.pendingTasks() != 0 || h.rows("s") != 0 {
			t.Errorf("%d reports, %d tasks, %d entries", h.streams["s"].reports, h.pendingTasks(), h.rows("s"))
		}
	})
}

// TestMany works on many streams with few workers.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		registry := prometheus.NewRegistry()
		h.run(func(c *archivist.Config) { c.Registerer = registry })
		const n = 100
		for i := range n {
			id := fmt.Sprint("s", i)
			h.register(id)
			h.put(id, 0, 1)
			h.terminate(id, 1)
		}
		synctest.Wait()
		for i := range n {
			if got := content(t, h, fmt.Sprint("s", i)); got != lines(0, 1) {
				t.Errorf("archive %d holds %q", i, got)
			}
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		want := map[string]float64{
			"daybook_archivist_archives_total": n, "daybook_archivist_archive_bytes": 2 * n, "daybook_archivist_archive_entries": n,
			"daybook_archivist_tasks_leased_total": n, "daybook_archivist_tasks_total": n, "daybook_archivist_task_seconds": n,
			"daybook_archivist_unreadable_entries_total": 0, "daybook_archivist_unordered_entries_total": 0,
			"daybook_archivist_beyond_entries_total": 0,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

func TestConfig(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]archivist.Config{
		"nothing": {}, "negative": {Services: h, Storage: h.storage, Places: archive.NewPlaces(h.bucket, nil), Logger: h.archivist(nil).Logger, Workers: -1},
	} {
		if _, err := archivist.New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v; want Invalid", name, err)
		}
	}
}
