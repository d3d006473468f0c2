package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// DefaultSize is the default (maximum) size of the LRU cache.
	DefaultSize = 1024 * 1024
	// DefaultExpiration is the default expiration value.
	DefaultExpiration = 10 * time.Minute
)

// NewCache wraps c with a cache of at most size streams, each remembered for the given time. If size is <= 0, DefaultSize
// is used; if expiration is <= 0, DefaultExpiration.
//
// Concurrent requests for one stream become one call of c. It runs under a context of its own, which ends when nobody waits
// any more, so that one caller who gives up does not harm the others. Only answers are remembered, never failures, and they
// are kept apart by secret: whoever sends a wrong secret or a bad descriptor gets a refusal that nobody else sees.
//
// The secret and the descriptor of a request must not be changed afterwards.
//
// The value that is returned is also a prometheus.Collector of the cache's hits and misses.
func NewCache(c Coordinator, size int, expiration time.Duration) Coordinator {
	if size <= 0 {
		size = DefaultSize
	}
	if expiration <= 0 {
		expiration = DefaultExpiration
	}
	streams, err := simplelru.NewLRU[key, *entry](size, nil)
	if err != nil {
		panic(err) // impossible: the size is positive
	}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "daybook_collector_coordinator_cache_lookups_total",
		Help: "Registrations looked up in the cache of stream states, by whether the answer was there or on its way.",
	}, []string{"hit"})
	return &cache{
		Collector:  lookups,
		hits:       lookups.WithLabelValues("true"),
		misses:     lookups.WithLabelValues("false"),
		next:       c,
		expiration: expiration,
		streams:    streams,
	}
}

// Cached returns c if it is a cache already, and otherwise a cache of DefaultSize for it.
func Cached(c Coordinator, expiration time.Duration) Coordinator {
	if _, ok := c.(*cache); ok {
		return c
	}
	return NewCache(c, DefaultSize, expiration)
}

type cache struct {
	prometheus.Collector // of hits and misses
	hits, misses         prometheus.Counter
	next                 Coordinator
	expiration           time.Duration

	mu      sync.Mutex
	streams *simplelru.LRU[key, *entry]
}

// key tells streams apart. The secret is part of it, as a hash, because the cache must not hand the answer for one secret to
// the sender of another.
type key struct {
	project types.Project
	path    types.StreamPath
	secret  [sha256.Size]byte
}

// entry is what the cache knows of one stream.
type entry struct {
	expires time.Time

	mu sync.Mutex
	// state is the answer to a registration, with the end of the stream if that became known since. It is replaced, never
	// changed.
	state *LogStreamState
	// end is the end of the stream, when the Coordinator is known to know it.
	end *end
	// The calls under way.
	register, terminate *call
}

// end is how a stream ended.
type end struct {
	index types.MessageIndex
	empty bool
}

// call is a call of the Coordinator that any number of callers wait for.
type call struct {
	register  LogStreamState // arguments of the one or
	desc      []byte
	terminate TerminateRequest // of the other

	waiters int // guarded by the entry's lock
	cancel  context.CancelFunc
	done    chan struct{}
	state   *LogStreamState // these two are set before done is closed
	err     error
}

// entry returns the stream's entry, a new one if there is none or it has expired.
func (c *cache) entry(k key) *entry {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.streams.Get(k); ok && now.Before(e.expires) {
		return e
	}
	e := &entry{expires: now.Add(c.expiration)}
	c.streams.Add(k, e)
	return e
}

