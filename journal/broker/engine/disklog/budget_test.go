package disklog_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// budgeted is a log with a journal, on a disk whose free space a test sets.
type budgeted struct {
	*disklog.Log
	t    *testing.T
	free atomic.Int64
}

const diskSize = 1 << 40

func openBudgeted(t *testing.T, dir string, b disklog.Budget) *budgeted {
	l := &budgeted{t: t}
	l.free.Store(diskSize)
	var err error
	l.Log, err = disklog.Open(t.Context(), dir, disklog.Options{
		SegmentSize: 1 << 20,
		Budget:      b,
		Space:       func(string) (vfs.Space, error) { return vfs.Space{Free: l.free.Load(), Total: diskSize}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := &protocol.JournalSpec{Name: "a/journal", Replication: 1, Fragment: &protocol.JournalSpec_Fragment{
		Length: 1 << 20, CompressionCodec: protocol.CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Hour),
	}}
	if l.Specs().Get("a/journal") == nil {
		if _, err := l.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Upsert: spec}}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *budgeted) close() {
	if err := l.Close(context.WithoutCancel(l.t.Context())); err != nil {
		l.t.Error(err)
	}
}

func (l *budgeted) append(n int) error {
	_, err := l.Commit(l.t.Context(), "a/journal", &engine.Append{
		Content: make([]byte, n), Now: time.Now(), Roll: engine.RollPolicy{Length: 1 << 20, Codec: protocol.CompressionCodec_NONE},
	})
	return err
}

func (l *budgeted) stage(n int) error {
	st, err := l.Stage(l.t.Context())
	if err != nil {
		return err
	}
	_, err = st.Write(make([]byte, n))
	if err == nil {
		_, err = l.Commit(l.t.Context(), "a/journal", &engine.Append{Staged: st, Now: time.Now(), Roll: engine.RollPolicy{Length: 1 << 20, Codec: protocol.CompressionCodec_NONE}})
	}
	if closeErr := st.Close(); closeErr != nil {
		l.t.Error(closeErr)
	}
	return err
}

// refused checks that err refuses an append for now, and says why.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), why) {
		t.Errorf("%v, want a passing error with %q", err, why)
	}
}

func (l *budgeted) mustAppend(n int) {
	l.t.Helper()
	if err := l.append(n); err != nil {
		l.t.Fatal(err)
	}
}

// The disk is not filled to its end: appends stop, everything else goes on, and appends too when there is space again.
func TestDiskIsNotFilled(t *testing.T) {
	l := openBudgeted(t, t.TempDir(), disklog.Budget{})
	defer l.close()
	l.mustAppend(1000)
	l.mustAppend(1000)
	l.free.Store(256<<20 - 1)
	refused(t, l.Ready(), "256.0 MiB")
	refused(t, l.append(10), "256.0 MiB")
	refused(t, l.stage(1<<20), "256.0 MiB")
	if _, err := l.Commit(t.Context(), "a/journal", &engine.Append{Now: time.Now()}); err != nil {
		t.Errorf("an append of nothing, which tells whether others are durable: %v", err)
	}
	state, err := l.Load(t.Context(), "a/journal")
	if err != nil || state.Head != 2000 {
		t.Fatal(state, err)
	}
	r, err := l.Open(t.Context(), "a/journal", state.Finished[0])
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(make([]byte, 500), 0); n != 500 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Trim(t.Context(), "a/journal", 1000); err != nil {
		t.Errorf("trim: %v", err)
	}
	// An append that would cross the line is refused as well.
	l.free.Store(300 << 20)
	refused(t, l.stage(50<<20), "256.0 MiB")
	l.mustAppend(10)
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}

// What journals hold is limited, counted across restarts, and given back by trims and deletions.
func TestHardLimit(t *testing.T) {
	dir := t.TempDir()
	limit := disklog.Budget{Hard: 20 << 20}
	l := openBudgeted(t, dir, limit)
	for range 11 {
		l.mustAppend(1<<20 + 1)
	}
	refused(t, l.stage(12<<20), "20.0 MiB")
	l.close()

	l = openBudgeted(t, dir, limit)
	for range 7 {
		l.mustAppend(1<<20 + 1)
	}
	var err error
	for range 3 {
		if err = l.append(1 << 20); err != nil {
			break
		}
	}
	refused(t, err, "20.0 MiB")
	refused(t, l.append(1<<20), "20.0 MiB")
	if err := l.Trim(t.Context(), "a/journal", 10<<20); err != nil {
		t.Fatal(err)
	}
	l.mustAppend(1 << 20)
	for l.append(1<<20) == nil {
	}
	if _, err := l.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Delete: "a/journal", ExpectModRevision: -1}}); err != nil {
		t.Errorf("a deletion: %v", err)
	}
	l.close()

	l = openBudgeted(t, dir, limit)
	defer l.close()
	if err := l.stage(16 << 20); err != nil {
		t.Errorf("everything was deleted, and yet: %v", err)
	}
}
