package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// journalsReading reads any number of journals to one place.
type journalsReading struct {
	cmd      *journalsReadCmd
	env      *env
	jc       protocol.RoutedJournalClient
	progress *progress
	since    int64
	readers  sync.WaitGroup
	running  map[string]*runningRead

	output sync.Mutex // Held for a whole number of appends.
	out    *os.File

	mu      sync.Mutex
	next    map[string]int64 // Where each journal goes on.
	created map[string]int64 // Which journal that is true of, by the revision of its creation.
	err     error
}

// once reads the journals that there are to their ends.
func (r *journalsReading) once() error {
	journals, err := r.cmd.selected(r.env.ctx, r.jc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.env.ctx)
	defer cancel()
	r.start(ctx, journals, true, cancel)
	r.readers.Wait()
	return r.err
}

// follow reads the journals that there are and will be, until it is interrupted or one cannot be read.
func (r *journalsReading) follow() error {
	selector, err := r.cmd.selector()
	if err != nil {
		return err
	}
	// What cannot be listed at all cannot be watched.
	there, err := listJournals(r.env.ctx, r.jc, selector)
	if err != nil {
		return err
	}
	if len(there.GetJournals()) == 0 {
		r.note("no journal matches %q yet", r.cmd.Selector)
	}
	ctx, cancel := context.WithCancel(r.env.ctx)
	list := client.NewWatchedList(ctx, r.jc, &protocol.ListRequest{Selector: selector}, nil)
	defer func() {
		cancel()
		<-list.Done()
	}()
	r.start(ctx, there.GetJournals(), true, cancel)
	for {
		select {
		case <-ctx.Done():
			r.readers.Wait()
			return r.err
		case err := <-list.UpdateCh():
			if isRefusal(err) {
				r.fail(fmt.Errorf("watch journals: %w", err), cancel)
			} else if err != nil {
				r.env.log.Warn("watch journals, trying again", "error", err)
			} else {
				r.start(ctx, list.List().GetJournals(), false, cancel)
			}
		}
	}
}

// note tells the user on stderr.
func (r *journalsReading) note(format string, args ...any) {
	r.progress.note(r.env.stderr, fmt.Sprintf("daybook: "+format+"\n", args...))
}

func (r *journalsReading) fail(err error, end context.CancelFunc) {
	r.mu.Lock()
	r.err = errors.Join(r.err, err)
	r.mu.Unlock()
	end()
}

// start reads the journals that are not read yet, and ends with those that are gone. Those that were there at first begin where
// the flags say.
func (r *journalsReading) start(ctx context.Context, journals []*protocol.ListResponse_Journal, first bool, fail context.CancelFunc) {
	gone := maps.Clone(r.running)
	for _, j := range journals {
		name, created := j.GetSpec().GetName(), j.GetCreateRevision()
		if old := r.running[name]; old != nil {
			// One that ended has met a suspension, of which the listing need not tell: the journal may be awake again by now.
			if delete(gone, name); old.created == created && !isSuspended(j.GetSpec()) && !old.ended() {
				continue
			}
			old.end()
			delete(r.running, name)
		}
		r.begin(j, first)
		if isSuspended(j.GetSpec()) {
			continue // It has no content.
		}
		ctx, stop := context.WithCancel(ctx)
		running := &runningRead{created: created, stop: stop, done: make(chan struct{})}
		r.running[name] = running
		r.readers.Go(func() {
			defer close(running.done)
			if err := r.read(ctx, name); err != nil && ctx.Err() == nil {
				r.fail(fmt.Errorf("read %s: %w", name, err), fail)
			}
		})
	}
	for name, running := range gone {
		running.end()
		delete(r.running, name)
		if r.env.ctx.Err() == nil {
			r.note("%s is gone, or is not selected any more; its reading ends at offset %d", name, r.offset(name))
		}
	}
}

