package butler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/logs/types"
)

// send is a sender: it takes bundles and gives them to the output until there are no more. While all senders are busy, data
// accumulates in the bundler, and the next bundle is larger.
func (b *Butler) send() {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sending--
		b.broadcast()
	}()
	for {
		u := b.next()
		if u == nil {
			return
		}
		if len(u.Proto.GetEntries()) > 0 && b.takeOff(u) {
			b.land(u, b.config.Output.SendBundle(u.Proto))
		}
		u.Release()
	}
}

// takeOff notes that the output is busy with a bundle. It returns false if the bundle must not be sent any more.
func (b *Butler) takeOff(u *bundler.Bundle) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stalled {
		b.inFlight[u] = struct{}{}
	}
	return !b.stalled
}

// land notes what the output made of a bundle.
func (b *Butler) land(u *bundler.Bundle, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.inFlight, u)
	b.taken++
	if err != nil && !b.stalled {
		b.lose(u, err)
	}
}

// next takes the next bundle and tells those who watch its streams.
func (b *Butler) next() *bundler.Bundle {
	b.dispatch.Lock()
	defer b.dispatch.Unlock()
	u, err := b.bundler.Next(context.Background()) // Flush ends it
	if err != nil {
		return nil
	}
	for i, s := range u.Streams {
		if w := b.stream(s).watcher; w != nil {
			w.add(s, u.Proto.GetEntries()[i].GetLogs())
		}
	}
	for _, s := range u.Ended {
		if err := s.Err(); err != nil {
			b.log.Error("a stream was cut off", "error", err)
		}
		e := b.stream(s)
		if e.watcher != nil {
			e.watcher.end() // drains the stream when its callback is done
		} else {
			b.drain(e)
		}
	}
	return u
}

func (b *Butler) stream(s *bundler.Stream) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names.streams[s.Name()]
}

// LossError says what was lost for good.
type LossError struct {
	// Bundles and Entries are what the output was given and did not deliver.
	Bundles, Entries int
	// Streams are those that have gaps now, or no end, sorted.
	Streams []types.StreamName
	// Err is the first of the reasons.
	Err error

	streams map[types.StreamName]bool
}

func (e *LossError) Error() string {
	return fmt.Sprintf("butler: %d bundles with %d entries of %d streams were lost (%s): %v",
		e.Bundles, e.Entries, len(e.Streams), some(e.Streams), e.Err)
}

// Unwrap returns the first of the reasons.
func (e *LossError) Unwrap() error { return e.Err }

// lose counts a bundle that the output did not deliver. b.mu is held.
func (b *Butler) lose(u *bundler.Bundle, err error) {
	entries := 0
	for _, e := range u.Proto.GetEntries() {
		entries += len(e.GetLogs())
	}
	b.log.Error("a bundle was lost", "streams", len(u.Streams), "entries", entries, "error", err)
	b.lost.Bundles++
	b.lost.Entries += entries
	for _, s := range u.Streams {
		b.loseStream(s.Name(), err)
	}
}

// loseStream notes that a stream has a gap, or no end. b.mu is held.
func (b *Butler) loseStream(name types.StreamName, err error) {
	if b.lost.streams == nil {
		b.lost.Err = err
		b.lost.streams = make(map[types.StreamName]bool)
	}
	b.lost.streams[name] = true
}

// result is what Wait returns. b.mu is held.
func (b *Butler) result() error {
	var failures []error
	if b.err != nil {
		failures = append(failures, b.err)
	}
	if len(b.abandoned.Streams) > 0 {
		failures = append(failures, &AbandonedError{b.abandoned.Streams})
	}
	if b.lost.streams != nil {
		loss := b.lost
		loss.Streams = slices.Sorted(maps.Keys(loss.streams))
		failures = append(failures, &loss)
	}
	switch len(failures) {
	case 0:
		return nil
	case 1:
		return failures[0]
	}
	return errors.Join(failures...)
}
