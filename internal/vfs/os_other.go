//go:build !linux

package vfs

import (
	"errors"
	"os"
	"runtime"
)

func (osFS) SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		// Directories cannot be synced there; the file system's journal orders their changes.
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFile) Preallocate(int64) error { return nil }

func isQuota(error) bool { return false }
