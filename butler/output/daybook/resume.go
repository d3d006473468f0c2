package daybook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/filelock"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// ResumeConfig is what Resume needs besides the spool.
type ResumeConfig struct {
	Journals     protocol.RoutedJournalClient
	Registration logdog.RegistrationClient
	// Patience is how long the server may take nothing until Resume gives up; zero is for ever.
	Patience time.Duration
	// Sent, unless nil, is called when all was sent, with the streams whose end may not be visible to readers yet.
	Sent func(project types.Project, prefix types.StreamName, streams []types.StreamName)
	// Logger gets what goes wrong and is tried again. nil discards it.
	Logger *slog.Logger
}

// Resume sends what is left in the spool of an output that is no more, ends the streams that it left open, and removes the spool.
// It goes on until that is done, or ctx ends, or the server refuses for good, or, as an error of the kind fault.Deadline, takes
// nothing for too long; the spool is then as good as before. While the owner of the spool lives, the error is of the kind
// fault.Precondition.
func Resume(ctx context.Context, dir string, c ResumeConfig) error {
	if err := resume(ctx, dir, c); err != nil {
		return fmt.Errorf("daybook output: resume %s: %w", dir, err)
	}
	return nil
}

func resume(ctx context.Context, dir string, c ResumeConfig) error {
	if c.Journals == nil || c.Registration == nil {
		return fault.New(fault.Invalid, "the clients of journals and registration are required")
	}
	lock, err := lockSpool(dir)
	if err != nil {
		return err
	}
	k, err := readClaim(dir)
	if err != nil {
		return errors.Join(err, lock.Unlock())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := newOutput(ctx, Config{
		Project: k.Project, Prefix: k.Prefix, Journals: c.Journals, Registration: c.Registration, SpoolDir: dir, Logger: c.Logger,
	}, k, lock)
	// What is in the spool does not wait for a registration of ours, so that comes first.
	if err := o.registerWithin(ctx, c.Patience); err != nil {
		o.cancel()
		return errors.Join(err, lock.Unlock())
	}
	if err := o.open(); err != nil {
		return err
	}
	defer o.guard(c.Patience, cancel)()
	if orphans := o.orphans(); orphans != nil {
		err = o.send(orphans)
	}
	switch err = errors.Join(err, o.close(ctx)); {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && c.Sent != nil:
		c.Sent(k.Project, k.Prefix, o.ended())
	}
	return err
}

// ended returns the streams whose end was sent.
func (o *Output) ended() []types.StreamName {
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []types.StreamName
	for name := range o.streams.ended {
		names = append(names, types.StreamName(name))
	}
	slices.Sort(names)
	return names
}

// errPatience is why Resume gives up.
func errPatience(patience time.Duration) error {
	return fault.New(fault.Deadline, "the server took nothing for %v", patience)
}

// registerWithin is register, for at most so long unless that is zero.
func (o *Output) registerWithin(ctx context.Context, patience time.Duration) error {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errPatience(patience))
		defer cancel()
	}
	return o.register(ctx)
}

// guard calls giveUp when the server takes nothing for so long. It looks until the returned function is called.
func (o *Output) guard(patience time.Duration, giveUp context.CancelCauseFunc) (stop func()) {
	if patience <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(max(patience/8, time.Millisecond))
		defer t.Stop()
		for since, left := time.Now(), o.Pending(); ; {
			select {
			case <-done:
				return
			case <-t.C:
			}
			if n := o.Pending(); n != left {
				since, left = time.Now(), n
			} else if time.Since(since) >= patience {
				giveUp(errPatience(patience))
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// recall notes what is in the spool, before it is sent. The file of streams knows of it already, unless it was damaged, or lost its
// end with the power: then a stream would be ended below entries that are here.
func (o *Output) recall() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.streams.open) == 0 && len(o.streams.ended) > 0 {
		return nil // all is well
	}
	return client.ReadSpool(filepath.Join(o.c.SpoolDir, appendsDir), func(_ protocol.Journal, content io.Reader) error {
		for r := ingest.NewReader(content); ; {
			msg, err := r.Next()
			switch {
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return nil
			case err != nil:
				return err
			}
			if _, b, err := envelope.Read(msg); err == nil { // what no server can read either ends nothing
				if err := o.streams.note(b); err != nil {
					return err
				}
				o.streams.noteEnds(b)
			}
		}
	})
}

// Drop removes the spool of an output that is no more, with everything in it that no server took. While the owner of the spool lives,
// the error is of the kind fault.Precondition; without a spool, fault.NotFound.
func Drop(dir string) error {
	lock, err := lockSpool(dir)
	if err == nil {
		err = removeSpool(dir, lock)
	}
	if err != nil {
		return fmt.Errorf("daybook output: drop %s: %w", dir, err)
	}
	return nil
}

func lockSpool(dir string) (*filelock.Lock, error) {
	if _, err := os.Stat(filepath.Join(dir, claimFile)); err != nil {
		return nil, fault.Wrap(fault.NotFound, err)
	}
	lock, err := filelock.TryLock(filepath.Join(dir, lockFile))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, fault.New(fault.Precondition, "its owner is alive: %w", err)
	}
	return lock, err
}

