package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// smallDisk is a file system with room for so many bytes. What is deleted makes no room.
type smallDisk struct {
	vfs.FS
	room *room
}

type room struct {
	mu   sync.Mutex
	left int
}

// take takes up to n bytes, and reports how many there were.
func (r *room) take(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, r.left)
	r.left -= n
	return n
}

func (r *room) set(left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = left
}

func (d smallDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if d.room.take(1) == 0 {
		return nil, syscall.ENOSPC
	}
	f, err := d.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return smallFile{f, d.room}, nil
}

func (d smallDisk) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(oldname, newname, c)
	if err != nil {
		return nil, err
	}
	return smallFile{f, d.room}, nil
}

type smallFile struct {
	vfs.File
	room *room
}

func (f smallFile) Write(p []byte) (int, error) {
	n := f.room.take(len(p))
	if n, err := f.File.Write(p[:n]); err != nil {
		return n, err
	}
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

const plenty = 1 << 40

var full = storage.Stream{Project: "p", Path: "full/+/disk"}

func fullValue(i types.MessageIndex) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "entry %d ", i), 2000)
}

// fill commits batches of one entry until the disk is full, and returns how many were acknowledged.
func fill(t *testing.T, s *Storage) types.MessageIndex {
	t.Helper()
	for i := types.MessageIndex(0); ; i++ {
		if err := commitOne(t.Context(), s, i); err != nil {
			if !fault.Is(err, fault.Transient) || !errors.Is(err, syscall.ENOSPC) && s.Ready() != nil {
				t.Fatalf("entry %d does not fit: %v", i, err)
			}
			return i
		}
		if i == 10_000 {
			t.Fatal("everything fits")
		}
	}
}

func commitOne(ctx context.Context, s *Storage, i types.MessageIndex) error {
	b := s.NewBatch()
	defer b.Close()
	err := b.Put(storage.PutRequest{Stream: full, Index: i, Values: [][]byte{fullValue(i)}})
	b.SetCheckpoint("r", int64(i)+1)
	return errors.Join(err, b.Commit(ctx))
}

// wantFull demands that the first n entries are there.
func wantFull(t *testing.T, s *Storage, n types.MessageIndex) {
	t.Helper()
	next := types.MessageIndex(0)
	err := s.Get(t.Context(), storage.GetRequest{Stream: full}, func(e storage.Entry) bool {
		if e.Index != next || !bytes.Equal(e.Data, fullValue(e.Index)) {
			t.Errorf("entry %d, want %d, or other data", e.Index, next)
		}
		next = e.Index + 1
		return true
	})
	if err != nil || next < n {
		t.Errorf("%d of %d entries are there, %v", next, n, err)
	}
	if e, err := s.Tail(t.Context(), full); err != nil || e.Index != next-1 {
		t.Errorf("Tail = %d, %v; want %d", e.Index, err, next-1)
	}
}

