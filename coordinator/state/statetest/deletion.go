package statetest

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

func deletion(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a/b")
	raw, err := proto.Marshal(&logpb.LogStreamDescriptor{Tags: map[string]string{"k": "v"}, ContentType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	s, other := newStream(p, "s"), newStream(p, "t")
	s.Descriptor = raw
	f.update(func(tx state.Tx) error {
		if err := tx.AddStream(s); err != nil {
			return err
		}
		if err := tx.AddTask(&state.Task{Stream: s, Kind: state.RemoveTask, Available: now}); err != nil {
			return err
		}
		return tx.AddStream(other)
	})
	// A purged stream is what it was, hidden.
	s.Purge(now.Add(time.Minute))
	s.Replaced = []state.Objects{{StreamURL: "file:///old", IndexURL: "file:///old.index"}}
	f.update(func(tx state.Tx) error { return tx.PutStream(s) })
	got, err := f.Stream(t.Context(), "local", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.equal(got, s)
	found := func(purged bool) int {
		t.Helper()
		found, _, err := f.FindStreams(t.Context(), state.StreamQuery{Project: "local", Purged: purged, Limit: 9})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	f.equal([]int{found(false), found(true)}, []int{1, 2})

	// A prefix with streams stays; deleted, it hides them.
	f.update(func(tx state.Tx) error {
		deleted, err := tx.DeletePrefix(p)
		f.equal(deleted, false)
		return err
	})
	p.Delete(now.Add(2 * time.Minute))
	f.update(func(tx state.Tx) error { return tx.PutPrefix(p) })
	gotPrefix, err := f.Prefix(t.Context(), "local", "a/b")
	if err != nil {
		t.Fatal(err)
	}
	f.equal(gotPrefix, p)
	f.equal([]int{found(false), found(true)}, []int{0, 2})
	gone, err := f.DeletedPrefixes(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	f.equal(gone, []*state.Prefix{p})

	// A deletion that fails deletes nothing.
	_ = f.Update(t.Context(), func(tx state.Tx) error {
		if err := tx.DeleteStream(s); err != nil {
			return err
		}
		return fault.New(fault.Precondition, "stop")
	})
	f.equal(found(true), 2)
	f.update(func(tx state.Tx) error { return tx.DeleteStream(s) })
	f.equal(found(true), 1)
	if _, err := f.Stream(t.Context(), "local", s.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted stream: %v", err)
	}
	if _, ok, err := f.NextTask(t.Context()); ok || err != nil {
		t.Errorf("the task of a deleted stream: %v, %v", ok, err)
	}
	f.update(func(tx state.Tx) error { return tx.DeleteStream(other) })
	f.update(func(tx state.Tx) error {
		deleted, err := tx.DeletePrefix(p)
		f.equal(deleted, true)
		return err
	})
	if _, err := f.Prefix(t.Context(), "local", "a/b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted prefix: %v", err)
	}
	// The names are free again, and nothing of before is found with the new.
	f.addStream(f.addPrefix("local", "a/b"), "s")
	again, _, err := f.FindStreams(t.Context(), state.StreamQuery{Project: "local", Tags: map[string]string{"k": ""}, Purged: true, Limit: 9})
	if err != nil || len(again) != 0 {
		t.Errorf("%d streams have a tag that only a deleted one had; %v", len(again), err)
	}
}

func oldest(t *testing.T, f *fixture) {
	p, empty := f.addPrefix("local", "a"), f.addPrefix("local", "b")
	f.addPrefix("other", "b")
	var all []*state.Stream
	for i := range 6 {
		s := newStream(p, types.StreamName(fmt.Sprint("s", i)))
		s.Created = now.Add(time.Duration(i) * time.Minute)
		if i != 2 { // one goes on
			if _, err := s.Terminate(s.Created.Add(time.Minute), state.End{Known: true}, state.Note{}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			s.Purge(now)
		}
		f.update(func(tx state.Tx) error { return tx.AddStream(s) })
		all = append(all, s)
	}
	list := func(q state.OldestQuery) []*state.Stream {
		t.Helper()
		q.Project, q.Limit = "local", 2
		var found []*state.Stream
		for {
			page, err := f.OldestStreams(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return found
			}
			found, q.After = append(found, page...), page[len(page)-1].Position()
		}
	}
	f.equal(list(state.OldestQuery{Prefix: p}), []*state.Stream{all[0], all[2], all[3], all[4], all[5]})
	f.equal(list(state.OldestQuery{Prefix: p, Purged: true}), all)
	f.equal(list(state.OldestQuery{Before: now.Add(6 * time.Minute)}), []*state.Stream{all[0], all[3], all[4]})
	f.equal(list(state.OldestQuery{Before: now}), []*state.Stream(nil))

	prefixes, err := f.EmptyPrefixes(t.Context(), "local", now.Add(2*time.Hour), state.Position{}, 9)
	if err != nil {
		t.Fatal(err)
	}
	f.equal(prefixes, []*state.Prefix{empty})
	for _, q := range []struct {
		before time.Time
		after  state.Position
	}{{now, state.Position{}}, {now.Add(2 * time.Hour), empty.Position()}} {
		if prefixes, err = f.EmptyPrefixes(t.Context(), "local", q.before, q.after, 9); err != nil || len(prefixes) != 0 {
			t.Errorf("%d empty prefixes, %v", len(prefixes), err)
		}
	}
}

func listFolders(t *testing.T, f *fixture) {
	var prefixes []*state.Prefix
	deep := types.StreamName("deep")
	for range 20 {
		deep += "/x"
	}
	for i, name := range []types.StreamName{"ci", "ci/linux/1", "ci/linux/2", "ci/mac/1", "dev", deep} {
		p := f.addPrefix("local", name)
		prefixes = append(prefixes, p)
		for k := range i {
			s := newStream(p, types.StreamName(fmt.Sprint("s", k)))
			s.Created = now.Add(time.Duration(10*i+k) * time.Minute)
			f.update(func(tx state.Tx) error { return tx.AddStream(s) })
		}
	}
	f.addPrefix("other", "elsewhere")
	list := func(parent types.StreamName) (all []state.Folder) {
		t.Helper()
		q := state.FolderQuery{Project: "local", Parent: parent, Limit: 2}
		for {
			page, err := f.Folders(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return all
			}
			all, q.After = append(all, page...), page[len(page)-1].Name
		}
	}
	minute := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
	f.equal(list(""), []state.Folder{
		{Name: "ci", Path: "ci", Streams: 6, Newest: minute(32), Prefix: true, Folders: true},
		{Name: "deep", Path: "deep", Streams: 5, Newest: minute(54), Folders: true},
		{Name: "dev", Path: "dev", Streams: 4, Newest: minute(43), Prefix: true},
	})
	f.equal(list("ci"), []state.Folder{
		{Name: "linux", Path: "ci/linux", Streams: 3, Newest: minute(21), Folders: true},
		{Name: "mac", Path: "ci/mac", Streams: 3, Newest: minute(32), Folders: true},
	})
	f.equal(list("nothing"), []state.Folder(nil))

	// Folders go with what was in them.
	remove := func(p *state.Prefix) {
		t.Helper()
		streams, err := f.OldestStreams(t.Context(), state.OldestQuery{Prefix: p, Limit: 99})
		if err != nil {
			t.Fatal(err)
		}
		f.update(func(tx state.Tx) error {
			for _, s := range streams {
				if err := tx.DeleteStream(s); err != nil {
					return err
				}
			}
			deleted, err := tx.DeletePrefix(p)
			f.equal(deleted, true)
			return err
		})
	}
	remove(prefixes[3])
	remove(prefixes[1])
	f.equal(list("ci"), []state.Folder{{Name: "linux", Path: "ci/linux", Streams: 2, Newest: minute(21), Folders: true}})
	remove(prefixes[2])
	f.equal(list("ci"), []state.Folder(nil))
	remove(prefixes[5])
	f.equal(list("")[0], state.Folder{Name: "ci", Path: "ci", Prefix: true})
	remove(prefixes[0])
	remove(prefixes[4])
	f.addPrefix("local", "z")
	for _, folder := range list("") {
		if folder.Name == "ci" || folder.Name == "dev" {
			t.Errorf("folder %s is there, and nothing in it", folder.Name)
		}
	}
}

func usage(t *testing.T, f *fixture) {
	equal := func(project types.Project, want state.Usage) {
		t.Helper()
		got, err := f.Usage(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		f.equal(got, want)
	}
	equal("local", state.Usage{})
	p := f.addPrefix("local", "a")
	s := f.addStream(p, "s")
	other := f.addStream(p, "t")
	f.addStream(f.addPrefix("other", "a"), "s")
	equal("local", state.Usage{Prefixes: 1, Streams: 2})
	archive := func(entries int64) {
		t.Helper()
		f.update(func(tx state.Tx) error {
			s, err := tx.Stream("local", s.ID)
			if err != nil {
				return err
			}
			s.Archive = state.Archive{At: now, EntryCount: entries, ContentSize: 100, StreamSize: 10, IndexSize: 1}
			return tx.PutStream(s)
		})
	}
	archive(5)
	archive(7)
	equal("local", state.Usage{Prefixes: 1, Streams: 2, Archived: state.Volume{Entries: 7, ContentSize: 100, StoredSize: 11}})
	equal("other", state.Usage{Prefixes: 1, Streams: 1})
	f.update(func(tx state.Tx) error {
		s, err := tx.Stream("local", s.ID)
		if err != nil {
			return err
		}
		if err := tx.DeleteStream(s); err != nil {
			return err
		}
		if err := tx.DeleteStream(other); err != nil {
			return err
		}
		_, err = tx.DeletePrefix(p)
		return err
	})
	equal("local", state.Usage{})
}

func operatorsTasks(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	var tasks []*state.Task
	for i := range 5 {
		k := &state.Task{Stream: f.addStream(p, types.StreamName(fmt.Sprint("s", i))), Available: now}
		f.update(func(tx state.Tx) error { return tx.AddTask(k) })
		if i%2 == 1 {
			k.Bury(now, "hopeless")
			f.update(func(tx state.Tx) error { return tx.PutTask(k) })
		}
		tasks = append(tasks, k)
	}
	list := func(q state.TaskQuery) []*state.Task {
		t.Helper()
		found, err := f.Tasks(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	f.equal(list(state.TaskQuery{Limit: 3}), tasks[:3])
	f.equal(list(state.TaskQuery{After: tasks[2].Seq, Limit: 3}), tasks[3:])
	f.equal(list(state.TaskQuery{Dead: true, Limit: 9}), []*state.Task{tasks[1], tasks[3]})
	f.equal(list(state.TaskQuery{Dead: true, After: tasks[1].Seq, Limit: 9}), []*state.Task{tasks[3]})
}
