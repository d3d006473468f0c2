package process

import (
	"io"
	"sync"
)

// feedSize is how much output may wait for the Butler before it pushes back.
const feedSize = 1 << 20

// feed passes the output of a command to the Butler, through a ring that evens out short stalls. Whether the command is held when the
// Butler stalls for longer is the Butler's decision.
type feed struct {
	mu     sync.Mutex
	change sync.Cond
	buf    []byte // ring
	at, n  int
	eof    bool
	closed bool
}

func newFeed() *feed {
	f := &feed{buf: make([]byte, feedSize)}
	f.change.L = &f.mu
	return f
}

// Write waits for room. It never fails: what nobody reads any more is dropped.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := len(p)
	for len(p) > 0 && !f.closed {
		if f.n == len(f.buf) {
			f.change.Wait()
			continue
		}
		end := (f.at + f.n) % len(f.buf)
		room := min(len(f.buf)-f.n, len(f.buf)-end)
		k := copy(f.buf[end:end+room], p)
		p = p[k:]
		f.n += k
		f.change.Broadcast()
	}
	return total, nil
}

// CloseWrite marks the end of the output.
func (f *feed) CloseWrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eof = true
	f.change.Broadcast()
}

// Read implements io.Reader for the Butler.
func (f *feed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.n == 0 && !f.eof && !f.closed {
		f.change.Wait()
	}
	switch {
	case f.closed:
		return 0, io.ErrClosedPipe
	case f.n == 0:
		return 0, io.EOF
	}
	k := copy(p, f.buf[f.at:min(f.at+f.n, len(f.buf))])
	f.at = (f.at + k) % len(f.buf)
	f.n -= k
	f.change.Broadcast()
	return k, nil
}

// Close is called by the Butler when it takes no more.
func (f *feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.change.Broadcast()
	return nil
}
