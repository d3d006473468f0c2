package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// checkLimit is the longest time that a check takes.
	checkLimit = time.Minute
	// checkEvery is the time between checks of a store that works. A store that is written to needs none.
	checkEvery = 5 * time.Minute
	// probe is the object that a check writes. It stays.
	probe = ".test/health-check"
	// deleteProbe is written and removed to check that objects can be removed.
	deleteProbe = ".gazette-delete-probe"
)

// waits are those after the first failures; the last one repeats.
var waits = []time.Duration{0, 100 * time.Millisecond, time.Second, time.Second, 10 * time.Second, 10 * time.Second, 100 * time.Second}

var errUnchecked = fault.New(fault.Transient, "the first check has not completed")

// health is what is known of a store.
type health struct {
	mu    sync.Mutex
	known chan struct{} // closed once there is a first result
	err   error
	at    time.Time // of the last result of an operation that writes
}

// observe takes the result of an operation. Writing well proves a store healthy; a check follows what fails.
func (h *health) observe(operation string, err error) {
	if operation != "put" || err != nil && !fault.IsTransient(err) || errors.Is(err, context.Canceled) {
		return
	}
	h.set(err)
}

func (h *health) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(h.err, errUnchecked) {
		close(h.known)
	}
	h.err, h.at = err, time.Now()
}

func (h *health) get() (at time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at, h.err
}

// Health returns why the store cannot be used, or nil, as far as is known.
func (s *Store) Health() error {
	_, err := s.health.get()
	return err
}

// AwaitHealth is Health once the first check has completed.
func (s *Store) AwaitHealth(ctx context.Context) error {
	select {
	case <-s.health.known:
		return s.Health()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin starts to check the store from time to time.
func (s *Store) begin() {
	s.health.known, s.health.err = make(chan struct{}), errUnchecked
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.ended.Go(func() { s.watch(ctx) })
}

func (s *Store) watch(ctx context.Context) {
	failures := 0
	for wait := time.Duration(0); ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		// What is known from real operations need not be tried.
		if at, err := s.health.get(); err == nil && !at.IsZero() && time.Since(at) < checkEvery {
			failures, wait = 0, checkEvery-time.Since(at)
			continue
		}
		err := s.check(ctx)
		if ctx.Err() != nil {
			return
		}
		s.metrics.all.checks.WithLabelValues(s.metrics.store, statusOf(err)).Inc()
		if before := s.Health(); err != nil && (before == nil || errors.Is(before, errUnchecked)) {
			s.logger.Warn("fragment store: not healthy", "store", s.url, "error", err)
		} else if err == nil && before != nil && !errors.Is(before, errUnchecked) {
			s.logger.Info("fragment store: healthy again", "store", s.url)
		}
		s.health.set(err)
		if err == nil {
			failures, wait = 0, checkEvery
			continue
		}
		wait = jitter(waits[min(failures, len(waits)-1)])
		failures++
	}
}

// jitter returns a duration that differs by up to a fifth.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(rand.Int64N(int64(d*2/5)+1)) //nolint:gosec // Not a secret.
}

// check tries everything that the store is used for.
func (s *Store) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	key := s.prefix + probe
	content := []byte(time.Now().UTC().Format(time.RFC3339Nano))
	if err := bucket.Put(ctx, s.bucket, key, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	// Other brokers write the same object, so only its form is known.
	readable := func(r io.Reader) error {
		got, err := io.ReadAll(io.LimitReader(r, 1<<10))
		if err != nil {
			return err
		}
		if _, err := time.Parse(time.RFC3339Nano, string(got)); err != nil {
			return fault.New(fault.DataLoss, "other content came back than was written")
		}
		return nil
	}
	r, err := s.bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := errors.Join(readable(r), r.Close()); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	found := false
	for info, err := range s.bucket.List(ctx, key) {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		found = found || info.Key == key
	}
	if !found {
		return fault.New(fault.Transient, "list: what was written is not listed")
	}
	if !s.Shared() {
		return nil
	}
	u, err := s.bucket.SignedURL(ctx, key, checkLimit)
	if fault.Is(err, fault.Unimplemented) {
		return nil // such fragments are read through brokers
	}
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if !strings.HasPrefix(u, "http") {
		return nil
	}
	if err := s.fetch(ctx, u, readable); err != nil {
		return fmt.Errorf("fetch a signed URL: %w", err)
	}
	return nil
}

// fetch gets a signed URL. Errors do not tell it, since whoever has it can read.
func (s *Store) fetch(ctx context.Context, u string, readable func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fault.New(fault.Internal, "the URL is not valid")
	}
	resp, err := s.registry.opts.Client.Do(req)
	if err != nil {
		return fault.New(fault.Transient, "the store does not answer: %w", errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.New(fault.Transient, "the store answers %s", resp.Status)
	}
	return readable(resp.Body)
}

// CheckDelete writes and removes an object below a path of the store, which is empty or ends with a slash.
func (s *Store) CheckDelete(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	key := s.prefix + prefix + deleteProbe
	if err := bucket.Put(ctx, s.bucket, key, strings.NewReader("probe")); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	if err := s.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}
