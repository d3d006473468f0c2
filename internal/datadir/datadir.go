// Package datadir is the one directory that holds everything of an embedded installation: where it is, which format it has, and
// who serves it.
//
//	FORMAT         version of the layout, decimal
//	LOCK           locked by the process that serves the directory (its holder)
//	NEXT           locked by a server that waits to become the holder
//	holder.json    who the holder is and where it listens
//
// The rest belongs to the engines. At most one process is the holder. It may be a server, or a short-lived command that found
// none; such a command gives way to a server that starts (Succeed). A process that is not the holder talks to it, and when
// it is gone tries to become it, so the directory is always served while somebody needs it.
//
// docs/formats/datadir.md describes the layout.
package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/filelock"
)

// Format is the version of the layout that this program reads and writes.
const Format = 1

// poll is how often a process looks whether the holder has changed. It happens at start-up and after the loss of a server only.
const poll = 20 * time.Millisecond

// ErrHeld is returned when another process is, or is about to become, the holder.
var ErrHeld = fault.New(fault.Precondition, "the data directory is in use by another process")

// Default returns the directory used when none is named: below the user's data home.
func Default() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "daybook"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the user's data home: %w; name a directory with --data or DAYBOOK_DATA", err)
	}
	switch runtime.GOOS {
	case "windows":
		if dir := os.Getenv("LocalAppData"); dir != "" {
			return filepath.Join(dir, "daybook"), nil
		}
		return filepath.Join(home, "AppData", "Local", "daybook"), nil
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", "daybook"), nil
	}
	return filepath.Join(home, ".local", "share", "daybook"), nil
}

// Kind tells holders apart.
type Kind string

// A Server stays; a Command gives way to one.
const (
	Server  Kind = "server"
	Command Kind = "command"
)

// Holder is what a holder tells about itself. The file is readable by the directory's owner only.
type Holder struct {
	PID     int    `json:"pid"`
	Kind    Kind   `json:"kind"`
	Address string `json:"address"` // host:port, on this machine, in plaintext
	// URL is where others find the holder's pages.
	URL     string    `json:"url,omitempty"`
	Started time.Time `json:"started"`
	// Token authorizes the request to give way, and everything else: who may read it, may read the directory.
	Token string `json:"token"`
}

// Dir is a data directory.
type Dir struct{ path string }

// Open creates the directory if need be and checks its format. It does not lock anything.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	d := &Dir{path: path}
	b, err := os.ReadFile(d.Join("FORMAT"))
	if errors.Is(err, os.ErrNotExist) {
		return d, writeFile(d.Join("FORMAT"), []byte(strconv.Itoa(Format)+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	switch v, err := strconv.Atoi(strings.TrimSpace(string(b))); {
	case err != nil:
		return nil, fault.New(fault.Invalid, "data directory %s: FORMAT does not hold a version; is this a Daybook directory?", path)
	case v != Format:
		return nil, fault.New(fault.Precondition, "data directory %s has format %d, this program reads %d; use a matching version of daybook", path, v, Format)
	}
	return d, nil
}

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

// Join returns the path of something in the directory.
func (d *Dir) Join(elem ...string) string { return filepath.Join(append([]string{d.path}, elem...)...) }

// Make makes a directory in the directory, unless it is there, and returns its path. Only its owner can enter it, whoever can enter
// the data directory, which may have been made by others.
func (d *Dir) Make(name string) (string, error) {
	path := d.Join(name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return path, nil
}

// Hold is the right to serve the directory.
type Hold struct {
	d    *Dir
	lock *filelock.Lock
}

// TryHold becomes the holder, or returns ErrHeld at once.
func (d *Dir) TryHold() (*Hold, error) {
	next, err := d.tryLock("NEXT")
	if err != nil {
		return nil, err
	}
	defer func() { _ = next.Unlock() }()
	return d.tryHold()
}

func (d *Dir) tryHold() (*Hold, error) {
	lock, err := d.tryLock("LOCK")
	if err != nil {
		return nil, err
	}
	// Nobody may mistake the last holder's address for ours.
	if err := os.Remove(d.Join("holder.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = lock.Unlock()
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return &Hold{d: d, lock: lock}, nil
}

func (d *Dir) tryLock(name string) (*filelock.Lock, error) {
	l, err := filelock.TryLock(d.Join(name))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, ErrHeld
	}
	return l, err
}

// Succeed becomes the holder for a server. A holder of kind Command is asked to give way, by a call of ask, and awaited until ctx
// ends; so are commands that hold the directory for a moment. A server that holds it, or waits for it already, is an error that
// names it.
func (d *Dir) Succeed(ctx context.Context, ask func(context.Context, Holder) error) (*Hold, error) {
	next, err := d.lockNext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = next.Unlock() }()
	var asked string // the token of the holder that was asked
	for {
		h, err := d.tryHold()
		if !errors.Is(err, ErrHeld) {
			return h, err
		}
		holder, ok := d.Holder()
		switch {
		case ok && holder.Kind == Server:
			return nil, fmt.Errorf("%w: %s is served by process %d on http://%s; stop it first, or choose another directory with --data",
				ErrHeld, d.path, holder.PID, holder.Address)
		case ok && holder.Token != asked:
			if err := ask(ctx, holder); err == nil {
				asked = holder.Token
			}
		}
		if err := sleep(ctx); err != nil {
			return nil, fmt.Errorf("%w: process %d did not give way: %w", ErrHeld, holder.PID, err)
		}
	}
}

// lockNext waits out commands, which hold NEXT for a moment only; a server holds it longer.
func (d *Dir) lockNext(ctx context.Context) (*filelock.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		l, err := d.tryLock("NEXT")
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
		if sleep(ctx) != nil {
			return nil, fmt.Errorf("%w: another server is starting on %s", ErrHeld, d.path)
		}
	}
}

func sleep(ctx context.Context) error {
	t := time.NewTimer(poll)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Holder returns what the holder announced; false if there is no holder or it has not announced itself yet. A holder that
// died leaves its announcement behind; who cannot reach it tries TryHold.
func (d *Dir) Holder() (Holder, bool) {
	var h Holder
	b, err := os.ReadFile(d.Join("holder.json"))
	if err != nil || json.Unmarshal(b, &h) != nil || h.Address == "" {
		return Holder{}, false
	}
	return h, true
}

// Announce tells others where the holder listens.
func (h *Hold) Announce(who Holder) error {
	b, err := json.Marshal(who)
	if err != nil {
		return err
	}
	return writeFile(h.d.Join("holder.json"), append(b, '\n'))
}

// Release gives the directory up. Everything in it must be closed.
func (h *Hold) Release() error {
	err := os.Remove(h.d.Join("holder.json"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, h.lock.Unlock())
}

// writeFile replaces a file at once; readers see the old or the new content.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
