// Package filelock locks a file against other processes. The lock belongs to the open file: it ends with Unlock, or with
// the process, however that ends, so a stale lock cannot exist. The file itself stays; its content is the caller's.
package filelock

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked is returned by TryLock when another holder has the lock.
var ErrLocked = errors.New("locked by another process")

// Lock is a held lock.
type Lock struct{ f *os.File }

// TryLock creates the file if need be and locks it exclusively without waiting. A lock that is held, by this process or
// another, gives ErrLocked.
func TryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		if errors.Is(err, ErrLocked) {
			return nil, err
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

// Unlock ends the lock. It may be called once.
func (l *Lock) Unlock() error { return l.f.Close() }
