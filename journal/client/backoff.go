package client

import (
	"context"
	"time"
)

// backoff returns how long to wait before another attempt, given the number of the failed one, from zero. The first steps are
// as long as brokers take to agree on a change of topology.
func backoff(attempt int) time.Duration {
	switch {
	case attempt < 0:
		return 0
	case attempt < 2:
		return 50 * time.Millisecond
	case attempt < 4:
		return 100 * time.Millisecond
	case attempt < 6:
		return time.Second
	}
	return 5 * time.Second
}

// waitBackoff waits before another attempt, or returns the error of the context if that ends first.
func waitBackoff(ctx context.Context, attempt int) error {
	timer := time.NewTimer(backoff(attempt))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
