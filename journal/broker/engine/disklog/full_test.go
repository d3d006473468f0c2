package disklog

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// TestFailedSync is final: nothing is acknowledged any more, and reads go on.
func TestFailedSync(t *testing.T) {
	disk := vfs.NewMem()
	var failing sync.Map
	l := open(t, "/data", small(vfs.Inject(disk, func(op vfs.Op, name string) (int, error) {
		if _, ok := failing.Load(op); ok && strings.HasPrefix(name, "/data/log") {
			return 0, syscall.EIO
		}
		return 0, nil
	})))
	enginetest.Create(t, l, "test/a")
	enginetest.Must(t, l, "test/a", enginetest.Append("kept"))
	failing.Store(vfs.OpSync, true)
	if _, err := l.Commit(t.Context(), "test/a", enginetest.Append("lost")); !fault.Is(err, fault.Transient) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("append: %v", err)
	}
	failing.Clear()
	for _, content := range []string{"lost", ""} {
		if _, err := l.Commit(t.Context(), "test/a", enginetest.Append(content)); !fault.Is(err, fault.Transient) {
			t.Errorf("a later append: %v", err)
		}
	}
	if err := l.Ready(); err == nil {
		t.Error("the log says that it is ready")
	}
	if got := enginetest.Content(t, l, "test/a"); string(got) != "kept" {
		t.Errorf("content %q", got)
	}
	enginetest.Close(t, l)
}

// TestNoSpace fills the disk. Appends fail as long as it is full, and go on without a restart.
func TestNoSpace(t *testing.T) {
	disk := vfs.NewMem()
	l := open(t, "/data", small(disk))
	enginetest.Create(t, l, "test/a")
	disk.Limit(disk.Used() + 20_000)
	m := model{"test/a": {}}
	var failed int
	for round := range 3 {
		for failed = 0; failed < 5; {
			content := strings.Repeat("x", 10+round)
			a := enginetest.Append(content)
			a.Roll.Length = 3000
			_, err := l.Commit(t.Context(), "test/a", a)
			if err != nil {
				if !fault.Is(err, fault.Transient) || !vfs.IsNoSpace(err) {
					t.Fatalf("append: %v", err)
				}
				failed++
				continue
			}
			j := m["test/a"]
			j.content = append(j.content, content...)
			m["test/a"] = j
		}
		if diff := m.differs(t, l); diff != "" {
			t.Fatal(diff)
		}
		disk.Limit(disk.Used() + 20_000)
	}
	disk.Limit(0)
	enginetest.Close(t, l)
	l = open(t, "/data", small(disk))
	if diff := m.differs(t, l); diff != "" {
		t.Error(diff)
	}
	enginetest.Close(t, l)
}

// place is where on the disk something fails.
type place struct {
	op  vfs.Op // any, if it is empty
	dir string // below /data
}

// placed is a log on a disk of which a place fails as long as failing is set.
type placed struct {
	*Log
	t       *testing.T
	disk    *vfs.Mem
	failing atomic.Bool
	hits    atomic.Int64
	model   model
}

func openPlaced(t *testing.T, p place, err error) *placed {
	l := &placed{t: t, disk: vfs.NewMem(), model: model{"test/a": {}}}
	l.Log = open(t, "/data", small(vfs.Inject(l.disk, func(op vfs.Op, name string) (int, error) {
		takes := op == vfs.OpCreate || op == vfs.OpWrite || op == vfs.OpPreallocate || op == vfs.OpRename
		if !l.failing.Load() || !strings.HasPrefix(name, "/data/"+p.dir) || p.op != op && (p.op != "" || !takes) {
			return 0, nil
		}
		l.hits.Add(1)
		return 10, err // a part of a write is done
	})))
	enginetest.Create(t, l, "test/a")
	return l
}

// append appends in a way; the model has what is acknowledged.
func (l *placed) append(size int, staged bool) error {
	content := strings.Repeat(fmt.Sprint(len(l.model["test/a"].content)%10), size)
	a := enginetest.Append(content)
	a.Roll.Length = 1000
	if staged {
		st, err := l.Stage(l.t.Context())
		if err != nil {
			return err
		}
		defer st.Close()
		if _, err := st.Write(a.Content); err != nil {
			return err
		}
		a.Content, a.Staged = nil, st
	}
	if _, err := l.Commit(l.t.Context(), "test/a", a); err != nil {
		return err
	}
	j := l.model["test/a"]
	j.content = append(j.content, content...)
	l.model["test/a"] = j
	return nil
}

// all appends in every way often enough that segments and fragments end, and returns the errors.
func (l *placed) all() (errs []error) {
	for range 12 {
		errs = append(errs, l.append(150, false), l.append(400, false), l.append(600, true), l.append(3200, true))
	}
	return append(errs, l.checkpoint())
}

func (l *placed) check(what string) {
	l.t.Helper()
	if diff := l.model.differs(l.t, l); diff != "" {
		l.t.Fatalf("%s: %s", what, diff)
	}
}

