// Package statetest is the test body that every state.Store passes.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Run tests stores. open returns a store; the same one's content if it is given the same name again, after that one was closed.
func Run(t *testing.T, open func(t *testing.T, name string) state.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"round trip", roundTrip},
		{"undo", undo},
		{"find streams", findStreams},
		{"find among many", findAmongMany},
		{"find what is large", findLarge},
		{"find prefixes", findPrefixes},
		{"tasks", tasks},
		{"deletion", deletion},
		{"oldest", oldest},
		{"folders", listFolders},
		{"usage", usage},
		{"quotas", quotas},
		{"operator's tasks", operatorsTasks},
		{"leases", leases},
		{"tokens", tokens},
		{"watch", watch},
		{"concurrency", concurrency},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{Store: open(t, t.Name()), t: t}
			f.reopen = func() {
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				f.Store = open(t, t.Name())
			}
			test.run(t, f)
			if err := f.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := f.Update(t.Context(), func(state.Tx) error { return nil }); !errors.Is(err, state.ErrClosed) {
				t.Errorf("Update after Close: %v", err)
			}
			if _, err := f.Projects(t.Context()); !errors.Is(err, state.ErrClosed) {
				t.Errorf("Projects after Close: %v", err)
			}
		})
	}
}

// now is a time with the precision that stores keep.
var now = time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC)

type fixture struct {
	state.Store
	t      *testing.T
	reopen func()
}

func (f *fixture) update(fn func(state.Tx) error) {
	f.t.Helper()
	if err := f.Update(f.t.Context(), fn); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) addPrefix(project types.Project, prefix types.StreamName) *state.Prefix {
	f.t.Helper()
	p := &state.Prefix{
		Project: project, Prefix: prefix, Realm: "@legacy", Secret: types.NewPrefixSecret(), OpNonce: []byte("nonce"),
		Source: []string{"a test", "GOOS=x"}, Created: now, Expires: now.Add(time.Hour),
	}
	f.update(func(tx state.Tx) error { return tx.AddPrefix(p) })
	return p
}

func newStream(p *state.Prefix, name types.StreamName) *state.Stream {
	return &state.Stream{
		Prefix: p, ID: p.Prefix.Join(name).ID(), Name: name, ProtoVersion: "1", Descriptor: []byte("descriptor of " + name),
		Created: now, Updated: now,
	}
}

func (f *fixture) addStream(p *state.Prefix, name types.StreamName) *state.Stream {
	f.t.Helper()
	s := newStream(p, name)
	f.update(func(tx state.Tx) error { return tx.AddStream(s) })
	return s
}

func (f *fixture) equal(got, want any) {
	f.t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("(-want +got):\n%s", diff)
	}
}

