// Package share lets calls that ask for the same at the same time share an answer.
//
// When a thousand readers are woken and all want what is new, a database is asked twice. That is so because an answer is never older
// than the call: whoever comes while a question is under way shares the next one.
//
// All methods are safe for concurrent use.
package share

import (
	"context"
	"sync"
)

// Group is calls that may share answers: those with the same key.
type Group[K comparable, V any] struct {
	life   context.Context
	end    context.CancelFunc
	closed error

	mu       sync.Mutex
	underWay map[K]*question[V]
	running  sync.WaitGroup
}

// question is one that is asked now, or one that waits for its end.
type question[V any] struct {
	done  chan struct{}
	value V
	err   error
	// next is the question of those who came too late for this one; nil if nobody did.
	next *question[V]
}

// NewGroup returns a group whose calls fail with closed after Close.
func NewGroup[K comparable, V any](closed error) *Group[K, V] {
	g := &Group[K, V]{closed: closed, underWay: make(map[K]*question[V])}
	g.life, g.end = context.WithCancel(context.Background())
	return g
}

// Do returns what ask answers. As it may serve others, too, ask is called with a context that lasts until Close, and its answer must not
// be changed. Do returns early when ctx ends.
func (g *Group[K, V]) Do(ctx context.Context, key K, ask func(context.Context) (V, error)) (V, error) {
	var none V
	q, err := g.join(key, ask)
	if err != nil {
		return none, err
	}
	select {
	case <-q.done:
		return q.value, q.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (g *Group[K, V]) join(key K, ask func(context.Context) (V, error)) (*question[V], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life.Err() != nil {
		return nil, g.closed
	}
	q := g.underWay[key]
	if q == nil {
		q = &question[V]{done: make(chan struct{})}
		g.underWay[key] = q
		g.running.Go(func() { g.run(key, q, ask) })
		return q, nil
	}
	if q.next == nil {
		q.next = &question[V]{done: make(chan struct{})}
	}
	return q.next, nil
}

// run asks until nobody waits for a next time.
func (g *Group[K, V]) run(key K, q *question[V], ask func(context.Context) (V, error)) {
	for q != nil {
		q.value, q.err = ask(g.life)
		close(q.done)
		g.mu.Lock()
		if q.next == nil {
			delete(g.underWay, key)
		} else {
			g.underWay[key] = q.next
		}
		q = q.next
		g.mu.Unlock()
	}
}

// Close ends the questions under way and waits for them.
func (g *Group[K, V]) Close() {
	g.mu.Lock()
	g.end() // nothing begins after this
	g.mu.Unlock()
	g.running.Wait()
}
