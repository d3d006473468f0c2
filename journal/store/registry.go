package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Options are what a Registry is made of.
type Options struct {
	// Root is the directory below which the directories of file stores lie. Without it these cannot be used. It must exist,
	// and is never made: it may be a disk that is not mounted.
	Root string
	// Open opens the bucket of a store, given its URL and its arguments by lower-case names; nil opens what the URL says.
	Open func(ctx context.Context, u *url.URL, args map[string]string) (bucket.Bucket, error)
	// Client fetches signed URLs when a store's health is checked; nil is http.DefaultClient.
	Client *http.Client
	// Logger takes reports; nil drops them.
	Logger *slog.Logger
	// Registerer takes metrics; nil drops them.
	Registerer prometheus.Registerer
}

// Registry has the stores that are in use. It is made by NewRegistry.
type Registry struct {
	opts    Options
	metrics *allMetrics

	mu     sync.Mutex
	stores map[protocol.FragmentStore]*Store
	// opening has the stores that are being opened, each with a channel that is closed when that has ended.
	opening map[protocol.FragmentStore]chan struct{}
	closed  bool
	ending  sync.WaitGroup
}

// NewRegistry returns a registry without stores.
func NewRegistry(o Options) *Registry {
	if o.Open == nil {
		o.Open = opener(o.Root)
	}
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registry{
		opts: o, metrics: newMetrics(o.Registerer), stores: make(map[protocol.FragmentStore]*Store),
		opening: make(map[protocol.FragmentStore]chan struct{}),
	}
}

var errClosed = fault.New(fault.Transient, "the stores are closed")

// Acquire returns the store that a URL names. It is opened if nobody uses it; to reach it is not tried. The caller must call
// Release.
func (r *Registry) Acquire(ctx context.Context, name protocol.FragmentStore) (*Store, error) {
	for {
		s, opening, err := r.reserve(name)
		if s != nil || err != nil {
			return s, err
		}
		if opening == nil {
			return r.open(ctx, name)
		}
		select {
		case <-opening:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// reserve returns a store that is open, or a channel that is closed when somebody else has tried to open it. With neither the
// caller has to open it.
func (r *Registry) reserve(name protocol.FragmentStore) (*Store, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, fmt.Errorf("open fragment store %s: %w", name, errClosed)
	}
	if s := r.stores[name]; s != nil {
		s.users++
		return s, nil, nil
	}
	if opening := r.opening[name]; opening != nil {
		return nil, opening, nil
	}
	r.opening[name] = make(chan struct{})
	return nil, nil, nil
}

// open opens a store that was reserved. That may take its time, as credentials are looked for, and holds up no other store.
func (r *Registry) open(ctx context.Context, name protocol.FragmentStore) (*Store, error) {
	s, err := newStore(ctx, r, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.opening[name])
	delete(r.opening, name)
	if err == nil && r.closed {
		err = errors.Join(errClosed, s.bucket.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("open fragment store %s: %w", name, err)
	}
	s.begin()
	s.users++
	r.stores[name] = s
	r.metrics.active.Set(float64(len(r.stores)))
	return s, nil
}

// Release ends a use.
func (s *Store) Release() {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if r.stores[s.url] == s {
		delete(r.stores, s.url)
		r.metrics.active.Set(float64(len(r.stores)))
	}
	s.stop()
	// The end of a check that is under way is awaited by whoever closes the registry.
	r.ending.Go(func() {
		s.ended.Wait()
		if err := s.bucket.Close(); err != nil {
			s.logger.Warn("fragment store: cannot close", "store", s.url, "error", err)
		}
	})
}

// Close waits until stores that were released have ended. Those that are in use are an error.
func (r *Registry) Close() error {
	r.mu.Lock()
	r.closed = true
	var errs []error
	for name := range r.stores {
		errs = append(errs, fault.New(fault.Internal, "fragment store %s is in use", name))
	}
	r.mu.Unlock()
	r.ending.Wait()
	return errors.Join(errs...)
}