func roundTrip(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a/b")
	s := f.addStream(p, "stdout")
	check := func() {
		t.Helper()
		gotPrefix, err := f.Prefix(t.Context(), "local", "a/b")
		if err != nil {
			t.Fatal(err)
		}
		f.equal(gotPrefix, p)
		gotStream, err := f.Stream(t.Context(), "local", s.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.equal(gotStream, s)
		f.update(func(tx state.Tx) error {
			gotStream, err := tx.Stream("local", s.ID)
			f.equal(gotStream, s)
			return err
		})
	}
	check()

	raw, err := proto.Marshal(&logpb.LogStreamDescriptor{Name: "stdout"})
	if err != nil {
		t.Fatal(err)
	}
	s.Descriptor = raw
	note := state.Note{Reason: "killed", Tags: map[string]string{"k": "v"}}
	if _, err := s.Terminate(now.Add(time.Second), state.End{Known: true, Index: 9}, note); err != nil {
		t.Fatal(err)
	}
	f.update(func(tx state.Tx) error { return tx.PutStream(s) })
	check()

	a := state.Archive{
		StreamURL: "file:///s", IndexURL: "file:///i", StreamSize: 1 << 40, IndexSize: 7, LastIndex: 8, EntryCount: 8, ContentSize: 5, Lines: 6,
	}
	if _, err := s.SetArchive(now.Add(time.Minute), a, []state.Range{{First: 3, Last: 3}}, ""); err != nil {
		t.Fatal(err)
	}
	s.Purged = now.Add(time.Hour)
	f.update(func(tx state.Tx) error { return tx.PutStream(s) })
	f.equal(s.Missing, []state.Range{{First: 3, Last: 3}, {First: 9, Last: 9}})
	check()
	f.reopen()
	check()

	registered := func(project types.Project, prefix types.StreamName, id types.StreamID) (*state.Prefix, *state.Stream) {
		t.Helper()
		p, s, err := f.Registered(t.Context(), project, prefix, id)
		if err != nil {
			t.Fatal(err)
		}
		return p, s
	}
	gotPrefix, gotStream := registered("local", "a/b", s.ID)
	f.equal(gotPrefix, p)
	f.equal(gotStream, s)
	gotPrefix, gotStream = registered("local", "a/b", newStream(p, "other").ID)
	f.equal(gotPrefix, p)
	f.equal(gotStream, (*state.Stream)(nil))
	gotPrefix, gotStream = registered("local", "a", newStream(p, "other").ID)
	f.equal(gotPrefix, (*state.Prefix)(nil))
	f.equal(gotStream, (*state.Stream)(nil))

	// The same names in another project are other things, and a name is taken once.
	if _, err := f.Prefix(t.Context(), "other", "a/b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("prefix of another project: %v", err)
	}
	if _, err := f.Stream(t.Context(), "other", s.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("stream of another project: %v", err)
	}
	f.addStream(f.addPrefix("other", "a/b"), "stdout")
	if err := f.Update(t.Context(), func(tx state.Tx) error { return tx.AddStream(newStream(p, "stdout")) }); !fault.Is(err, fault.Exists) {
		t.Errorf("a stream was added twice: %v", err)
	}
	projects, err := f.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.equal(projects, []types.Project{"local", "other"})
}

func undo(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	stop := errors.New("stop")
	err := f.Update(t.Context(), func(tx state.Tx) error {
		s := newStream(p, "s")
		if err := tx.AddStream(s); err != nil {
			return err
		}
		if err := tx.AddTask(&state.Task{Stream: s, Available: now}); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("Update: %v", err)
	}
	if _, err := f.Stream(t.Context(), "local", newStream(p, "s").ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("stream of an update that failed: %v", err)
	}
	if _, ok, err := f.NextTask(t.Context()); ok || err != nil {
		t.Errorf("task of an update that failed: %v, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Update(ctx, func(tx state.Tx) error { return tx.AddStream(newStream(p, "s")) }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update of a caller that went away: %v", err)
	}
}

func findPrefixes(t *testing.T, f *fixture) {
	for _, prefix := range []types.StreamName{"a", "a/b", "b"} {
		f.addPrefix("local", prefix)
	}
	f.addPrefix("other", "a")
	find := func(q state.PrefixQuery, pattern string) (names []types.StreamName, last state.Position) {
		t.Helper()
		q.Project, q.Prefix = "local", f.pattern(pattern)
		found, err := f.FindPrefixes(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			names, last = append(names, p.Prefix), p.Position()
		}
		return names, last
	}
	got, last := find(state.PrefixQuery{Limit: 2}, "")
	f.equal(got, []types.StreamName{"b", "a/b"})
	got, _ = find(state.PrefixQuery{After: last, Limit: 2}, "")
	f.equal(got, []types.StreamName{"a"})
	got, _ = find(state.PrefixQuery{Limit: 9}, "a/**")
	f.equal(got, []types.StreamName{"a/b", "a"})
	got, _ = find(state.PrefixQuery{Limit: 9}, "b")
	f.equal(got, []types.StreamName{"b"})

	// By time.
	late := &state.Prefix{Project: "local", Prefix: "late", Created: now.Add(time.Hour), Expires: now}
	f.update(func(tx state.Tx) error { return tx.AddPrefix(late) })
	got, _ = find(state.PrefixQuery{Since: now.Add(time.Minute), Limit: 9}, "")
	f.equal(got, []types.StreamName{"late"})
	got, _ = find(state.PrefixQuery{Until: now.Add(time.Minute), Limit: 9}, "a**")
	f.equal(got, []types.StreamName{"a/b", "a"})
	got, _ = find(state.PrefixQuery{Since: now, Until: now.Add(time.Hour), Limit: 9}, "late")
	f.equal(got, []types.StreamName(nil))

	late.Delete(now)
	f.update(func(tx state.Tx) error { return tx.PutPrefix(late) })
	for _, pattern := range []string{"", "late", "l*"} {
		if got, _ = find(state.PrefixQuery{Limit: 9}, pattern); slices.Contains(got, "late") {
			t.Errorf("%q finds a prefix that was deleted", pattern)
		}
	}
}

func tasks(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	var all []*state.Task
	for i := range 3 {
		s := f.addStream(p, types.StreamName(fmt.Sprint("s", i)))
		all = append(all, &state.Task{Stream: s, Kind: state.ArchiveTask, Available: now.Add(time.Duration(3-i) * time.Minute)})
		f.update(func(tx state.Tx) error { return tx.AddTask(all[i]) })
	}
	available := func(at time.Duration, limit int) (got []*state.Task) {
		t.Helper()
		f.update(func(tx state.Tx) (err error) {
			got, err = tx.AvailableTasks(now.Add(at), limit)
			return err
		})
		return got
	}
	pending := func(at time.Duration) int {
		t.Helper()
		n, err := f.PendingTasks(t.Context(), now.Add(at))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	next, ok, err := f.NextTask(t.Context())
	if err != nil || !ok || !next.Equal(now.Add(time.Minute)) {
		t.Errorf("NextTask = %v, %v, %v", next, ok, err)
	}
	f.equal(available(0, 9), []*state.Task(nil))
	f.equal(available(2*time.Minute, 9), []*state.Task{all[2], all[1]})
	f.equal(available(9*time.Minute, 1), []*state.Task{all[2]})
	f.equal(pending(2*time.Minute), 2)

	// A leased task is hidden, and still pending.
	all[2].Lease(now.Add(10 * time.Minute))
	all[2].LastError = "because"
	f.update(func(tx state.Tx) error { return tx.PutTask(all[2]) })
	f.equal(available(2*time.Minute, 9), []*state.Task{all[1]})
	f.equal(pending(2*time.Minute), 2)
	f.equal(available(10*time.Minute, 9), []*state.Task{all[1], all[0], all[2]})

	// A dead one is kept and no longer available.
	all[1].Bury(now, "hopeless")
	f.update(func(tx state.Tx) error { return tx.PutTask(all[1]) })
	f.equal(available(2*time.Minute, 9), []*state.Task(nil))
	f.equal(pending(2*time.Minute), 1)
	f.update(func(tx state.Tx) error {
		got, err := tx.TaskBySeq(all[1].Seq)
		f.equal(got, all[1])
		return err
	})

	f.update(func(tx state.Tx) error {
		got, err := tx.Task(all[0].Stream, state.ArchiveTask)
		f.equal(got, all[0])
		return err
	})
	f.update(func(tx state.Tx) error {
		got, err := tx.Task(all[0].Stream, state.ExpungeTask)
		f.equal(got, (*state.Task)(nil))
		return err
	})
	// One of a kind, and numbers are not used again.
	if err := f.Update(t.Context(), func(tx state.Tx) error { return tx.AddTask(&state.Task{Stream: all[2].Stream, Available: now}) }); err == nil {
		t.Error("a second task of a kind was added")
	}
	again := &state.Task{Stream: all[2].Stream, Available: now}
	f.update(func(tx state.Tx) error {
		if err := tx.DeleteTask(all[2]); err != nil {
			return err
		}
		return tx.AddTask(again)
	})
	if again.Seq <= all[2].Seq {
		t.Errorf("task %d came after task %d", again.Seq, all[2].Seq)
	}
	f.update(func(tx state.Tx) error {
		got, err := tx.TaskBySeq(all[2].Seq)
		f.equal(got, (*state.Task)(nil))
		return err
	})
}

func watch(t *testing.T, f *fixture) {
	p := f.addPrefix("local", "a")
	s := newStream(p, "s")
	streamChanged, stop := f.WatchStream("local", s.ID)
	defer stop()
	otherChanged, stopOther := f.WatchStream("other", s.ID)
	defer stopOther()
	tasksChanged, stopTasks := f.WatchTasks()
	defer stopTasks()
	f.update(func(tx state.Tx) error { return tx.AddStream(s) })
	<-streamChanged
	select {
	case <-tasksChanged:
		t.Error("woken without a task")
	case <-otherChanged:
		t.Error("woken by another project")
	default:
	}
	f.update(func(tx state.Tx) error {
		if err := tx.PutStream(s); err != nil {
			return err
		}
		return tx.AddTask(&state.Task{Stream: s, Available: now})
	})
	<-streamChanged
	<-tasksChanged
	_ = f.Update(t.Context(), func(tx state.Tx) error { return errors.Join(tx.PutStream(s), errors.New("stop")) })
	select {
	case <-streamChanged:
		t.Error("woken by an update that failed")
	default:
	}
}

// concurrency has many callers change one stream and add their own, some of which fail.
func concurrency(t *testing.T, f *fixture) {
	const callers = 100
	p := f.addPrefix("local", "a")
	shared := f.addStream(p, "shared")
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			err := f.Update(t.Context(), func(tx state.Tx) error {
				s, err := tx.Stream("local", shared.ID)
				if err != nil {
					return err
				}
				s.Archive.Lines++
				if err := tx.PutStream(s); err != nil {
					return err
				}
				if i%10 == 0 {
					return fault.New(fault.Precondition, "stop")
				}
				return tx.AddStream(newStream(p, types.StreamName(fmt.Sprint("own", i))))
			})
			if failed := i%10 == 0; failed != fault.Is(err, fault.Precondition) || !failed && err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s, err := f.Stream(t.Context(), "local", shared.ID)
	if err != nil || s.Archive.Lines != callers*9/10 {
		t.Errorf("%d changes were kept, %v", s.Archive.Lines, err)
	}
	all, _, err := f.FindStreams(t.Context(), state.StreamQuery{Project: "local", Limit: 1000})
	if err != nil || len(all) != 1+callers*9/10 {
		t.Errorf("%d streams, %v", len(all), err)
	}
}
