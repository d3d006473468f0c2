package vfs

import "syscall"

// Op is a kind of operation that changes a file system, or makes a change durable.
type Op string

// The operations that a Hook hears of.
const (
	OpCreate      Op = "create"
	OpRename      Op = "rename"
	OpRemove      Op = "remove"
	OpSyncDir     Op = "syncdir"
	OpWrite       Op = "write"
	OpSync        Op = "sync"
	OpTruncate    Op = "truncate"
	OpPreallocate Op = "preallocate"
)

// Hook is called before each operation. With an error the operation fails; a write then puts tear bytes on the disk first.
// A hook is called concurrently if the file system is used concurrently.
type Hook func(op Op, name string) (tear int, err error)

// Inject returns a file system on another one whose operations fail as the hook says.
func Inject(under FS, hook Hook) FS { return injectFS{under, hook} }

// NoSpace returns a Hook that lets everything that takes space fail with a full disk as long as full returns true.
func NoSpace(full func() bool) Hook {
	return func(op Op, name string) (int, error) {
		switch op {
		case OpCreate, OpWrite, OpPreallocate:
			if full() {
				return 0, pathError(string(op), name, syscall.ENOSPC)
			}
		}
		return 0, nil
	}
}

type injectFS struct {
	FS
	hook Hook
}

func (f injectFS) Open(name string) (File, error) {
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return injectFile{file, name, f.hook}, nil
}

func (f injectFS) Create(name string) (File, error) {
	if _, err := f.hook(OpCreate, name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return injectFile{file, name, f.hook}, nil
}

func (f injectFS) Rename(oldName, newName string) error {
	if _, err := f.hook(OpRename, newName); err != nil {
		return err
	}
	return f.FS.Rename(oldName, newName)
}

func (f injectFS) Remove(name string) error {
	if _, err := f.hook(OpRemove, name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f injectFS) SyncDir(dir string) error {
	if _, err := f.hook(OpSyncDir, dir); err != nil {
		return err
	}
	return f.FS.SyncDir(dir)
}

type injectFile struct {
	File
	name string
	hook Hook
}

func (f injectFile) WriteAt(p []byte, off int64) (int, error) {
	tear, err := f.hook(OpWrite, f.name)
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	if tear = min(tear, len(p)); tear > 0 {
		if n, tearErr := f.File.WriteAt(p[:tear], off); tearErr != nil {
			return n, tearErr
		}
	}
	return tear, err
}

func (f injectFile) Sync() error {
	if _, err := f.hook(OpSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f injectFile) Truncate(size int64) error {
	if _, err := f.hook(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f injectFile) Preallocate(size int64) error {
	if _, err := f.hook(OpPreallocate, f.name); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}
