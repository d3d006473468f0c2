package process

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// feedSize is how much output may wait for the Butler before it pushes back.
	feedSize = 1 << 20
	// patience is how long a command is held while nothing at all is taken. Whoever takes nothing for so long (a full spool,
	// a dead disk) would hold it for ever; from then on output is dropped, and counted, until there is room again.
	patience = 5 * time.Second
)

// feed passes the output of a command to the Butler. It never holds the command for good: see patience. What had to be dropped
// is marked in the stream where it is missing.
type feed struct {
	mu     sync.Mutex
	change sync.Cond
	buf    []byte // ring
	at, n  int

	before, after []byte // markers to be read before and after what is in the ring

	dropped int64 // since the last marker
	total   int64 // dropped in all
	stuck   bool
	// lingering says that the command has ended and only what is left in its pipe is awaited.
	lingering bool
	eof       bool
	closed    bool
}

func newFeed() *feed {
	f := &feed{buf: make([]byte, feedSize)}
	f.change.L = &f.mu
	return f
}

// Write never fails and never takes much longer than patience.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := len(p)
	for len(p) > 0 && !f.closed {
		if f.n == len(f.buf) && !f.waitForRoom() {
			break
		}
		if f.stuck || f.dropped > 0 {
			// Resume only on an empty ring, so that gaps are few and the marker stands where the bytes are missing.
			if f.n > 0 || len(f.before) > 0 {
				break
			}
			f.before = f.mark()
			f.stuck = false
		}
		end := (f.at + f.n) % len(f.buf)
		room := len(f.buf) - f.n
		if end+room > len(f.buf) {
			room = len(f.buf) - end
		}
		k := copy(f.buf[end:end+room], p)
		p = p[k:]
		f.n += k
		f.change.Broadcast()
	}
	if !f.closed {
		f.dropped += int64(len(p))
	}
	f.total += int64(len(p))
	return total, nil
}

// mark returns the text that stands for what was dropped since the last one.
func (f *feed) mark() []byte {
	m := fmt.Appendf(nil, "\n[daybook: %d bytes of output are missing here: the spool took nothing for %v]\n", f.dropped, patience)
	f.dropped = 0
	return m
}

// Dropped returns how many bytes were dropped so far.
func (f *feed) Dropped() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// waitForRoom waits while the ring is full, and tells whether there is room.
func (f *feed) waitForRoom() bool {
	if f.stuck {
		return false
	}
	var late bool
	timer := time.AfterFunc(patience, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		late = true
		f.change.Broadcast()
	})
	defer timer.Stop()
	for f.n == len(f.buf) && !f.closed && !late {
		f.change.Wait()
	}
	f.stuck = f.n == len(f.buf) && !f.closed
	return !f.stuck
}

// CloseWrite marks the end of the output.
func (f *feed) CloseWrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eof = true
	if f.dropped > 0 {
		f.after = f.mark()
	}
	f.change.Broadcast()
}

// Read implements io.Reader for the Butler.
func (f *feed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.n == 0 && len(f.before)+len(f.after) == 0 && !f.eof && !f.closed {
		f.change.Wait()
	}
	take := func(marker *[]byte) int {
		k := copy(p, *marker)
		*marker = (*marker)[k:]
		return k
	}
	switch {
	case f.closed:
		return 0, io.ErrClosedPipe
	case len(f.before) > 0:
		return take(&f.before), nil
	case f.n > 0:
		k := copy(p, f.buf[f.at:min(f.at+f.n, len(f.buf))])
		f.at = (f.at + k) % len(f.buf)
		f.n -= k
		f.change.Broadcast()
		return k, nil
	case len(f.after) > 0:
		return take(&f.after), nil
	}
	return 0, io.EOF
}

// Close is called by the Butler when it takes no more.
func (f *feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.change.Broadcast()
	return nil
}
