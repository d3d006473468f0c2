package coordinator_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestRegisterStream(t *testing.T) {
	h := newHouse(t)
	resp, err := h.Services().RegisterStream(t.Context(), h.registration("stdout"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetId() != string(types.StreamName(prefix).Join("stdout").ID()) {
		t.Errorf("id %s", resp.GetId())
	}
	if s := resp.GetState(); s.GetTerminalIndex() != -1 || s.GetArchived() || s.GetPurged() || s.GetTerminalEmpty() || !bytes.Equal(s.GetSecret(), h.secret) {
		t.Error("state of a new stream is not that of an open one")
	}

	// The first registration wins.
	second := h.registration("stdout")
	second.TerminalIndex = 7
	again, err := h.Services().RegisterStream(t.Context(), second)
	if err != nil || !proto.Equal(again, resp) {
		t.Errorf("again: %v", err)
	}

	// A stream can end as it begins.
	short := h.registration("short")
	short.TerminalIndex = 0
	if r, err := h.Services().RegisterStream(t.Context(), short); err != nil || r.GetState().GetTerminalIndex() != 0 {
		t.Errorf("with its end: %v, %v", r.GetState().GetTerminalIndex(), err)
	}
	empty := h.registration("empty")
	empty.TerminalEmpty = true
	if r, err := h.Services().RegisterStream(t.Context(), empty); err != nil || !r.GetState().GetTerminalEmpty() || r.GetState().GetTerminalIndex() != -1 {
		t.Errorf("empty: %v", err)
	}

	d := descriptor("tagged")
	for i := range 512 {
		d.Tags[fmt.Sprint("tag", i)] = strings.Repeat("v", 4080)
	}
	tagged := h.registration("tagged")
	tagged.Desc, err = proto.Marshal(d)
	if err == nil {
		_, err = h.Services().RegisterStream(t.Context(), tagged)
	}
	if err != nil {
		t.Errorf("many tags: %v", err)
	}
	for i := range 20 {
		d.Tags[fmt.Sprint("more", i)] = strings.Repeat("v", 4080)
	}
	large, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		change func(*logdog.RegisterStreamRequest)
		want   codes.Code
	}{
		"project":      {func(r *logdog.RegisterStreamRequest) { r.Project = "" }, codes.InvalidArgument},
		"version":      {func(r *logdog.RegisterStreamRequest) { r.ProtoVersion = "2" }, codes.InvalidArgument},
		"descriptor":   {func(r *logdog.RegisterStreamRequest) { r.Desc = []byte{0xff} }, codes.InvalidArgument},
		"large":        {func(r *logdog.RegisterStreamRequest) { r.Desc = large }, codes.InvalidArgument},
		"validation":   {func(r *logdog.RegisterStreamRequest) { r.Desc = nil }, codes.InvalidArgument},
		"secret":       {func(r *logdog.RegisterStreamRequest) { r.Secret = make([]byte, 36) }, codes.InvalidArgument},
		"short secret": {func(r *logdog.RegisterStreamRequest) { r.Secret = r.Secret[1:] }, codes.InvalidArgument},
		"prefix":       {func(r *logdog.RegisterStreamRequest) { r.Project = "other" }, codes.FailedPrecondition},
	} {
		for _, streamName := range []string{"stdout", "new"} {
			r := h.registration(streamName)
			test.change(r)
			_, err := h.Services().RegisterStream(t.Context(), r)
			wantCode(t, name+" "+streamName, err, test.want)
			if err != nil && strings.Contains(err.Error(), string(h.secret)) {
				t.Error("the error tells the secret")
			}
		}
	}
}

// The window of the prefix is for new streams. Those that exist are answered for ever.
func TestRegisterStreamAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *coordinator.Config) {
			c.Settings = settings(t, "service: {prefix_expiration: 1h}\nprojects: {local: }")
		})
		h.register("stdout")
		time.Sleep(time.Hour)
		h.register("stdout")
		_, err := h.Services().RegisterStream(t.Context(), h.registration("stderr"))
		wantCode(t, "new stream", err, codes.FailedPrecondition)
	})
}

