package pebble

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/daybook-dev/daybook/storage"
)

// unsyncable is a file system that loses what it was to bring to the disk, once it fails.
type unsyncable struct {
	vfs.FS
	fails *atomic.Bool
}

type unsyncableFile struct {
	vfs.File
	fails *atomic.Bool
}

func (f unsyncable) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return unsyncableFile{file, f.fails}, err
}

func (f unsyncableFile) Sync() error {
	if f.fails.Load() {
		return syscall.ENOSPC
	}
	return f.File.Sync()
}

func (f unsyncableFile) SyncData() error {
	if f.fails.Load() {
		return syscall.ENOSPC
	}
	return f.File.SyncData()
}

// A sync that fails ends the process, with a line that says what to do, and all that was durable is there when it is started again.
func TestFailedSync(t *testing.T) {
	const variable = "DAYBOOK_TEST_FAILED_SYNC"
	name := storage.Stream{Project: "p", Path: "failed/+/sync"}
	if dir := os.Getenv(variable); dir != "" {
		var fails atomic.Bool
		s, err := Open(dir, Options{FS: unsyncable{vfs.Default, &fails}})
		if err == nil {
			err = s.Put(t.Context(), storage.PutRequest{Stream: name, Values: [][]byte{[]byte("durable")}})
		}
		if err == nil {
			err = s.Sync(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		fails.Store(true)
		t.Fatal("the sync failed, and the process lives: ", s.Sync(t.Context()))
	}

	dir := t.TempDir()
	c := exec.Command(os.Args[0], "-test.run", "^TestFailedSync$")
	c.Env = append(os.Environ(), variable+"="+dir)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	err := c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	text := stderr.String()
	if !strings.HasPrefix(text, "daybook: ") || strings.Count(text, "\n") != 1 || !strings.Contains(text, "no space left") || !strings.Contains(text, "start it again") {
		t.Errorf("stderr is not a line that says what to do:\n%s", text)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := s.Tail(t.Context(), name); err != nil || string(e.Data) != "durable" {
		t.Errorf("Tail = %q, %v", e.Data, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
