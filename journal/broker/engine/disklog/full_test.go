package disklog

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
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