func TestTerminateStream(t *testing.T) {
	h := newHouse(t)
	id := h.register("stdout")
	terminate := func(change func(*logdog.TerminateStreamRequest)) error {
		r := &logdog.TerminateStreamRequest{Project: project, Id: id, Secret: h.secret, TerminalIndex: 5}
		change(r)
		_, err := h.Services().TerminateStream(t.Context(), r)
		return err
	}
	wantCode(t, "negative", terminate(func(r *logdog.TerminateStreamRequest) { r.TerminalIndex = -1 }), codes.InvalidArgument)
	wantCode(t, "id", terminate(func(r *logdog.TerminateStreamRequest) { r.Id += "0" }), codes.InvalidArgument)
	wantCode(t, "unknown", terminate(func(r *logdog.TerminateStreamRequest) { r.Id = strings.Repeat("0", 64) }), codes.NotFound)
	wantCode(t, "secret", terminate(func(r *logdog.TerminateStreamRequest) { r.Secret = make([]byte, 36) }), codes.InvalidArgument)
	wantCode(t, "first", terminate(func(r *logdog.TerminateStreamRequest) { r.Id = strings.ToUpper(id) }), codes.OK)
	wantCode(t, "again", terminate(func(*logdog.TerminateStreamRequest) {}), codes.OK)
	wantCode(t, "other end", terminate(func(r *logdog.TerminateStreamRequest) { r.TerminalIndex = 6 }), codes.FailedPrecondition)
	wantCode(t, "empty after all", terminate(func(r *logdog.TerminateStreamRequest) { r.TerminalEmpty = true }), codes.FailedPrecondition)
	if n := len(h.lease()); n != 1 {
		t.Errorf("%d tasks", n)
	}
	// The reported end is kept when less was archived.
	h.archive("stdout", 0, 1)
	wantCode(t, "after the archive", terminate(func(*logdog.TerminateStreamRequest) {}), codes.OK)
}

func TestLoadStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		load := func(id string) *logdog.LoadStreamResponse {
			t.Helper()
			r, err := h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: id, Desc: true})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		time.Sleep(time.Minute)
		r := load(strings.ToUpper(id))
		if r.GetAge().AsDuration() != time.Minute || r.TerminatedAge != nil || len(r.GetArchivalKey()) == 0 || !bytes.Equal(r.GetDesc(), h.registration("stdout").GetDesc()) {
			t.Errorf("open: age %v", r.GetAge().AsDuration())
		}
		h.terminate(id, 1)
		time.Sleep(time.Second)
		if r := load(id); r.GetAge().AsDuration() != time.Second || r.GetTerminatedAge().AsDuration() != time.Second || r.GetState().GetTerminalIndex() != 1 {
			t.Errorf("terminated: age %v", r.GetAge().AsDuration())
		}
		h.archive("stdout", 0, 1)
		if r := load(id); !r.GetState().GetArchived() || r.GetStreamUrl() == "" || r.GetIndexUrl() == "" || len(r.GetArchivalKey()) != 0 {
			t.Error("archived: not told")
		}
		_, err := h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: strings.Repeat("0", 64)})
		wantCode(t, "unknown", err, codes.NotFound)
		_, err = h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: id + "0"})
		wantCode(t, "65 digits", err, codes.InvalidArgument)
	})
}

func TestArchiveStream(t *testing.T) {
	h := newHouse(t)
	id := h.register("stdout")
	h.terminate(id, 2)
	for name, test := range map[string]struct {
		change func(*logdog.ArchiveStreamRequest)
		want   codes.Code
	}{
		"id":      {func(r *logdog.ArchiveStreamRequest) { r.Id = "x" }, codes.InvalidArgument},
		"no url":  {func(r *logdog.ArchiveStreamRequest) { r.StreamUrl = "" }, codes.InvalidArgument},
		"count":   {func(r *logdog.ArchiveStreamRequest) { r.LogEntryCount = 9 }, codes.InvalidArgument},
		"missing": {func(r *logdog.ArchiveStreamRequest) { r.Missing = []*logdog.MissingRange{{First: 3, Last: 3}} }, codes.InvalidArgument},
		"unknown": {func(r *logdog.ArchiveStreamRequest) { r.Project = "other" }, codes.NotFound},
	} {
		r := &logdog.ArchiveStreamRequest{Project: project, Id: id, LogEntryCount: 1, TerminalIndex: 2, StreamUrl: "s", IndexUrl: "i"}
		test.change(r)
		_, err := h.Services().ArchiveStream(t.Context(), r)
		wantCode(t, name, err, test.want)
	}
	h.archive("stdout", 0, 1, 2)
	h.archive("stdout", 0) // a second report is ignored
	s, err := h.store.Stream(t.Context(), project, types.StreamID(id))
	if err != nil || s.Archive.EntryCount != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A task's life: due, leased, hidden, back, finished, and another one for what comes after the archive.
func TestTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		due := func() int {
			t.Helper()
			n, err := h.DueTasks(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		finish := func(task *logdog.ArchiveTask) {
			t.Helper()
			if _, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: []*logdog.ArchiveTask{task}}); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(h.lease()); n != 0 || due() != 0 {
			t.Errorf("an open stream has %d tasks", n)
		}
		h.terminate(id, 2)
		if due() != 1 {
			t.Errorf("%d tasks are due", due())
		}
		tasks := h.lease()
		if len(tasks) != 1 || tasks[0].GetId() != id || tasks[0].GetProject() != project || tasks[0].GetRealm() != "local:@legacy" || tasks[0].GetRetryCount() != 0 {
			t.Fatalf("tasks: %v", tasks)
		}
		if n := len(h.lease()); n != 0 || due() != 1 {
			t.Errorf("%d tasks while it is leased, %d due", n, due())
		}
		time.Sleep(time.Minute)
		tasks = h.lease()
		if len(tasks) != 1 || tasks[0].GetRetryCount() != 1 {
			t.Fatalf("after the lease: %v", tasks)
		}
		tasks[0].RetryAfter, tasks[0].RetryReason = seconds(5), "entry 1 is missing"
		finish(tasks[0])
		if n := len(h.lease()); n != 0 || due() != 0 {
			t.Errorf("handed back: %d tasks, %d due", n, due())
		}
		time.Sleep(5 * time.Second)
		tasks = h.lease()
		if len(tasks) != 1 {
			t.Fatal("a task that was handed back is gone")
		}
		h.archive("stdout", 0, 1, 2)
		finish(tasks[0])
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks during the grace period", n)
		}
		time.Sleep(time.Minute)
		tasks = h.lease()
		if len(tasks) != 1 || tasks[0].GetId() != id {
			t.Fatalf("after the grace period: %v", tasks)
		}
		finish(tasks[0])
		finish(tasks[0])
		time.Sleep(72 * time.Hour)
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks after all", n)
		}
	})
}

