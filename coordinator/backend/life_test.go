package backend

import (
	"testing"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
)

// A stream goes through everything that can happen to one, on both databases.
func TestLife(t *testing.T) {
	onBoth(t, Policy{ExpungeGrace: time.Millisecond, RemoveDelay: 2 * time.Millisecond}, func(t *testing.T, b *Backend) {
		p := addPrefix(t, b, "a/b")
		register := func() *state.Stream {
			t.Helper()
			s, err := b.Register(t.Context(), Registration{
				Project: "local", Prefix: "a/b", Name: "s", Secret: p.Secret, ProtoVersion: "1", Descriptor: []byte{},
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := register()
		load := func(phase state.Phase) {
			t.Helper()
			now, err := b.store.Stream(t.Context(), "local", s.ID)
			if err != nil || now.Phase != phase {
				t.Fatalf("%+v, want %v; %v", now, phase, err)
			}
			s = now
		}
		lease := func(kind state.TaskKind) *state.Task {
			t.Helper()
			tasks, err := b.Lease(t.Context(), 10, time.Hour, testkit.Patience)
			if err != nil || len(tasks) != 1 || tasks[0].Kind != kind {
				t.Fatalf("leased %v, want to %v; %v", tasks, kind, err)
			}
			return tasks[0]
		}
		finish := func(k *state.Task) {
			t.Helper()
			if err := b.Finish(t.Context(), []Done{{Seq: k.Seq, Removed: true}}); err != nil {
				t.Fatal(err)
			}
		}
		archive := func(url, replaces string, last types.MessageIndex, count int64) error {
			return b.Archive(t.Context(), "local", s.ID, state.Archive{StreamURL: url, IndexURL: url, LastIndex: last, EntryCount: count, ContentSize: 7}, nil, replaces)
		}

		if err := b.Terminate(t.Context(), "local", s.ID, p.Secret, state.End{Known: true, Index: 2}, state.Note{}); err != nil {
			t.Fatal(err)
		}
		load(state.Terminated)
		lease(state.ArchiveTask)
		if err := archive("first", "", 2, 2); err != nil {
			t.Fatal(err)
		}
		load(state.Incomplete)
		expunge := lease(state.ExpungeTask)
		if _, err := b.Register(t.Context(), Registration{Project: "local", Prefix: "a/b", Name: "s", Secret: p.Secret}); !fault.Is(err, fault.Transient) {
			t.Errorf("entries come while storage is cleared: %v", err)
		}
		finish(expunge)

		s = register()
		load(state.Terminated)
		archiving := lease(state.ArchiveTask)
		if err := archive("second", "", 2, 3); !fault.Is(err, fault.Precondition) {
			t.Errorf("an archive without the first one's entries: %v", err)
		}
		if err := archive("second", "first", 2, 3); err != nil {
			t.Fatal(err)
		}
		finish(archiving) // overtaken
		load(state.Complete)
		if len(s.Replaced) != 1 {
			t.Errorf("replaced: %v", s.Replaced)
		}
		finish(lease(state.ExpungeTask))
		if load(state.Complete); len(s.Replaced) != 0 {
			t.Errorf("replaced, after it was removed: %v", s.Replaced)
		}
		if u, err := b.store.Usage(t.Context(), "local"); err != nil || u.Archived.Entries != 3 || u.Archived.ContentSize != 7 {
			t.Errorf("usage %+v, %v", u, err)
		}

		if n, _, err := b.PurgePrefix(t.Context(), p); err != nil || n != 1 {
			t.Errorf("purged %d, %v", n, err)
		}
		if n, err := b.UndeletePrefix(t.Context(), p); err != nil || n != 1 {
			t.Errorf("taken back %d, %v", n, err)
		}
		if err := b.DeletePrefix(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := b.DeletePrefix(t.Context(), p); !fault.Is(err, fault.NotFound) {
			t.Errorf("deleted again: %v", err)
		}
		finish(lease(state.RemoveTask))
		if _, err := b.store.Prefix(t.Context(), "local", "a/b"); !fault.Is(err, fault.NotFound) {
			t.Errorf("the prefix, after its last stream was removed: %v", err)
		}
		if u, err := b.store.Usage(t.Context(), "local"); err != nil || u != (state.Usage{}) {
			t.Errorf("usage in the end %+v, %v", u, err)
		}
		if err := b.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
