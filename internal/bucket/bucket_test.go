package bucket_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/buckettest"
	"github.com/daybook-dev/daybook/internal/fault"
)

func TestMem(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return bucket.NewMem("test") })
}

func TestDir(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		d, err := bucket.CreateDir(filepath.Join(t.TempDir(), "made", "here"), "test")
		if err != nil {
			t.Fatalf("CreateDir: %v", err)
		}
		return d
	})
}

func TestTree(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		d, err := bucket.OpenTree(t.TempDir(), "test")
		if err != nil {
			t.Fatalf("OpenTree: %v", err)
		}
		return d
	})
}

// TestTreeMissing checks that a tree that is not there is neither made nor taken for an empty one, nor is another in its place.
func TestTreeMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	if _, err := bucket.OpenTree(dir, "b"); !errors.Is(err, bucket.ErrMissing) {
		t.Errorf("OpenTree without a directory: %v; want ErrMissing", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := bucket.OpenTree(dir, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, what := range []string{"gone", "replaced"} {
		if what == "gone" {
			if err := os.Rename(dir, dir+"-away"); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		var listErr error
		for _, err := range d.List(t.Context(), "") {
			listErr = err
		}
		for op, err := range map[string]error{"Put": bucket.Put(t.Context(), d, "a/k", strings.NewReader("x")), "List": listErr} {
			if !errors.Is(err, bucket.ErrMissing) || !fault.Is(err, fault.Transient) {
				t.Errorf("%s with the directory %s: %v; want ErrMissing", op, what, err)
			}
		}
	}
}

// TestDirMissing checks that a base directory that is not there is neither filled nor taken for an empty bucket.
func TestDirMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if _, err := bucket.OpenDir(dir, "b"); err == nil {
		t.Error("OpenDir made a bucket")
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.CreateDir(full, "b"); err == nil {
		t.Error("CreateDir took a directory with other things in it")
	}

	d, err := bucket.CreateDir(dir, "b")
	if err != nil {
		t.Fatalf("CreateDir: %v", err)
	}
	defer d.Close()
	if err := bucket.Put(t.Context(), d, "a/k", strings.NewReader("x")); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, getErr := d.Get(t.Context(), "a/k", 0, -1)
	_, statErr := d.Stat(t.Context(), "a/k")
	var listErr error
	for _, err := range d.List(t.Context(), "") {
		listErr = err
	}
	for op, err := range map[string]error{
		"Get": getErr, "Stat": statErr, "List": listErr, "Delete": d.Delete(t.Context(), "a/k"),
		"Put": bucket.Put(t.Context(), d, "a/k", strings.NewReader("x")),
	} {
		if !fault.Is(err, fault.Transient) {
			t.Errorf("%s without the directory: %v; want Transient", op, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is back: %v", err)
	}
}

// TestDirLeftovers checks that files of writers that died are not shown, and removed when they are old.
func TestDirLeftovers(t *testing.T) {
	dir := t.TempDir()
	d, err := bucket.CreateDir(dir, "b")
	if err != nil {
		t.Fatalf("CreateDir: %v", err)
	}
	w, err := d.Create(t.Context(), "k")
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatalf("Write: %v", err)
	}
	old := filepath.Join(dir, ".partial-old")
	if err := os.WriteFile(old, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	again, err := bucket.OpenDir(dir, "b")
	if err != nil {
		t.Fatalf("OpenDir: %v", err)
	}
	for info, err := range again.List(t.Context(), "") {
		t.Errorf("List shows %v, %v", info, err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old leftover is still there: %v", err)
	}
	if err := w.Commit(); err != nil {
		t.Errorf("Commit of the living writer: %v", err)
	}
	if err := errors.Join(d.Close(), again.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestMemFaults(t *testing.T) {
	m := bucket.NewMem("b")
	m.SetBytes("k", []byte("content"))
	broken := errors.New("broken")
	var failing bucket.Op
	m.SetFault(func(op bucket.Op, _ string) error {
		if op == failing {
			return broken
		}
		return nil
	})
	use := map[bucket.Op]func() error{
		bucket.OpStat:   func() error { _, err := m.Stat(t.Context(), "k"); return err },
		bucket.OpDelete: func() error { return m.Delete(t.Context(), "other") },
		bucket.OpList: func() (err error) {
			for _, err = range m.List(t.Context(), "") {
			}
			return err
		},
	}
	for _, op := range []bucket.Op{bucket.OpGet, bucket.OpRead} {
		use[op] = func() error { return bucket.ReadFull(t.Context(), m, "k", 0, make([]byte, 3)) }
	}
	for _, op := range []bucket.Op{bucket.OpCreate, bucket.OpWrite, bucket.OpCommit} {
		use[op] = func() error { return bucket.Put(t.Context(), m, "k", strings.NewReader("new")) }
	}
	for op, f := range use {
		failing = op
		if err := f(); !errors.Is(err, broken) {
			t.Errorf("%s: %v; want the injected error", op, err)
		}
	}
	if got := string(m.Bytes("k")); got != "content" {
		t.Errorf("the object is %q", got)
	}
}