// A stream whose end is never reported is offered for archival after the limit; its end then makes what was leased before void.
func TestOpenLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		time.Sleep(48 * time.Hour)
		old := h.lease()
		if len(old) != 1 {
			t.Fatalf("tasks: %v", old)
		}
		h.terminate(id, 2)
		now := h.lease()
		if len(now) != 1 || now[0].GetTaskName() == old[0].GetTaskName() {
			t.Fatalf("tasks: %v", now)
		}
		if _, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: old}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(h.lease()); n != 1 {
			t.Errorf("the task was deleted by the holder of the one before")
		}
	})
}

func TestLeaseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		lease := func(wait time.Duration) (int, time.Duration) {
			t.Helper()
			begin := time.Now()
			r, err := h.Services().LeaseArchiveTasks(t.Context(), &logdog.LeaseRequest{MaxTasks: 1, LeaseTime: seconds(30), Wait: durationpb.New(wait)})
			if err != nil {
				t.Fatal(err)
			}
			return len(r.GetTasks()), time.Since(begin)
		}
		if n, d := lease(10 * time.Second); n != 0 || d != 10*time.Second {
			t.Errorf("nothing: %d after %v", n, d)
		}
		id := h.register("stdout")
		time.AfterFunc(3*time.Second, func() { h.terminate(id, 2) })
		if n, d := lease(time.Minute); n != 1 || d != 3*time.Second {
			t.Errorf("woken by a new task: %d after %v", n, d)
		}
		if n, d := lease(time.Minute); n != 1 || d != 30*time.Second {
			t.Errorf("woken by the end of a lease: %d after %v", n, d)
		}
		time.AfterFunc(time.Second, h.Close)
		_, err := h.Services().LeaseArchiveTasks(t.Context(), &logdog.LeaseRequest{MaxTasks: 1, LeaseTime: seconds(30), Wait: seconds(20)})
		wantCode(t, "closing", err, codes.Unavailable)
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *coordinator.Config) { c.Policy.MaxFailures = 3 })
		h.terminate(h.register("leased"), 2)
		leases := 0
		for range 5 {
			leases += len(h.lease())
			time.Sleep(time.Hour)
		}
		if leases != 3 {
			t.Errorf("a task whose holders vanish was leased %d times", leases)
		}
		handBack := func(failed bool) (leases int) {
			for range 5 {
				tasks := h.lease()
				leases += len(tasks)
				for _, task := range tasks {
					task.RetryAfter, task.RetryFailed = seconds(1), failed
				}
				if _, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: tasks}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			return leases
		}
		h.terminate(h.register("waiting"), 2)
		if n := handBack(false); n != 5 {
			t.Errorf("a task that is too early was leased %d times", n)
		}
		if n := handBack(true); n != 3 {
			t.Errorf("a task that fails was leased %d times", n)
		}

		// An Archivist may give up at once. The stream stays readable where it is.
		id := h.register("hopeless")
		h.put("hopeless", 0)
		h.terminate(id, 0)
		tasks := h.lease()
		if _, err := h.Services().ArchiveStream(t.Context(), &logdog.ArchiveStreamRequest{Project: project, Id: id, Error: "no bucket"}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: tasks}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(dayLater)
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks", n)
		}
		s, err := h.store.Stream(t.Context(), project, types.StreamID(id))
		if err != nil || s.Archived() {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// Existing Archivists drop the tasks of streams that they do not want to archive: those that are purged, for one. Such a stream is offered
// again when as much time is over as for one that is silent, so that it is archived after all when it is shown again.
func TestDroppedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		open, ended := h.register("open"), h.register("ended")
		h.terminate(ended, 2)
		h.finish(h.lease())
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks after they were dropped", n)
		}
		time.Sleep(48 * time.Hour)
		again := h.lease()
		ids := make(map[string]bool)
		for _, task := range again {
			ids[task.GetId()] = true
		}
		if !ids[open] || !ids[ended] || len(again) != 2 {
			t.Errorf("streams that are not archived have the tasks %v", again)
		}
	})
}