// orphaned is why a stream ended whose end was not captured.
const orphaned = "what captured the stream died, or gave up, before its end; what it had put on disk is all here"

// orphans returns a bundle with the ends of the streams that have none, or nil.
func (o *Output) orphans() *logpb.ButlerLogBundle {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.streams.open) == 0 {
		return nil
	}
	b := &logpb.ButlerLogBundle{Timestamp: timestamppb.Now()}
	for _, s := range o.streams.open {
		e := &logpb.ButlerLogBundle_Entry{Desc: s.desc, Terminal: true, Ended: &logpb.StreamEnd{Reason: orphaned}}
		if s.next > 0 {
			e.TerminalIndex = s.next - 1
		} else {
			e.TerminalEmpty = true
		}
		b.Entries = append(b.Entries, e)
	}
	slices.SortFunc(b.Entries, func(x, y *logpb.ButlerLogBundle_Entry) int {
		return cmp.Compare(x.GetDesc().GetName(), y.GetDesc().GetName())
	})
	return b
}

// removeSpool removes a spool that is done with, in two steps: without its claim it is none, whatever else is left.
func removeSpool(dir string, lock *filelock.Lock) error {
	err := os.Remove(filepath.Join(dir, claimFile))
	if err = errors.Join(err, lock.Unlock()); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Spool is a spool directory.
type Spool struct {
	Dir     string
	Project types.Project
	Prefix  types.StreamName
	// Bytes is the size of its files.
	Bytes   int64
	Created time.Time
	// Alive says that its owner lives. The spool of one that does not can be resumed.
	Alive bool
	// Err is why what is in it can never be sent: its claim cannot be read. Project and Prefix are empty then.
	Err error
}

// Name is what the spool is called: its project and prefix, or if these are not known that of its directory.
func (s Spool) Name() string {
	if s.Err != nil {
		return filepath.Base(s.Dir)
	}
	return string(s.Project) + "/" + string(s.Prefix)
}

// Age returns how long ago the spool was made.
func (s Spool) Age() time.Duration { return time.Since(s.Created) }

// Spools returns the spools directly below a directory, oldest first. Of directories that cannot be read the error tells, and
// the others are returned nevertheless. A root that does not exist has none.
func Spools(root string) ([]Spool, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("daybook output: list spools: %w", err)
	}
	var spools []Spool
	var failures []error
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		s, err := inspect(filepath.Join(root, e.Name()))
		switch {
		case err == nil:
			spools = append(spools, *s)
		case !errors.Is(err, fs.ErrNotExist): // no spool, or gone while we looked
			failures = append(failures, fmt.Errorf("daybook output: list spools: %w", err))
		}
	}
	slices.SortFunc(spools, func(a, b Spool) int { return a.Created.Compare(b.Created) })
	return spools, errors.Join(failures...)
}

func inspect(dir string) (*Spool, error) {
	s := &Spool{Dir: dir}
	switch k, err := readClaim(dir); {
	case err == nil:
		s.Project, s.Prefix, s.Created = k.Project, k.Prefix, k.Created
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		info, serr := os.Stat(dir)
		if serr != nil {
			return nil, serr
		}
		s.Err, s.Created = err, info.ModTime()
	}
	lock, err := filelock.TryLock(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, filelock.ErrLocked):
		s.Alive = true
	case err != nil:
		return nil, err
	default:
		if err := lock.Unlock(); err != nil {
			return nil, err
		}
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				s.Bytes += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // sent meanwhile
		}
		return err
	})
	return s, err
}