// patiently calls fn until it succeeds.
func patiently(t *testing.T, what string, fn func() error) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(testkit.Patience); ; <-ticker.C {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func reopen(t *testing.T, fs vfs.FS) *Storage {
	t.Helper()
	s, err := Open("d", Options{FS: fs})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

// A full disk stops writes, and nothing else; when there is room again they go on, and nothing is lost.
func TestFullDisk(t *testing.T) {
	for _, size := range []int{300 << 10, 4 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			disk := smallDisk{mem, &room{left: size}}
			s := reopen(t, disk)
			n := fill(t, s)
			t.Logf("%d entries fit", n)
			if err := s.Ready(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Ready: %v", err)
			}
			wantFull(t, s, n)
			for what, err := range map[string]error{
				"Sync": s.Sync(t.Context()), "Expunge": s.Expunge(t.Context(), full), "Commit": commitOne(t.Context(), s, n),
			} {
				if !fault.Is(err, fault.Transient) || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v", what, err)
				}
			}

			// A crash leaves what was synced, and whole batches.
			crashed := reopen(t, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, 2))}))
			position, err := crashed.Checkpoint(t.Context(), "r")
			if err != nil || position > int64(n)+1 {
				t.Errorf("checkpoint %d after %d entries, %v", position, n, err)
			}
			if position > 0 {
				wantFull(t, crashed, types.MessageIndex(position))
			}
			if err := crashed.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}

			disk.room.set(plenty)
			for i := n; i < n+100; i++ {
				patiently(t, "Commit", func() error { return commitOne(t.Context(), s, i) })
			}
			if err := s.Ready(); err != nil {
				t.Errorf("Ready: %v", err)
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Errorf("Sync: %v", err)
			}
			wantFull(t, s, n+100)
			crashed = reopen(t, mem.CrashClone(vfs.CrashCloneCfg{}))
			wantFull(t, crashed, n+100)
			if err := errors.Join(crashed.Close(), s.Close()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// Who closes a store on a full disk does not wait for an operator.
func TestCloseOnFullDisk(t *testing.T) {
	disk := smallDisk{vfs.NewMem(), &room{left: 300 << 10}}
	s := reopen(t, disk)
	n := fill(t, s)
	if err := s.Close(); !fault.Is(err, fault.Transient) {
		t.Errorf("Close: %v", err)
	}
	if err := commitOne(t.Context(), s, n); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	disk.room.set(plenty)
	patiently(t, "Close", s.Close)
	s = reopen(t, disk)
	wantFull(t, s, n)
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// A writer that has to wait goes away when its caller does.
func TestCanceledOnFullDisk(t *testing.T) {
	disk := smallDisk{vfs.NewMem(), &room{left: plenty}}
	s := reopen(t, disk)
	defer func() {
		disk.room.set(plenty)
		patiently(t, "Close", s.Close)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan struct{})
	err := s.change(ctx, func() (func() error, error) {
		return func() error {
			cancel()
			<-blocked
			return nil
		}, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("change: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := commitOne(ctx, s, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a Commit that waits for another one: %v", err)
	}
	close(blocked)
	if err := commitOne(t.Context(), s, 0); err != nil {
		t.Errorf("Commit: %v", err)
	}
}

// A disk that is full from the beginning is an error, whatever the write it is that fails first. When there is room the store opens.
func TestOpenOnFullDisk(t *testing.T) {
	refused := func(disk smallDisk) {
		t.Helper()
		s, err := Open("d", Options{FS: disk})
		if err == nil {
			_ = s.Close()
		}
		if !fault.Is(err, fault.Transient) {
			t.Errorf("Open: %v, of kind %v; want Transient", err, fault.KindOf(err))
		}
	}
	opens := func(disk smallDisk) (s *Storage) {
		t.Helper()
		disk.room.set(plenty)
		patiently(t, "Open", func() (err error) {
			s, err = Open("d", Options{FS: disk})
			return err
		})
		return s
	}
	for _, size := range []int{0, 1, 2, 10, 50, 100, 150, 200, 250, 300} {
		disk := smallDisk{vfs.NewMem(), &room{left: size}}
		refused(disk)
		if err := opens(disk).Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}

	// What a crash left on a full disk.
	mem := vfs.NewCrashableMem()
	disk := smallDisk{mem, &room{left: 1 << 20}}
	s := reopen(t, disk)
	n := fill(t, s)
	after := smallDisk{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}), &room{}}
	refused(after)
	again := opens(after)
	position, err := again.Checkpoint(t.Context(), "r")
	if err != nil || position < int64(n)/2 || position > int64(n)+1 {
		t.Errorf("checkpoint %d after %d entries, %v", position, n, err)
	}
	wantFull(t, again, types.MessageIndex(position))
	disk.room.set(plenty)
	patiently(t, "Close", again.Close)
	patiently(t, "Close", s.Close)
}
