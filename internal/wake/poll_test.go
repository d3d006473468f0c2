package wake

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Poller
		p.Began() // of one that never looks
		ctx, cancel := context.WithCancel(t.Context())
		var looks, told atomic.Int32
		var waiting, broken atomic.Bool
		p.Start(ctx, 40*time.Millisecond, func(context.Context) (bool, error) {
			looks.Add(1)
			if broken.Load() {
				return true, errors.New("away")
			}
			return waiting.Load(), nil
		}, func(error) { told.Add(1) })
		after := func(d time.Duration, wantLooks, wantTold int32) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n, m := looks.Swap(0), told.Swap(0); n != wantLooks || m != wantTold {
				t.Errorf("%d looks, want %d; told of %d failures, want %d", n, wantLooks, m, wantTold)
			}
		}
		after(time.Hour, 1, 0) // nobody waits
		waiting.Store(true)
		p.Began()
		p.Began()
		after(41*time.Millisecond, 1, 0)
		after(400*time.Millisecond, 10, 0)
		broken.Store(true)
		after(40*time.Millisecond, 1, 1)
		after(10*time.Second, 10, 0)
		broken.Store(false)
		after(time.Second, 1, 0)
		broken.Store(true)
		after(40*time.Millisecond, 1, 1)
		cancel()
		p.Wait()
		after(time.Hour, 0, 0)
	})
}

func TestPollerThatNeverLooks(t *testing.T) {
	var p Poller
	p.Start(t.Context(), -1, func(context.Context) (bool, error) { panic("it looks") }, nil)
	p.Began()
	p.Wait()
}
