package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// listingWait is how long a request about a journal that was never written here waits for the first listing of its stores.
const listingWait = 10 * time.Second

// listingGrace is how long after a shelf is made appends to a journal that was written here wait for the first listing. Only
// that tells if what is here is an old copy of what was. A store that is down stops nobody.
const listingGrace = 2 * time.Second

// listingLimit is the longest time that a listing takes.
const listingLimit = 5 * time.Minute

// shelf is what is known of a journal's stores beyond what the engine has a record of.
type shelf struct {
	journal protocol.Journal
	created int64
	names   []protocol.FragmentStore
	began   time.Time
	begun   atomic.Bool  // the first listing
	refresh atomic.Int64 // a time.Duration

	content atomic.Pointer[shelved]
	// listed is closed after the first listing, failed after the first failure.
	listed, failed         chan struct{}
	listedOnce, failedOnce sync.Once

	// ctx ends with the shelf.
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex // held during a listing; guards what follows
	// stores are open while the shelf is in use.
	stores   []*store.Store
	failures int
	closed   bool

	errMu sync.Mutex
	err   error // of the last listing
}

// shelved is what a listing found. It is not modified.
type shelved struct {
	listed  coverSet
	missing map[protocol.Offset]bool
}

func newShelf(ctx context.Context, spec *engine.Spec) *shelf {
	s := &shelf{
		journal: protocol.Journal(spec.GetName()), created: spec.Created, began: time.Now(),
		listed: make(chan struct{}), failed: make(chan struct{}),
	}
	for _, name := range spec.GetFragment().GetStores() {
		s.names = append(s.names, protocol.FragmentStore(name))
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.refresh.Store(int64(refreshOf(spec)))
	s.content.Store(new(shelved))
	return s
}

func refreshOf(spec *engine.Spec) time.Duration {
	return max(time.Second, spec.GetFragment().GetRefreshInterval().AsDuration())
}

// serves reports whether the shelf is that of a spec.
func (s *shelf) serves(spec *engine.Spec) bool {
	return spec != nil && spec.Created == s.created && slices.EqualFunc(s.names, spec.GetFragment().GetStores(),
		func(x protocol.FragmentStore, y string) bool { return string(x) == y })
}

// close ends a listing that is under way, and releases the stores.
func (s *shelf) close() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, st := range s.stores {
		st.Release()
	}
	s.stores = nil
}

// open opens the stores that are not open yet.
func (s *shelf) open(ctx context.Context, r *store.Registry) error {
	for _, name := range s.names[len(s.stores):] {
		st, err := r.Acquire(ctx, name)
		if err != nil {
			return err
		}
		s.stores = append(s.stores, st)
	}
	return nil
}

// list lists the stores. When one of them fails, what was known before holds. It returns how long to wait before the next time.
func (s *shelf) list(b *Broker) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	refresh := time.Duration(s.refresh.Load())
	if s.closed {
		return refresh
	}
	ctx, cancel := context.WithTimeout(s.ctx, listingLimit)
	defer cancel()
	err := s.try(ctx, b)
	s.errMu.Lock()
	s.err = err
	s.errMu.Unlock()
	if err == nil {
		s.failures = 0
		s.listedOnce.Do(func() { close(s.listed) })
		b.listedHub.Wake(s.journal)
		return refresh
	}
	s.failedOnce.Do(func() { close(s.failed) })
	b.metrics.listingFailures.Inc()
	if s.failures++; s.failures == 1 {
		b.logger.Warn("cannot list the fragments of a journal; what is known of them holds", "journal", s.journal, "error", err)
	}
	// The first listing is retried soon, and any other at least as often as it is due.
	return min(backoff(100*time.Millisecond, s.failures), refresh)
}

