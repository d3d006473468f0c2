package backend

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
)

const (
	// maxGroup is the most new streams that are stored in one transaction.
	maxGroup = 64
	// maxGroups is how many such transactions run at once.
	maxGroups = 4
	// groupTimeout bounds a transaction, which does not end with the caller whose goroutine runs it.
	groupTimeout = 30 * time.Second
)

// groups stores new streams that wait at the same time in one transaction, so that they share its cost: a sync of the disk, above all. There
// is no waiting for company: one that comes alone is stored at once.
type groups struct {
	store state.Store

	mu      sync.Mutex
	running int
	waiting []*newStream
}

// newStream is a stream to be stored with its archive task.
type newStream struct {
	stream *state.Stream
	due    time.Time
	// turn receives when the stream was stored, or its caller is to store those that wait.
	turn chan bool
	err  error
}

// add stores a new stream and its archive task. It returns an error of kind Exists if the stream is there already.
func (g *groups) add(ctx context.Context, s *state.Stream, due time.Time) error {
	n := &newStream{stream: s, due: due, turn: make(chan bool, 1)}
	g.mu.Lock()
	leads := g.running < maxGroups
	if leads {
		g.running++
	} else {
		g.waiting = append(g.waiting, n)
	}
	g.mu.Unlock()
	if !leads {
		if stored := <-n.turn; stored {
			return n.err
		}
	}
	// Who leads is not among those that wait, and takes some of them along.
	g.mu.Lock()
	size := min(len(g.waiting), maxGroup-1)
	group := append(slices.Clone(g.waiting[:size]), n)
	g.waiting = slices.Delete(g.waiting, 0, size)
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupTimeout)
	defer cancel()
	g.run(ctx, group)
	for _, other := range group {
		if other != n {
			other.turn <- true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.running--
	} else {
		next := g.waiting[0]
		g.waiting = slices.Delete(g.waiting, 0, 1)
		next.turn <- false
	}
	return n.err
}

// run stores a group. What fails together is tried alone, so that each gets its own error.
func (g *groups) run(ctx context.Context, group []*newStream) {
	// Transactions that add the same streams in the same order do not wait for each other in a circle.
	slices.SortFunc(group, func(a, b *newStream) int { return strings.Compare(string(a.stream.ID), string(b.stream.ID)) })
	err := g.store.Update(ctx, func(tx state.Tx) error {
		for _, n := range group {
			n.stream.Seq = 0
			if err := tx.AddStream(n.stream); err != nil {
				return err
			}
			if err := tx.AddTask(&state.Task{Stream: n.stream, Kind: state.ArchiveTask, Available: n.due}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	if len(group) == 1 {
		group[0].err = err
		return
	}
	for i := range group {
		g.run(ctx, group[i:i+1])
	}
}
