package coordinator_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// rearchive archives a reopened stream with the given entries.
func (h *house) rearchive(name types.StreamName, url, replaces string, indices ...int) error {
	h.t.Helper()
	path := types.StreamName(prefix).Join(name)
	a := memory.New()
	put(h.t, a, path, indices...)
	h.archives.add("memory:"+string(path)+url, a)
	last := int64(-1)
	if len(indices) > 0 {
		last = int64(indices[len(indices)-1])
	}
	_, err := h.Services().ArchiveStream(h.t.Context(), &logdog.ArchiveStreamRequest{
		Project: project, Id: string(path.ID()), StreamUrl: "memory:" + string(path) + url, IndexUrl: "index" + url, TerminalIndex: last,
		LogEntryCount: int64(len(indices)), ReplacesUrl: replaces,
	})
	return err
}

func (h *house) finish(tasks []*logdog.ArchiveTask) {
	h.t.Helper()
	if _, err := h.Services().DeleteArchiveTasks(h.t.Context(), &logdog.DeleteRequest{Tasks: tasks}); err != nil {
		h.t.Fatal(err)
	}
}

// backend returns what the Coordinator has inside, with other settings.
func (h *house) backend(p backend.Policy, settings *config.Authority) *backend.Backend {
	h.t.Helper()
	b, err := backend.New(h.store, p, settings, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// Entries that come after a stream was archived without them reopen it. Readers see what was archived all the time, and each entry once.
func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		logs, v1 := h.serve()
		path := prefix + "/+/stdout"
		read := func() []int {
			t.Helper()
			r, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: path, NonContiguous: true})
			if err != nil {
				t.Fatal(err)
			}
			return indices(r.GetLogs())
		}
		stateIs := func(want daybookv1.StreamState) {
			t.Helper()
			s, err := v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: path})
			if err != nil || s.GetState() != want {
				t.Errorf("state %v, want %v; %v", s.GetState(), want, err)
			}
		}
		id := h.register("stdout")
		h.put("stdout", 0, 1, 3)
		h.terminate(id, 4)
		h.archive("stdout", 0, 1, 3)
		stateIs(daybookv1.StreamState_INCOMPLETE)
		time.Sleep(time.Minute)
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks: storage is cleared while Collectors may still believe that the stream is open", n)
		}
		time.Sleep(14 * time.Minute)
		clearing := h.lease()
		if len(clearing) != 1 {
			t.Fatalf("tasks %v", clearing)
		}
		_, err := h.Services().RegisterStream(t.Context(), h.registration("stdout"))
		wantCode(t, "while storage is cleared", err, codes.Unavailable)
		h.expunge("stdout")
		h.finish(clearing)

		r, err := h.Services().RegisterStream(t.Context(), h.registration("stdout"))
		if err != nil || r.GetState().GetArchived() || r.GetState().GetTerminalIndex() != 4 {
			t.Fatalf("late entries are told: %v, %v", r.GetState().GetArchived(), err)
		}
		stateIs(daybookv1.StreamState_TERMINATED)
		equal(t, "before they are there", read(), []int{0, 1, 3})
		h.put("stdout", 2)
		equal(t, "when one is there", read(), []int{0, 1, 2, 3})
		h.put("stdout", 3, 4)
		equal(t, "when all are there", read(), []int{0, 1, 2, 3, 4})
		last, err := logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "last", indices(last.GetLogs()), []int{4})

		// Followers get them all, once.
		follow, err := v1.Follow(t.Context(), &daybookv1.FollowRequest{Project: project, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		got, missing, _ := drainFollow(t, follow)
		equal(t, "followed", got, []int{0, 1, 2, 3, 4})
		equal(t, "missing", missing, [][2]int64(nil))

		tasks := h.lease()
		load, err := h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: id})
		if err != nil || len(tasks) != 1 || load.GetState().GetArchived() || load.GetStreamUrl() == "" {
			t.Fatalf("%d tasks, %v, %v", len(tasks), load, err)
		}
		wantCode(t, "an archive that lacks the first one's", h.rearchive("stdout", "", "", 2, 3, 4), codes.FailedPrecondition)
		wantCode(t, "an archive with all", h.rearchive("stdout", "", load.GetStreamUrl(), 0, 1, 2, 3, 4), codes.OK)
		h.finish(tasks)
		stateIs(daybookv1.StreamState_COMPLETE)
		equal(t, "archived again", read(), []int{0, 1, 2, 3, 4})

		// Nothing can come any more.
		r, err = h.Services().RegisterStream(t.Context(), h.registration("stdout"))
		if err != nil || !r.GetState().GetArchived() {
			t.Errorf("repeated entries of a complete stream are told: %v, %v", r.GetState().GetArchived(), err)
		}
	})
}

