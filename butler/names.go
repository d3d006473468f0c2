package butler

import (
	"maps"
	"slices"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// stream is what the Butler knows of a stream besides its data. A stream that has ended stays, since its name is never used again.
type stream struct {
	name types.StreamName
	// watcher is nil if nobody watches the stream.
	watcher *watcher
	// reader is nil before the stream is read, and when it has ended.
	reader *reader
	// ended says that it is not read any more; drained, that its end was dispatched, and seen by its callback.
	ended, drained bool
}

// names are the streams of a Butler and the namespaces that take no more. The Butler's mutex guards it.
type names struct {
	streams map[types.StreamName]*stream
	closed  map[types.StreamName]bool
	// ending says that there are to be no more streams at all.
	ending bool
}

func newNames() names {
	return names{streams: make(map[types.StreamName]*stream), closed: make(map[types.StreamName]bool)}
}

func (n *names) add(name types.StreamName) (*stream, error) {
	if n.ending {
		return nil, fault.New(fault.Precondition, "the Butler is ending")
	}
	for _, ns := range name.Namespaces() {
		if n.closed[ns] {
			return nil, fault.New(fault.Precondition, "namespace %q is already closed", ns)
		}
	}
	if n.streams[name] != nil {
		return nil, fault.New(fault.Exists, "duplicate registration; a name is used once in the life of a Butler")
	}
	s := &stream{name: name}
	n.streams[name] = s
	return s, nil
}

func (n *names) all() []types.StreamName { return slices.Sorted(maps.Keys(n.streams)) }

func (n *names) close(ns types.StreamName) { n.closed[ns] = true }

// open returns the streams of a namespace that have not drained, sorted.
func (n *names) open(ns types.StreamName) []types.StreamName {
	var out []types.StreamName
	for name, s := range n.streams {
		if !s.drained && strings.HasPrefix(string(name), string(ns)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// reserve takes a name for a stream that is about to run.
func (b *Butler) reserve(name types.StreamName) (*stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished {
		return nil, fault.New(fault.Precondition, "the Butler has finished")
	}
	s, err := b.names.add(name)
	if err != nil {
		return nil, err
	}
	b.running++
	return s, nil
}

// release gives up a name whose stream could not be started. Its callback sees the end.
func (b *Butler) release(s *stream) {
	if s.watcher != nil {
		s.watcher.end()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.names.streams, s.name)
	b.running--
	b.broadcast()
}

// drain notes that a stream's end was dispatched, and seen by its callback.
func (b *Butler) drain(s *stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.watcher != nil {
		delete(b.watchers, s.watcher)
	}
	s.drained = true
	b.broadcast()
}