func (s *shelf) try(ctx context.Context, b *Broker) error {
	if err := s.open(ctx, b.stores); err != nil {
		return err
	}
	// What is recorded while the stores are listed need not be in the listing.
	before, err := b.engine.Load(ctx, s.journal)
	if err != nil {
		return err
	}
	var found coverSet
	seen := make(map[protocol.FragmentStore]map[protocol.Offset]bool)
	for i, st := range s.stores {
		begins := make(map[protocol.Offset]bool)
		seen[s.names[i]] = begins
		for f, err := range st.List(ctx, s.journal) {
			if err != nil {
				return err
			}
			begins[protocol.Offset(f.GetBegin())] = true
			found, _ = found.add(indexedOf(f))
		}
	}
	next := &shelved{missing: make(map[protocol.Offset]bool)}
	for _, f := range before.Stored {
		if begins := seen[f.Store]; begins != nil && !begins[f.Begin] {
			next.missing[f.Begin] = true
		}
	}
	if n := len(next.missing); n > len(s.content.Load().missing) {
		b.logger.Warn("fragments of a journal are gone from its stores, and were not removed from here", "journal", s.journal, "fragments", n)
	}
	state, err := b.engine.Load(ctx, s.journal)
	if err != nil {
		return err
	}
	next.listed = unrecorded(found, state.Stored)
	s.content.Store(next)
	return nil
}

// unrecorded returns the fragments that the engine does not know to be stored.
func unrecorded(found coverSet, stored []engine.StoredFragment) coverSet {
	return slices.DeleteFunc(found, func(f indexed) bool {
		i, ok := slices.BinarySearchFunc(stored, f.Begin, func(x engine.StoredFragment, begin protocol.Offset) int {
			return int(min(1, max(-1, x.Begin-begin)))
		})
		return ok && stored[i].End == f.End
	})
}

// update replaces what is known without a listing.
func (s *shelf) update(change func(next *shelved)) {
	for {
		old := s.content.Load()
		next := &shelved{listed: slices.Clone(old.listed), missing: maps.Clone(old.missing)}
		if next.missing == nil {
			next.missing = make(map[protocol.Offset]bool)
		}
		change(next)
		if s.content.CompareAndSwap(old, next) {
			return
		}
	}
}

// view returns the index of a journal.
func (b *Broker) view(ctx context.Context, journal protocol.Journal) (view, error) {
	state, err := b.engine.Load(ctx, journal)
	if err != nil {
		return view{}, err
	}
	s := b.keeper.shelf(journal)
	if s == nil || s.created != state.Created {
		return newView(state, nil), nil
	}
	return newView(state, s.content.Load()), nil
}

// awaitListing waits until what stores have of a journal is known, if it matters: a journal that was written here has a record
// of what it stored, which is good enough to read, and to append to when the stores do not answer soon. The error says that the
// stores cannot be listed.
func (b *Broker) awaitListing(ctx context.Context, spec *engine.Spec, reads bool) error {
	if b.stores == nil || len(spec.GetFragment().GetStores()) == 0 {
		return nil
	}
	if s := b.keeper.shelf(protocol.Journal(spec.GetName())); s != nil && s.created == spec.Created && s.isListed() {
		return nil
	}
	state, err := b.engine.Load(ctx, protocol.Journal(spec.GetName()))
	written := state.Head > 0
	if err != nil || written && reads {
		return err
	}
	s, err := b.keeper.awaitShelf(ctx, spec)
	if err != nil {
		return err
	}
	b.keeper.demand(s)
	wait := listingWait
	if written {
		wait = time.Until(s.began.Add(listingGrace))
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case <-s.listed:
		return nil
	case <-s.failed:
		if written {
			return nil
		}
		return s.failure()
	case <-timeout.C:
		if written {
			return nil
		}
		return fault.New(fault.Transient, "the stores of %s have not been listed yet", spec.GetName())
	case <-b.closing:
		return errClosing
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *shelf) isListed() bool {
	select {
	case <-s.listed:
		return true
	default:
		return false
	}
}

// failure returns why the stores are not listed.
func (s *shelf) failure() error {
	s.errMu.Lock()
	defer s.errMu.Unlock()
	if s.isListed() {
		return nil
	}
	return s.err
}

// errListing says that nobody knows what stores have of a journal.
var errListing = errors.New("the stores of the journal cannot be listed")

// listedView returns the index of a journal that an append is to go to, with what stores have of it.
func (b *Broker) listedView(ctx context.Context, spec *engine.Spec) (view, error) {
	if err := b.awaitListing(ctx, spec, false); err != nil {
		if ctx.Err() != nil || fault.Is(err, fault.NotFound) || errors.Is(err, errClosing) {
			return view{}, err
		}
		return view{}, fmt.Errorf("%w: %w", errListing, err)
	}
	return b.view(ctx, protocol.Journal(spec.GetName()))
}
