package archivist_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Late entries are found when storage is cleared: the stream is reopened, archived again with them, and the first archive goes.
func TestLateEntries(t *testing.T) {
	for _, c := range []struct {
		name         string
		end          int64 // as reported; -2 if none was
		first, late  []int
		both         []int
		stillMissing int
	}{
		{"the last gap", 5, []int{0, 1, 3}, []int{2, 4, 5}, []int{0, 1, 2, 3, 4, 5}, 0},
		{"one of several", 5, []int{0, 1, 3}, []int{4}, []int{0, 1, 3, 4}, 2},
		{"all", 1, nil, []int{0, 1}, []int{0, 1}, 0},
		{"repeated ones, too", 3, []int{0, 1}, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, 0},
		{"of a stream without an end", -2, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.storage.MaxGetCount = 2
				h.register("s")
				h.put("s", c.first...)
				if c.end >= -1 {
					h.terminate("s", c.end)
				} else {
					h.enqueue("s")
				}
				time.Sleep(time.Hour)
				a := h.archivist(nil)
				drain(t, a)
				if got := content(t, h, "s"); got != lines(c.first...) {
					t.Fatalf("archive holds %q", got)
				}
				old := h.report("s")
				if err := h.storage.Expunge(t.Context(), nameOf("s")); err != nil {
					t.Fatal(err)
				}
				h.put("s", c.late...)
				h.enqueue("s") // to clear storage
				drain(t, a)
				time.Sleep(time.Hour) // what is still missing is not waited for any longer
				drain(t, a)
				if got := content(t, h, "s"); got != lines(c.both...) {
					t.Errorf("archive holds %q", got)
				}
				r := h.report("s")
				if len(r.GetMissing()) != c.stillMissing || r.GetLogEntryCount() != int64(len(c.both)) {
					t.Errorf("%d entries, %v are missing", r.GetLogEntryCount(), r.GetMissing())
				}
				h.enqueue("s")
				drain(t, a)
				if key, _ := h.bucket.KeyOf(old.GetStreamUrl()); h.rows("s") != 0 || h.pendingTasks() != 0 || slices.Contains(h.bucket.Keys(), key) {
					t.Errorf("%d rows, %d tasks, and the objects %q are left; %q", h.rows("s"), h.pendingTasks(), h.bucket.Keys(), h.reasons)
				}
				if got := content(t, h, "s"); got != lines(c.both...) {
					t.Errorf("in the end the archive holds %q", got)
				}
			})
		})
	}
}

// A reopened stream is archived as soon as nothing is missing.
func TestReopenedIsArchivedWhenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.run(nil)
		h.register("s")
		h.put("s", 0, 2)
		h.terminate("s", 3)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0, 2) {
			t.Fatalf("archive holds %q", got)
		}
		if _, err := h.RegisterStream(t.Context(), &logdog.RegisterStreamRequest{Desc: h.streams["s"].desc}); err != nil {
			t.Fatal(err)
		}
		h.put("s", 1)
		time.Sleep(time.Second)
		synctest.Wait()
		if h.streams["s"].state.GetArchived() {
			t.Error("it is archived, and an entry is missing")
		}
		h.put("s", 3)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := content(t, h, "s"); got != lines(0, 1, 2, 3) {
			t.Errorf("archive holds %q", got)
		}
	})
}

// An archive that was made before the stream got another one, and was reopened, does not take its place.
func TestStaleArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0)
		h.terminate("s", 1)
		time.Sleep(time.Hour)
		a, b := h.archivist(nil), h.archivist(nil)
		overtaken := false
		h.setBefore(func(method string, _ proto.Message) error {
			if method == "archive" && !overtaken {
				overtaken = true
				h.enqueue("s")
				drain(t, b) // archives the stream; then it is reopened, and its entries go
				h.mu.Lock()
				h.streams["s"].state.Archived, h.streams["s"].reopened = false, time.Now()
				h.mu.Unlock()
			}
			return nil
		})
		drain(t, a)
		if n := len(h.bucket.Keys()); n != 2 {
			t.Errorf("%d objects are left", n)
		}
		if got := content(t, h, "s"); got != lines(0) {
			t.Errorf("archive holds %q", got)
		}
	})
}

// A removal that fails is tried again, and is told to be done only when everything is gone.
func TestRemovalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0)
		h.terminate("s", 0)
		a := h.archivist(nil)
		drain(t, a)
		var told []bool
		h.setBefore(func(method string, r proto.Message) error {
			if method == "delete" {
				told = append(told, r.(*logdog.DeleteRequest).GetTasks()[0].GetRemoved())
			}
			return nil
		})
		h.bucket.SetFault(func(bucket.Op, string) error { return fault.New(fault.Transient, "down") })
		h.enqueue("s")
		h.tasks[0].task.Remove = true
		drain(t, a)
		h.bucket.SetFault(nil)
		time.Sleep(time.Hour)
		drain(t, a)
		if fmt.Sprint(told) != "[false true]" || len(h.bucket.Keys()) != 0 || h.rows("s") != 0 || h.pendingTasks() != 0 {
			t.Errorf("told %v, objects %q, %d rows, %d tasks", told, h.bucket.Keys(), h.rows("s"), h.pendingTasks())
		}
	})
}

// Entries are removed only while the lease lasts: a reading of the archive that takes longer is not repeated.
func TestSlowVerification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.register("s")
		h.put("s", 0, 1)
		h.terminate("s", 1)
		a := h.archivist(func(c *archivist.Config) { c.LeaseTime = time.Minute })
		drain(t, a)
		reads := 0
		h.bucket.SetFault(func(op bucket.Op, _ string) error {
			if op == bucket.OpGet {
				reads++
				time.Sleep(40 * time.Second)
			}
			return nil
		})
		h.enqueue("s")
		drain(t, a)
		if h.rows("s") != 2 || h.pendingTasks() != 1 {
			t.Errorf("%d rows and %d tasks are left when the lease may have ended", h.rows("s"), h.pendingTasks())
		}
		before := reads
		h.bucket.SetFault(func(op bucket.Op, _ string) error {
			if op == bucket.OpGet {
				reads++
			}
			return nil
		})
		time.Sleep(time.Second)
		drain(t, a)
		if h.rows("s") != 0 || h.pendingTasks() != 0 || reads-before > 1 {
			t.Errorf("%d rows and %d tasks are left, %d more reads", h.rows("s"), h.pendingTasks(), reads-before)
		}
	})
}