// What an archive replaced is removed with the entries, and not before.
func TestReplacedArchives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		h.terminate(id, 1)
		replaced := func() (urls []string) {
			t.Helper()
			r, err := h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: id})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range r.GetReplaced() {
				urls = append(urls, o.GetStreamUrl()+" "+o.GetIndexUrl())
			}
			return urls
		}
		wantCode(t, "first", h.rearchive("stdout", "1", "", 0), codes.OK)
		h.register("stdout")
		const first = "memory:user/build/+/stdout1"
		wantCode(t, "second", h.rearchive("stdout", "2", first, 0, 1), codes.OK)
		equal(t, "replaced", replaced(), []string{first + " index1"})
		time.Sleep(15 * time.Minute)
		tasks := h.lease()
		if len(tasks) != 1 {
			t.Fatalf("tasks %v", tasks)
		}
		tasks[0].Removed = true
		h.finish(tasks)
		equal(t, "replaced, after they were removed", replaced(), []string(nil))
	})
}

// A stream that produces is not archived, however long; one that falls silent is, and goes on when it has more to say.
func TestLongRunningStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		for range 10 * 24 {
			time.Sleep(time.Hour)
			h.register("stdout") // as Collectors do every ten minutes
			if n := len(h.lease()); n != 0 {
				t.Fatalf("%d tasks of a stream that produces", n)
			}
		}
		time.Sleep(48 * time.Hour)
		tasks := h.lease()
		if len(tasks) != 1 {
			t.Fatalf("%d tasks of a silent stream", len(tasks))
		}
		wantCode(t, "archive", h.rearchive("stdout", "1", "", 0, 1), codes.OK)
		s, err := h.store.Stream(t.Context(), project, types.StreamID(id))
		if err != nil || s.Phase != state.Incomplete || s.EndReason == "" || s.End.Known {
			t.Fatalf("%+v, %v", s, err)
		}
		h.register("stdout")
		if s, err = h.store.Stream(t.Context(), project, types.StreamID(id)); err != nil || s.Phase != state.Open || s.EndReason != "" || !s.Ended.IsZero() {
			t.Fatalf("%+v, %v", s, err)
		}
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks of a stream that goes on", n)
		}
		h.terminate(id, 3)
		if n := len(h.lease()); n != 1 {
			t.Errorf("%d tasks of a stream that has ended", n)
		}
		wantCode(t, "archive", h.rearchive("stdout", "2", "memory:user/build/+/stdout1", 0, 1, 2, 3), codes.OK)
		if s, err = h.store.Stream(t.Context(), project, types.StreamID(id)); err != nil || s.Phase != state.Complete {
			t.Fatalf("%+v, %v", s, err)
		}
	})
}

// Streams older than their project's retention go, with everything; those that have not ended stay.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		life := h.backend(backend.Policy{}, config.Fixed(&config.Config{Projects: map[types.Project]*config.Project{
			project: {Name: project, Retention: 30 * dayLater},
		}}))
		old, open := h.register("old"), h.register("open")
		h.terminate(old, 0)
		h.archive("old", 0)
		h.registerPrefix("empty")
		h.finish(h.lease())
		exists := func(id string) bool {
			t.Helper()
			_, err := h.Services().LoadStream(t.Context(), &logdog.LoadStreamRequest{Project: project, Id: id})
			return err == nil
		}
		sweep := func() []*logdog.ArchiveTask {
			t.Helper()
			if err := life.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			return slices.DeleteFunc(h.lease(), func(k *logdog.ArchiveTask) bool { return !k.GetRemove() })
		}
		time.Sleep(29 * dayLater)
		h.register("open")
		if tasks := sweep(); len(tasks) != 0 {
			t.Errorf("%d streams are removed before their time", len(tasks))
		}
		time.Sleep(2 * dayLater)
		sweep()
		time.Sleep(15 * time.Minute)
		tasks := sweep()
		if len(tasks) != 1 || tasks[0].GetId() != old {
			t.Fatalf("removals: %v", tasks)
		}
		// A holder that does not know what a removal is does not end it.
		h.finish(tasks)
		if !exists(old) {
			t.Error("removed by somebody who did not do it")
		}
		time.Sleep(time.Hour)
		tasks = sweep()
		tasks[0].Removed = true
		h.finish(tasks)
		if exists(old) || !exists(open) {
			t.Errorf("the old stream exists: %v, the open one: %v", exists(old), exists(open))
		}
		time.Sleep(7 * dayLater) // streams could be registered below it for so long
		h.register("open")
		sweep()
		if _, err := h.store.Prefix(t.Context(), project, "empty"); err == nil {
			t.Error("a prefix without streams is kept for ever")
		}
		if u, err := h.store.Usage(t.Context(), project); err != nil || u != (state.Usage{Prefixes: 1, Streams: 1}) {
			t.Errorf("usage %+v, %v", u, err)
		}
	})
}