func TestTaskRefusals(t *testing.T) {
	h := newHouse(t)
	for name, r := range map[string]*logdog.LeaseRequest{
		"no lease time":       {MaxTasks: 1},
		"negative lease time": {MaxTasks: 1, LeaseTime: seconds(-1)},
		"no tasks":            {LeaseTime: seconds(1)},
		"bad wait":            {MaxTasks: 1, LeaseTime: seconds(1), Wait: &durationpb.Duration{Nanos: -1, Seconds: 1}},
	} {
		_, err := h.Services().LeaseArchiveTasks(t.Context(), r)
		wantCode(t, name, err, codes.InvalidArgument)
	}
	for _, name := range []string{"", "0:", "1:2", "x", "0:x"} {
		_, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: []*logdog.ArchiveTask{{TaskName: name}}})
		wantCode(t, name, err, codes.InvalidArgument)
	}
	_, err := h.Services().DeleteArchiveTasks(t.Context(), &logdog.DeleteRequest{Tasks: []*logdog.ArchiveTask{{TaskName: "0:99999"}}})
	wantCode(t, "unknown task", err, codes.OK)
}

func TestBatch(t *testing.T) {
	h := newHouse(t)
	old := h.register("old")
	other := h.registration("x")
	other.Project = "other"
	resp, err := h.Services().Batch(t.Context(), &logdog.BatchRequest{Req: []*logdog.BatchRequest_Entry{
		{Value: &logdog.BatchRequest_Entry_RegisterStream{RegisterStream: h.registration("new")}},
		{Value: &logdog.BatchRequest_Entry_LoadStream{LoadStream: &logdog.LoadStreamRequest{Project: project, Id: old}}},
		{Value: &logdog.BatchRequest_Entry_TerminateStream{TerminateStream: &logdog.TerminateStreamRequest{Project: project, Id: old, Secret: h.secret, TerminalIndex: 1}}},
		{Value: &logdog.BatchRequest_Entry_ArchiveStream{ArchiveStream: &logdog.ArchiveStreamRequest{Project: project, Id: old}}},
		{},
		{Value: &logdog.BatchRequest_Entry_RegisterStream{RegisterStream: other}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[int32]*logdog.BatchResponse_Entry)
	for _, e := range resp.GetResp() {
		got[e.GetIndex()] = e
	}
	if len(got) != 6 || got[0].GetRegisterStream() == nil || got[1].GetLoadStream() == nil || got[2].GetValue() != nil {
		t.Errorf("answers: %d", len(got))
	}
	for i, want := range map[int32]codes.Code{3: codes.InvalidArgument, 4: codes.InvalidArgument, 5: codes.FailedPrecondition} {
		if e := got[i].GetErr(); codes.Code(e.GetGrpcCode()) != want || e.GetTransient() {
			t.Errorf("answer %d: %v", i, e)
		}
	}
	if resp, err := h.Services().Batch(t.Context(), &logdog.BatchRequest{}); err != nil || len(resp.GetResp()) != 0 {
		t.Errorf("empty: %v, %v", resp, err)
	}
}

// A stream whose Butler never came back is ended after the limit, and readers are told that, and of what there is.
func TestAbandonedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *coordinator.Config) { c.Policy.OpenLimit = time.Minute })
		_, v1 := h.serve()
		h.register("stdout")
		h.put("stdout", 0, 1, 2)
		time.Sleep(59 * time.Second)
		if n := len(h.lease()); n != 0 {
			t.Fatalf("%d tasks before the limit", n)
		}
		time.Sleep(time.Second)
		if n := len(h.lease()); n != 1 {
			t.Fatalf("%d tasks at the limit", n)
		}
		h.archive("stdout", 0, 1, 2) // as the archivist does
		s, err := v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: prefix + "/+/stdout"})
		if err != nil {
			t.Fatal(err)
		}
		if s.GetState() != daybookv1.StreamState_INCOMPLETE || s.GetEndReason() == "" {
			t.Errorf("state %v, reason %q", s.GetState(), s.GetEndReason())
		}
	})
}
