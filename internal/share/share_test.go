package share

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

var errClosed = errors.New("closed")

// Who asks while a question is under way shares the next answer, and does not get one that is older than the call.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string, int](errClosed)
		answer := make(chan int)
		asked := 0
		ask := func(ctx context.Context) (int, error) {
			asked++
			select {
			case n := <-answer:
				return n, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		var wg sync.WaitGroup
		call := func(ctx context.Context, want int, wantErr error) {
			wg.Go(func() {
				if got, err := g.Do(ctx, "k", ask); got != want || !errors.Is(err, wantErr) {
					t.Errorf("got %d, %v; want %d, %v", got, err, want, wantErr)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(context.Background())
		call(t.Context(), 1, nil)
		for range 100 {
			call(t.Context(), 2, nil)
		}
		call(ctx, 0, context.Canceled)
		cancel()
		synctest.Wait()
		answer <- 1
		answer <- 2
		wg.Wait()
		synctest.Wait()
		if asked != 2 || len(g.underWay) != 0 {
			t.Errorf("%d questions for 102 calls, and %d are left", asked, len(g.underWay))
		}

		// Close ends what is under way.
		call(t.Context(), 0, context.Canceled)
		g.Close()
		wg.Wait()
		call(t.Context(), 0, errClosed)
		wg.Wait()
	})
}
