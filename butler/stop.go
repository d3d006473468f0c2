package butler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// stopLimit is how long a shutdown may take until what is stuck is left behind.
	stopLimit = 5 * time.Second
	// serverLimit is how much of it the stream servers may have.
	serverLimit = 3 * time.Second
	// drainLimit is how long what programs have written is read.
	drainLimit = 250 * time.Millisecond
)

// AbandonedError says which streams did not end when they had to.
type AbandonedError struct {
	// Streams are their names, sorted. What was read of them is not lost; what was not is.
	Streams []types.StreamName
}

func (e *AbandonedError) Error() string {
	return fmt.Sprintf("butler: %d streams did not end within %v and were cut off (%s)", len(e.Streams), stopLimit, some(e.Streams))
}

// some returns the first few names.
func some(names []types.StreamName) string {
	const most = 10
	var out []string
	for _, n := range names[:min(len(names), most)] {
		out = append(out, string(n))
	}
	if more := len(names) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// shutdown ends everything soon. The first reason is the one that Wait returns.
func (b *Butler) shutdown(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	if b.err == nil {
		b.err = err
	}
	if b.stopping {
		return
	}
	b.stopping, b.activated = true, true
	b.broadcast()
	b.stopper.Go(b.stop)
}

func (b *Butler) isStopping() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stopping
}

// stop carries out a shutdown.
func (b *Butler) stop() {
	all, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	await := func(limit time.Duration, condition func() bool) {
		ctx, cancel := context.WithTimeout(all, limit)
		defer cancel()
		_ = b.await(ctx, condition) // what was not done in time is dealt with below
	}
	b.closeServers()
	await(serverLimit, func() bool { return b.serving == 0 })
	for _, r := range b.endStreams() {
		r.drain()
	}
	ended := func() bool { return b.running == 0 }
	await(drainLimit+drainLimit/2, ended)
	b.cancel() // closes those that are left
	await(stopLimit, func() bool { return ended() && b.serving == 0 })
	b.abandon()
	b.leaveStuck()
}

// endStreams refuses all further streams and returns the readers of those that there are.
func (b *Butler) endStreams() []*reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names.ending = true
	var readers []*reader
	for _, e := range b.names.streams {
		if e.reader != nil {
			readers = append(readers, e.reader)
		}
	}
	return readers
}

// abandon ends the streams whose readers did not.
func (b *Butler) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.names.streams {
		if e.ended || e.reader == nil {
			continue
		}
		e.ended = true
		b.running--
		b.abandoned.Streams = append(b.abandoned.Streams, e.name)
		reason, note := fmt.Sprintf("cut off: it did not end within %v of the end of the Butler", stopLimit), ""
		if e.reader.s.Desc().GetStreamType() == logpb.StreamType_TEXT {
			note = fmt.Sprintf("\n[daybook: the stream was %s]\n", reason)
		}
		e.reader.s.Abandon(note, &logpb.StreamEnd{Reason: reason})
		b.log.Error("a stream did not end in time and was cut off", "stream", e.name)
	}
	slices.Sort(b.abandoned.Streams)
	b.stopped = true
	b.broadcast()
}

// leaveStuck stops waiting for callbacks that do not return, and for an output that takes nothing, until all is done.
func (b *Butler) leaveStuck() {
	taken, since := -1, time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := b.await(ctx, func() bool { return b.done })
		cancel()
		if err == nil {
			return
		}
		b.mu.Lock()
		if b.taken != taken || len(b.inFlight) == 0 {
			taken, since = b.taken, time.Now()
		}
		stalled := time.Since(since) >= stopLimit && !b.stalled
		if stalled {
			b.giveUpOutput()
		}
		watchers := slices.Collect(maps.Keys(b.watchers))
		b.mu.Unlock()
		for _, w := range watchers {
			if stalled {
				w.end() // nobody will bring its stream's
			}
			if w.busy() >= stopLimit {
				w.leave()
			}
		}
	}
}

// giveUpOutput counts what the output does not take as lost. b.mu is held.
func (b *Butler) giveUpOutput() {
	err := fault.New(fault.Deadline, "the output took nothing for %v at the end", stopLimit)
	b.stalled = true
	for u := range b.inFlight {
		b.lose(u, err)
	}
	for _, e := range b.names.streams {
		read := e.ended || e.reader != nil
		dispatched := e.drained || e.watcher != nil && e.watcher.hasEnded()
		if read && !dispatched {
			b.loseStream(e.name, err)
		}
	}
	b.broadcast()
}
