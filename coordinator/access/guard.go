package access

import (
	"context"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Guard ends calls that last, when the credential that they began with is not good any more. It asks about each credential once
// every so often, however many calls it carries.
type Guard struct {
	chain Chain
	every time.Duration

	mu      sync.Mutex
	watched map[string]*watch
	running sync.WaitGroup
}

// watch is of one credential.
type watch struct {
	calls int
	// bad ends with the refusal as its cause when the credential is not good; stop ends it when no call is left.
	bad    context.Context
	refuse context.CancelCauseFunc
	stop   context.CancelFunc
}

// NewGuard returns a Guard of the credentials of a chain.
func NewGuard(c Chain) *Guard {
	return &Guard{chain: c, every: cacheLife, watched: make(map[string]*watch)}
}

// Watch returns a context that ends, with the refusal as its cause, when a credential is not good any more. The call ends with release,
// which must be called. No credential is always good.
func (g *Guard) Watch(ctx context.Context, credential string) (_ context.Context, release func()) {
	if credential == "" {
		return ctx, func() {}
	}
	g.mu.Lock()
	w := g.watched[credential]
	if w == nil {
		w = g.start(credential)
		g.watched[credential] = w
	}
	w.calls++
	g.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(w.bad, func() { cancel(context.Cause(w.bad)) })
	return ctx, func() {
		unhook()
		cancel(nil)
		g.mu.Lock()
		defer g.mu.Unlock()
		if w.calls--; w.calls == 0 {
			w.stop()
			if g.watched[credential] == w {
				delete(g.watched, credential)
			}
		}
	}
}

func (g *Guard) start(credential string) *watch {
	ctx, stop := context.WithCancel(context.Background())
	w := &watch{stop: stop}
	w.bad, w.refuse = context.WithCancelCause(context.Background())
	g.running.Go(func() {
		tick := time.NewTicker(g.every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := g.chain.Authenticate(ctx, credential)
			if !fault.Is(err, fault.Unauthenticated) {
				continue // good, or it cannot be found out now
			}
			g.mu.Lock()
			if g.watched[credential] == w {
				delete(g.watched, credential) // whoever comes now is refused at the door
			}
			g.mu.Unlock()
			w.refuse(err)
			return
		}
	})
	return w
}

// Wait returns when nothing is watched any more: after the last call was released.
func (g *Guard) Wait() { g.running.Wait() }