// A removal waits for other work on the stream, and takes its place.
func TestRemovalComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		id := h.register("stdout")
		h.terminate(id, 0)
		working := h.lease()
		if len(working) != 1 {
			t.Fatalf("tasks %v", working)
		}
		p, err := h.store.Prefix(t.Context(), project, prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.backend(backend.Policy{RemoveDelay: time.Second}, config.Default()).DeletePrefix(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if n := len(h.lease()); n != 0 {
			t.Fatalf("%d tasks beside one that is worked on", n)
		}
		r, err := h.Services().RegisterStream(t.Context(), h.registration("stdout"))
		if err != nil || !r.GetState().GetPurged() {
			t.Errorf("a Collector is told of the deleted stream: %v, %v", r, err)
		}
		_, err = h.Services().RegisterStream(t.Context(), h.registration("another"))
		wantCode(t, "a new stream", err, codes.FailedPrecondition)
		_, err = h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: prefix})
		wantCode(t, "the prefix again", err, codes.AlreadyExists)
		if err == nil || !strings.Contains(err.Error(), "was deleted") {
			t.Errorf("the name of a prefix that is being removed: %v", err)
		}

		time.Sleep(time.Minute) // it is not heard of any more
		removal := h.lease()
		if len(removal) != 1 || !removal[0].GetRemove() {
			t.Fatalf("tasks %v", removal)
		}
		h.finish(working)
		removal[0].Removed = true
		h.finish(removal)
		if _, err := h.store.Prefix(t.Context(), project, prefix); err == nil {
			t.Error("the prefix is still there")
		}
		h.registerPrefix(prefix)
	})
}

// A purge can be taken back until the removal has begun; the life of the stream then goes on where it was.
func TestPurgeIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		life := h.backend(backend.Policy{}, config.Default())
		id := h.register("stdout")
		load := func() *state.Stream {
			t.Helper()
			s, err := h.store.Stream(t.Context(), project, types.StreamID(id))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		changed, until, err := life.Purge(t.Context(), load())
		if err != nil || !changed || time.Until(until) != 7*dayLater {
			t.Fatalf("purge: %v, until %v, %v", changed, until, err)
		}
		if changed, _, err = life.Purge(t.Context(), load()); err != nil || changed {
			t.Errorf("purge again: %v, %v", changed, err)
		}
		// Its end comes while it is hidden, and is not forgotten.
		h.terminate(id, 0)
		if n := len(h.lease()); n != 0 {
			t.Errorf("%d tasks of a purged stream", n)
		}
		if changed, err = life.Undelete(t.Context(), load()); err != nil || !changed {
			t.Fatalf("undelete: %v, %v", changed, err)
		}
		tasks := h.lease()
		if len(tasks) != 1 || tasks[0].GetRemove() {
			t.Fatalf("tasks %v", tasks)
		}
		h.archive("stdout", 0)
		h.finish(tasks)

		if _, _, err = life.Purge(t.Context(), load()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * dayLater)
		tasks = h.lease()
		if len(tasks) != 1 || !tasks[0].GetRemove() {
			t.Fatalf("tasks %v", tasks)
		}
		if _, err = life.Undelete(t.Context(), load()); !fault.Is(err, fault.Precondition) {
			t.Errorf("undelete of what is being removed: %v", err)
		}
	})
}

// What was deleted halfway, because a process died, is deleted by the next sweep.
func TestDeletionIsResumed(t *testing.T) {
	h := newHouse(t)
	h.register("a")
	err := h.store.Update(t.Context(), func(tx state.Tx) error {
		p, err := tx.Prefix(project, prefix)
		if err != nil {
			return err
		}
		p.Delete(time.Now().UTC().Round(time.Microsecond))
		return tx.PutPrefix(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.backend(backend.Policy{}, config.Default()).Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	tasks, err := h.store.Tasks(t.Context(), state.TaskQuery{Limit: 10})
	if err != nil || !slices.ContainsFunc(tasks, func(k *state.Task) bool { return k.Kind == state.RemoveTask }) {
		t.Errorf("tasks %v, %v", tasks, err)
	}
}

// An archivist of old that reports a failure without addresses is understood: the stream is read where it is, and an operator sees the task.
func TestFailureReport(t *testing.T) {
	h := newHouse(t)
	logs, _ := h.serve()
	id := h.register("stdout")
	h.put("stdout", 0, 1)
	h.terminate(id, 1)
	tasks := h.lease()
	_, err := h.Services().ArchiveStream(t.Context(), &logdog.ArchiveStreamRequest{Project: project, Id: id, Error: "no bucket"})
	wantCode(t, "report", err, codes.OK)
	h.finish(tasks)
	r, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: prefix + "/+/stdout", State: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "entries", indices(r.GetLogs()), []int{0, 1})
	if s := r.GetState(); s.GetArchive() != nil || s.GetTerminalIndex() != 1 {
		t.Errorf("state %v", s)
	}
	dead, err := h.store.Tasks(t.Context(), state.TaskQuery{Dead: true, Limit: 9})
	if err != nil || len(dead) != 1 || !strings.Contains(dead[0].LastError, "no bucket") {
		t.Errorf("dead tasks %v, %v", dead, err)
	}
	var left int
	key := storage.Stream{Project: project, Path: prefix + "/+/stdout"}
	if err := h.storage.Get(t.Context(), storage.GetRequest{Stream: key}, func(storage.Entry) bool { left++; return true }); err != nil || left != 2 {
		t.Errorf("%d entries are left, %v", left, err)
	}
}
