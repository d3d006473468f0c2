package broker

import (
	"slices"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// pausedLimit is how many readers are kept, and pausedLife for how long. Each costs a connection to its store, and what
	// its decoder needs, which is some MiB.
	pausedLimit = 8
	pausedLife  = 5 * time.Second
)

// pausedReaders keeps readers of compressed fragments that stopped in the middle, for whoever goes on there: a client that
// fetches a fragment piece by piece would have it decompressed from its beginning for each one.
type pausedReaders struct {
	mu sync.Mutex
	// readers has the one first that stopped first.
	readers []*storedContent
	closed  bool
}

// put keeps a reader, and reports whether it does.
func (p *pausedReaders) put(c *storedContent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if len(p.readers) == pausedLimit {
		p.remove(0).shutQuietly()
	}
	c.expire = time.AfterFunc(pausedLife, func() { p.expired(c) })
	p.readers = append(p.readers, c)
	return true
}

// take returns the reader of a fragment that stopped closest before an offset, or nil. It is the caller's.
func (p *pausedReaders) take(path string, from protocol.Offset) *storedContent {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := -1
	for i, c := range p.readers {
		if c.path == path && c.at <= from && (best < 0 || c.at > p.readers[best].at) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return p.remove(best)
}

// remove removes a reader from the list.
func (p *pausedReaders) remove(i int) *storedContent {
	c := p.readers[i]
	c.expire.Stop()
	p.readers = slices.Delete(p.readers, i, i+1)
	return c
}

func (p *pausedReaders) expired(c *storedContent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.readers, c); i >= 0 {
		p.remove(i).shutQuietly()
	}
}

// close closes all readers, and keeps none from now on.
func (p *pausedReaders) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for len(p.readers) != 0 {
		p.remove(0).shutQuietly()
	}
}
