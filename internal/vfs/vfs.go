// Package vfs is the part of a file system that durable code uses, small enough to be replaced in tests.
//
// OS is the real one. Mem is a file system in memory that knows which bytes and names have been synced, so that a power loss
// can be simulated. Inject wraps any FS and makes chosen operations fail, or writes tear.
//
// Paths are those of package filepath. Errors satisfy errors.Is with those of io/fs as the errors of package os do. All
// implementations are safe for concurrent use.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// FS is a file system.
type FS interface {
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create creates a file, or empties an existing one, for reading and writing. The name is durable after SyncDir.
	Create(name string) (File, error)
	// Rename replaces newName by oldName. It is durable after SyncDir of both directories.
	Rename(oldName, newName string) error
	// Remove removes a file or an empty directory. It is durable after SyncDir.
	Remove(name string) error
	// MkdirAll creates a directory and what is missing above it.
	MkdirAll(dir string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(dir string) ([]fs.DirEntry, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length of the file.
	Size() (int64, error)
	// Sync makes the content and the length durable, as fdatasync does. After an error nothing is known about what was
	// written since the last successful Sync, and another Sync would not tell: the error is final.
	Sync() error
	// Truncate sets the length and gives preallocated space beyond it back.
	Truncate(size int64) error
	// Preallocate reserves disk space for the first size bytes without changing the length. It does nothing where the
	// platform has no such call; an error is a real one, such as a full disk.
	Preallocate(size int64) error
}

// IsNoSpace reports whether err says that the disk or the quota is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || isQuota(err)
}
