// Package wake lets readers wait for changes of keyed things without polling.
//
// A waiter subscribes before it looks, looks, and waits when there is nothing; so no change is missed. Wake-ups are
// coalesced: a channel holds at most one, however many changes there were.
//
//	changed, stop := hub.Watch(key)
//	defer stop()
//	for !look() {
//		select {
//		case <-changed:
//		case <-ctx.Done():
//			return ctx.Err()
//		}
//	}
//
// All methods are safe for concurrent use. A key that nobody watches costs nothing.
package wake

import "sync"

// Hub wakes the watchers of keys. The zero value is ready for use.
type Hub[K comparable] struct {
	mu       sync.Mutex
	watchers map[K]map[chan struct{}]struct{}
}

// Watch subscribes to key. The channel receives after each Wake of the key, coalesced. stop ends the subscription; it must
// be called once.
func (h *Hub[K]) Watch(key K) (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = make(map[K]map[chan struct{}]struct{})
	}
	set := h.watchers[key]
	if set == nil {
		set = make(map[chan struct{}]struct{})
		h.watchers[key] = set
	}
	set[c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(set, c)
		if len(set) == 0 {
			delete(h.watchers, key)
		}
	}
}

// Wake wakes everyone who watches one of the keys. It never blocks.
func (h *Hub[K]) Wake(keys ...K) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		for c := range h.watchers[key] {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}
