package vfs_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/daybook-dev/daybook/internal/vfs"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f := must(fsys.Open(name))(t)
	b := make([]byte, must(f.Size())(t))
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	check(t, f.Close())
	return string(b)
}

// TestSame does the same with each file system.
func TestSame(t *testing.T) {
	none := func(vfs.Op, string) (int, error) { return 0, nil }
	for name, fsys := range map[string]vfs.FS{"OS": vfs.OS, "Mem": vfs.NewMem(), "Inject": vfs.Inject(vfs.NewMem(), none)} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			check(t, fsys.MkdirAll(dir))
			path := filepath.Join(dir, "file")
			if _, err := fsys.Open(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open what is not there: %v", err)
			}
			f := must(fsys.Create(path))(t)
			check(t, f.Preallocate(1<<16))
			must(f.WriteAt([]byte("world"), 6))(t)
			must(f.WriteAt([]byte("hello "), 0))(t)
			if size := must(f.Size())(t); size != 11 {
				t.Errorf("size %d", size)
			}
			if n, err := f.ReadAt(make([]byte, 5), 8); n != 3 || !errors.Is(err, io.EOF) {
				t.Errorf("read over the end: %d, %v", n, err)
			}
			check(t, f.Truncate(8))
			check(t, f.Sync())
			check(t, f.Close())
			renamed := filepath.Join(dir, "renamed")
			check(t, fsys.Rename(path, renamed))
			check(t, fsys.SyncDir(dir))
			if got := content(t, fsys, renamed); got != "hello wo" {
				t.Errorf("content %q", got)
			}
			if entries := must(fsys.ReadDir(dir))(t); len(entries) != 1 || entries[0].Name() != "renamed" || entries[0].IsDir() {
				t.Errorf("entries %v", entries)
			}
			if err := fsys.Remove(dir); err == nil {
				t.Error("a directory with a file was removed")
			}
			check(t, fsys.Remove(renamed))
			check(t, fsys.Remove(dir))
			if _, err := fsys.ReadDir(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a removed directory: %v", err)
			}
		})
	}
}

func TestPowerLoss(t *testing.T) {
	m := vfs.NewMem()
	f := must(m.Create("/kept"))(t)
	must(f.WriteAt([]byte("synced"), 0))(t)
	check(t, f.Sync())
	check(t, m.SyncDir("/"))
	must(f.WriteAt([]byte("not"), 0))(t)
	must(m.Create("/lost"))(t)
	check(t, m.Rename("/kept", "/renamed"))

	clone := m.Clone()
	clone.PowerLoss(nil)
	if files := clone.Files(); len(files) != 1 || files[0] != "/kept" {
		t.Fatalf("files %v", files)
	}
	if got := content(t, clone, "/kept"); got != "synced" {
		t.Errorf("content %q", got)
	}
	for seed := range uint64(50) {
		clone := m.Clone()
		clone.PowerLoss(rand.New(rand.NewPCG(seed, 0)))
		kept := 0
		for _, name := range clone.Files() {
			if name != "/lost" {
				kept++
				if got := content(t, clone, name); got != "synced" && got != "notced" {
					t.Errorf("content %q", got)
				}
			}
		}
		if kept != 1 {
			t.Errorf("seed %d: the file has %d names", seed, kept)
		}
	}
}

func TestInject(t *testing.T) {
	m := vfs.NewMem()
	full := false
	fsys := vfs.Inject(m, vfs.NoSpace(func() bool { return full }))
	f := must(fsys.Create("/file"))(t)
	full = true
	if _, err := f.WriteAt([]byte("x"), 0); !vfs.IsNoSpace(err) {
		t.Errorf("write to a full disk: %v", err)
	}
	check(t, f.Sync())
	full = false
	must(f.WriteAt([]byte("x"), 0))(t)

	torn := vfs.Inject(m, func(op vfs.Op, _ string) (int, error) {
		if op == vfs.OpWrite {
			return 3, syscall.EIO
		}
		return 0, nil
	})
	g := must(torn.Open("/file"))(t)
	if n, err := g.WriteAt([]byte("abcdef"), 1); n != 3 || !errors.Is(err, syscall.EIO) {
		t.Errorf("torn write: %d, %v", n, err)
	}
	if got := content(t, m, "/file"); got != "xabc" {
		t.Errorf("content %q", got)
	}
	m.Limit(m.Used() + 2)
	if _, err := f.WriteAt([]byte("123"), 4); !vfs.IsNoSpace(err) {
		t.Errorf("write beyond the limit: %v", err)
	}
}