func (c *cache) RegisterStream(ctx context.Context, s *LogStreamState, desc []byte) (*LogStreamState, error) {
	e := c.entry(key{s.Project, s.Path, sha256.Sum256(s.Secret)})
	for {
		e.mu.Lock()
		if e.state != nil {
			state := e.state
			e.mu.Unlock()
			c.hits.Inc()
			return state, nil
		}
		own := e.register == nil
		if own {
			e.register = &call{register: *s, desc: desc}
			e.start(ctx, e.register, func(ctx context.Context, r *call) error {
				state, err := c.next.RegisterStream(ctx, &r.register, r.desc)
				r.state = state
				return err
			}, e.registered)
		}
		call := e.register
		call.waiters++
		e.mu.Unlock()
		if own {
			c.misses.Inc()
		} else {
			c.hits.Inc()
		}

		if err := e.wait(ctx, call); err != nil {
			return nil, err
		}
		if call.err != nil && !own && !fault.IsTransient(call.err) && !call.registers(s, desc) {
			continue // somebody else's request was refused; that says nothing about this one
		}
		return call.state, call.err
	}
}

func (c *cache) TerminateStream(ctx context.Context, t *TerminateRequest) error {
	e := c.entry(key{t.Project, t.Path, sha256.Sum256(t.Secret)})
	for {
		e.mu.Lock()
		if e.end != nil {
			e.mu.Unlock()
			return nil
		}
		own := e.terminate == nil
		if own {
			e.terminate = &call{terminate: *t}
			e.start(ctx, e.terminate, func(ctx context.Context, r *call) error {
				return c.next.TerminateStream(ctx, &r.terminate)
			}, e.terminated)
		}
		call := e.terminate
		call.waiters++
		e.mu.Unlock()

		if err := e.wait(ctx, call); err != nil {
			return err
		}
		if call.err != nil && !own && !fault.IsTransient(call.err) && !call.terminates(t) {
			continue
		}
		return call.err
	}
}

// start runs do in a goroutine, and finish, with the entry locked, when do has returned. It is called with the entry locked.
func (e *entry) start(ctx context.Context, r *call, do func(context.Context, *call) error, finish func(*call)) {
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.done = make(chan struct{})
	go func() {
		defer r.cancel()
		err := do(ctx, r)
		e.mu.Lock()
		defer e.mu.Unlock()
		r.err = err
		finish(r)
		close(r.done)
	}()
}

// wait waits for the call. The last caller to give up ends the call, and makes room for a new one.
func (e *entry) wait(ctx context.Context, r *call) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	r.waiters--
	last := r.waiters == 0
	if last {
		e.forget(r)
		r.cancel()
	}
	e.mu.Unlock()
	if last {
		<-r.done
	}
	return ctx.Err()
}

func (e *entry) forget(r *call) {
	if e.register == r {
		e.register = nil
	}
	if e.terminate == r {
		e.terminate = nil
	}
}

func (e *entry) registered(r *call) {
	e.forget(r)
	if r.err != nil {
		return
	}
	if e.end == nil && r.state.Terminated() {
		e.end = &end{r.state.TerminalIndex, r.state.TerminalEmpty}
	}
	e.state = r.state
	e.showEnd()
	r.state = e.state
}

func (e *entry) terminated(r *call) {
	e.forget(r)
	if r.err != nil {
		return
	}
	e.end = &end{r.terminate.TerminalIndex, r.terminate.TerminalEmpty}
	e.showEnd()
}

// showEnd replaces the state, if there is one that has no end although it is known, by a copy that has.
func (e *entry) showEnd() {
	if e.end == nil || e.state == nil || e.state.Terminated() {
		return
	}
	s := *e.state
	s.TerminalIndex, s.TerminalEmpty = e.end.index, e.end.empty
	if s.TerminalEmpty {
		s.TerminalIndex = -1
	}
	e.state = &s
}

// registers reports whether r is a registration with the same arguments.
func (r *call) registers(s *LogStreamState, desc []byte) bool {
	return r.register.ProtoVersion == s.ProtoVersion && r.register.TerminalIndex == s.TerminalIndex &&
		r.register.TerminalEmpty == s.TerminalEmpty && bytes.Equal(r.desc, desc)
}

// terminates reports whether r is a termination with the same arguments.
func (r *call) terminates(t *TerminateRequest) bool {
	return r.terminate.ID == t.ID && r.terminate.TerminalIndex == t.TerminalIndex && r.terminate.TerminalEmpty == t.TerminalEmpty
}