// A disk that is full wherever it matters makes appends fail, and nothing else: they go on as soon as it is not.
func TestFullPlaces(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "somewhere", Err: syscall.ENOSPC}
	for what, p := range map[string]place{
		"streaming":                {dir: "staging"},
		"the log":                  {op: vfs.OpWrite, dir: "log"},
		"a new segment":            {op: vfs.OpCreate, dir: "log"},
		"a segment used again":     {op: vfs.OpRename, dir: "log"},
		"a checkpoint":             {dir: "checkpoint"},
		"the name of a checkpoint": {op: vfs.OpRename, dir: "checkpoint"},
		"a new fragment":           {op: vfs.OpCreate, dir: "journals"},
		"a fragment":               {op: vfs.OpPreallocate, dir: "journals"},
		"content":                  {op: vfs.OpWrite, dir: "journals"},
		"the end of a fragment":    {op: vfs.OpRename, dir: "journals"},
		"everything":               {},
	} {
		t.Run(what, func(t *testing.T) {
			l := openPlaced(t, p, full)
			for range 3 {
				l.failing.Store(true)
				for _, err := range l.all() {
					if err != nil && !vfs.IsNoSpace(err) {
						t.Errorf("a full disk: %v", err)
					}
				}
				l.check("while the disk is full")
				l.failing.Store(false)
				for _, err := range append(l.all(), l.Ready()) {
					if err != nil {
						t.Fatal(err)
					}
				}
				l.check("after the disk was full")
			}
			if l.hits.Load() == 0 {
				t.Error("nothing has failed")
			}
			crashed := l.disk.Clone()
			enginetest.Close(t, l)
			crashed.PowerLoss(nil)
			for _, d := range []*vfs.Mem{l.disk, crashed} {
				again := open(t, "/data", small(d))
				if diff := l.model.differs(t, again); diff != "" {
					t.Error(diff)
				}
				enginetest.Close(t, again)
			}
		})
	}
}

// A flush that fails, wherever content or the log is flushed, is the end of appends: none is acknowledged any more, they say why,
// and reads go on. A restart finds what was acknowledged.
func TestFailedFlushes(t *testing.T) {
	for what, test := range map[string]struct {
		place place
		fail  func(*placed) error
	}{
		"log":        {place{vfs.OpSync, "log"}, func(l *placed) error { return l.append(10, false) }},
		"content":    {place{vfs.OpSync, "journals"}, func(l *placed) error { return l.append(400, false) }},
		"names":      {place{vfs.OpSyncDir, "journals"}, func(l *placed) error { return l.append(3200, true) }},
		"checkpoint": {place{vfs.OpSync, "journals"}, func(l *placed) error { return errors.Join(l.append(10, false), l.checkpoint()) }},
	} {
		t.Run(what, func(t *testing.T) {
			l := openPlaced(t, test.place, syscall.EIO)
			for _, err := range l.all() {
				if err != nil {
					t.Fatal(err)
				}
			}
			l.failing.Store(true)
			if err := test.fail(l); !errors.Is(err, syscall.EIO) {
				t.Fatalf("the flush fails with %v", err)
			}
			l.failing.Store(false)
			for _, err := range l.all() {
				if !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), "restart") {
					t.Fatalf("after the flush failed: %v", err)
				}
			}
			if err := l.Ready(); err == nil {
				t.Error("the log says that it is ready")
			}
			l.check("after the flush failed")
			enginetest.Close(t, l)
			l.disk.PowerLoss(nil)
			again := open(t, "/data", small(l.disk))
			defer enginetest.Close(t, again)
			if diff := l.model.differs(t, again); diff != "" {
				t.Error(diff)
			}
			enginetest.Must(t, again, "test/a", enginetest.Append("go on"))
		})
	}
}

// Too few file descriptors are no failed flush.
func TestTooManyOpenFiles(t *testing.T) {
	disk := vfs.NewMem()
	few := &fewFiles{FS: disk}
	l := open(t, "/data", small(few))
	for _, name := range []protocol.Journal{"test/a", "test/b", "test/c", "test/d"} {
		enginetest.Create(t, l, name)
		enginetest.Must(t, l, name, enginetest.Append("x")) // of the files only two stay open
	}
	few.none.Store(true)
	if err := l.checkpoint(); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("a checkpoint: %v", err)
	}
	few.none.Store(false)
	enginetest.Must(t, l, "test/a", enginetest.Append("y"))
	if err := errors.Join(l.Ready(), l.checkpoint()); err != nil {
		t.Error(err)
	}
	enginetest.Close(t, l)
}

// fewFiles is a file system that opens no file when there are none left.
type fewFiles struct {
	vfs.FS
	none atomic.Bool
}

func (f *fewFiles) Open(name string) (vfs.File, error) {
	if f.none.Load() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	return f.FS.Open(name)
}