// begin finds out where a journal begins.
func (r *journalsReading) begin(j *protocol.ListResponse_Journal, first bool) {
	name, created, suspend := j.GetSpec().GetName(), j.GetCreateRevision(), j.GetSpec().GetSuspend()
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, ok := r.created[name]; ok && before != created {
		delete(r.next, name) // That was another journal.
	}
	if r.created == nil {
		r.created = make(map[string]int64)
	}
	r.created[name] = created
	_, known := r.next[name]
	tail := r.cmd.Tail || r.cmd.Offset == int64(protocol.OffsetHead)
	switch {
	case known:
	case first && tail && isSuspended(j.GetSpec()):
		r.next[name] = suspend.GetOffset()
	case first && tail:
		r.next[name] = int64(protocol.OffsetHead)
	case first:
		r.next[name] = r.cmd.Offset
	default:
		r.next[name] = 0
	}
}

func (r *journalsReading) offset(name string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[name]
}

func (r *journalsReading) advance(name string, offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[name] = offset
}

// read copies one journal.
func (r *journalsReading) read(ctx context.Context, name string) error {
	rr := client.NewRetryReader(ctx, r.jc, &protocol.ReadRequest{
		Journal: name, Offset: r.offset(name), EndOffset: r.cmd.End, Block: r.cmd.Follow, DoNotProxy: r.cmd.Direct, BeginModTime: r.since,
		MaxContent: 1 << 20,
	})
	defer func() { rr.Cancel() }()
	rr.Logger = r.env.log
	unit := &outputUnit{lock: &r.output}
	defer unit.end()
	buf := make([]byte, 256<<10)
	expected, copied := int64(-1), int64(0)
	for {
		before := rr.Offset()
		n, err := rr.Read(buf)
		if head := rr.Reader.Response.GetWriteHead(); rr.Offset() >= 0 && head > expected {
			r.progress.expect(head - max(expected, rr.Offset()-int64(n)))
			expected = head
		}
		if n > 0 {
			unit.begin(rr.Reader.Response.GetFragment().GetEnd())
			if _, err := r.out.Write(buf[:n]); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			copied += int64(n)
			r.progress.add(n)
			r.advance(name, rr.Offset())
		}
		if err != nil || rr.Offset() >= unit.until {
			unit.end()
		}
		switch {
		case err == nil:
		case errors.Is(err, client.ErrOffsetJump):
			// With --from it is asked for that the beginning is left out.
			if before >= 0 && (r.since == 0 || copied != 0) {
				r.note("%s: offsets %d to %d are not there", name, before, rr.Offset())
			}
			r.advance(name, rr.Offset())
		case errors.Is(err, client.ErrOffsetNotYetAvailable):
			switch head := rr.Reader.Response.GetWriteHead(); {
			case head < rr.Offset():
				r.note("%s ends at offset %d, which is before %d", name, head, rr.Offset())
			case head > rr.Offset() && r.since == 0:
				r.note("%s: offsets %d to %d are not there", name, rr.Offset(), head)
			}
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, client.ErrSuspended):
			return nil
		case errors.Is(err, client.ErrJournalNotFound) && r.cmd.Follow:
			return nil // The watch tells.
		default:
			return r.explain(err)
		}
	}
}

// explain adds what the user can do.
func (r *journalsReading) explain(err error) error {
	switch {
	case errors.Is(err, client.ErrJournalNotFound):
		return fmt.Errorf("it was deleted meanwhile: %w", err)
	case r.cmd.Direct:
		return fmt.Errorf("%w; without --direct the broker fetches it", err)
	}
	return err
}

// isRefusal reports whether an error would come again, with the same request and the same token.
func isRefusal(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Unauthenticated, fault.Unimplemented:
		return err != nil
	}
	return false
}

// outputUnit holds the output until what is known to be there has been written, so that appends of several journals are not
// torn apart.
type outputUnit struct {
	lock  *sync.Mutex
	held  bool
	until int64
}

func (u *outputUnit) begin(until int64) {
	if !u.held {
		u.lock.Lock()
		u.held, u.until = true, until
	}
}

func (u *outputUnit) end() {
	if u.held {
		u.held = false
		u.lock.Unlock()
	}
}
