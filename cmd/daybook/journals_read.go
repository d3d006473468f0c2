package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsReadCmd struct {
	journalsFlags
	selectFlags
	Follow     bool   `help:"Go on with what is appended, also to journals that come later, until interrupted." short:"f"`
	Tail       bool   `help:"Begin at the end." xor:"begin"`
	Offset     int64  `help:"Begin at this offset." xor:"begin" placeholder:"N"`
	From       string `help:"Leave out fragments stored before this time: 2006-01-02T15:04:05Z, Unix seconds, or a duration ago such as 90m." placeholder:"TIME"`
	Output     string `help:"Write to a file." short:"o" default:"-" placeholder:"FILE"`
	Offsets    string `help:"Begin each journal where this file says: a JSON object of names and offsets." placeholder:"FILE" type:"existingfile"`
	OffsetsOut string `help:"Write where each journal ended, for --offsets of the next time." placeholder:"FILE"`
	Direct     bool   `help:"Fetch stored fragments from their stores, not through the broker."`
	FileRoot   string `help:"With --direct: the directory of file:// stores." placeholder:"DIR" type:"existingdir"`
}

func (c *journalsReadCmd) Help() string {
	return "Of several journals, whole appends are printed, one journal's after the other's in any order."
}

func (c *journalsReadCmd) Run(e *env) (err error) {
	r := &journalsReading{cmd: c, env: e, next: make(map[string]int64), running: make(map[string]context.CancelFunc), out: e.stdout}
	if r.since, err = parseSince(c.From, time.Now()); err != nil {
		return err
	}
	if c.Offsets != "" {
		if err := r.loadOffsets(); err != nil {
			return err
		}
	}
	if c.FileRoot != "" {
		defer client.InstallFileTransport(c.FileRoot)()
	}
	if c.Output != "-" {
		f, err := os.Create(c.Output)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		r.out = f
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	r.jc = jc
	r.progress = newProgress(e, r.out)
	if c.Follow {
		err = r.follow()
	} else {
		err = r.once()
	}
	r.progress.end()
	if c.OffsetsOut != "" {
		err = errors.Join(err, r.saveOffsets())
	}
	return err
}

// parseSince returns Unix seconds.
func parseSince(s string, now time.Time) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d).Unix(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is not a time; give 2006-01-02T15:04:05Z, Unix seconds, or a duration ago such as 90m", s)
	}
	return t.Unix(), nil
}

// journalsReading reads any number of journals to one place.
type journalsReading struct {
	cmd      *journalsReadCmd
	env      *env
	jc       protocol.RoutedJournalClient
	progress *progress
	since    int64
	readers  sync.WaitGroup
	running  map[string]context.CancelFunc

	output sync.Mutex // Held for a whole number of appends.
	out    *os.File

	mu   sync.Mutex
	next map[string]int64 // Where each journal goes on.
	err  error
}

// once reads the journals that there are to their ends.
func (r *journalsReading) once() error {
	journals, err := r.cmd.selected(r.env.ctx, r.jc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.env.ctx)
	defer cancel()
	r.start(ctx, journals, cancel)
	r.readers.Wait()
	return r.err
}

// follow reads the journals that there are and will be, until it is interrupted or one cannot be read.
func (r *journalsReading) follow() error {
	selector, err := protocol.ParseLabelSelector(r.cmd.Selector)
	if err != nil {
		return fault.New(fault.Invalid, "selector: %w", err)
	}
	ctx, cancel := context.WithCancel(r.env.ctx)
	list := client.NewWatchedList(ctx, r.jc, &protocol.ListRequest{Selector: selector}, nil)
	defer func() {
		cancel()
		<-list.Done()
	}()
	for {
		select {
		case <-ctx.Done():
			r.readers.Wait()
			return r.err
		case err := <-list.UpdateCh():
			if err != nil {
				r.env.log.Warn("watch journals, trying again", "error", err)
				continue
			}
			r.start(ctx, list.List().GetJournals(), cancel)
		}
	}
}

// start reads the journals that are not read yet, and ends with those that are gone.
func (r *journalsReading) start(ctx context.Context, journals []*protocol.ListResponse_Journal, fail context.CancelFunc) {
	gone := maps.Clone(r.running)
	for _, j := range journals {
		name := j.GetSpec().GetName()
		if isSuspended(j.GetSpec()) {
			continue
		}
		delete(gone, name)
		if r.running[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		r.running[name] = stop
		r.readers.Go(func() {
			if err := r.read(ctx, name); err != nil && ctx.Err() == nil {
				r.mu.Lock()
				r.err = errors.Join(r.err, fmt.Errorf("read %s: %w", name, err))
				r.mu.Unlock()
				fail()
			}
		})
	}
	for name, stop := range gone {
		stop()
		delete(r.running, name)
	}
}

func (r *journalsReading) begin(name string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset, ok := r.next[name]; ok {
		return offset
	}
	if r.cmd.Tail {
		return int64(protocol.OffsetHead)
	}
	return r.cmd.Offset
}

// read copies one journal.
func (r *journalsReading) read(ctx context.Context, name string) error {
	rr := client.NewRetryReader(ctx, r.jc, &protocol.ReadRequest{
		Journal: name, Offset: r.begin(name), Block: r.cmd.Follow, DoNotProxy: r.cmd.Direct, BeginModTime: r.since, MaxContent: 1 << 20,
	})
	defer rr.Cancel()
	rr.Logger = r.env.log
	unit := &outputUnit{lock: &r.output}
	defer unit.end()
	buf := make([]byte, 256<<10)
	expected := int64(-1)
	for {
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
			r.progress.add(n)
			r.mu.Lock()
			r.next[name] = rr.Offset()
			r.mu.Unlock()
		}
		if err != nil || rr.Offset() >= unit.until {
			unit.end()
		}
		switch {
		case errors.Is(err, client.ErrOffsetJump):
			r.mu.Lock()
			r.next[name] = rr.Offset()
			r.mu.Unlock()
		case errors.Is(err, client.ErrOffsetNotYetAvailable), errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
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

func (r *journalsReading) loadOffsets() error {
	b, err := os.ReadFile(r.cmd.Offsets)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.next); err != nil {
		return fault.New(fault.Invalid, "%s: %w", r.cmd.Offsets, err)
	}
	return nil
}

// saveOffsets replaces the file at once, so that it may be the one that was read.
func (r *journalsReading) saveOffsets() (err error) {
	b, err := json.MarshalIndent(r.next, "", "  ")
	if err != nil {
		return err
	}
	temp := r.cmd.OffsetsOut + ".temp"
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, r.cmd.OffsetsOut)
}
