package wake

import (
	"context"
	"sync"
	"time"
)

// pollRetry is the time after which is looked again when it failed.
const pollRetry = time.Second

// Poller looks for changes that cannot wake anybody by themselves, such as those that other processes make in a database, for as long as
// somebody waits for them. The zero value never looks.
//
//	p.Start(ctx, interval, func(ctx context.Context) (waiting bool, err error) { … })
//	p.Began()     // by each who begins to wait
//	cancel()
//	p.Wait()
type Poller struct {
	began   chan struct{}
	running sync.WaitGroup
}

// Start looks at every interval until ctx ends. look reports whether anybody waits; if nobody does, it is called again an interval after
// Began. When it fails, failing is told, once for failures in a row, and the next look is a second later. A negative interval is never.
//
// It is called before any other method.
func (p *Poller) Start(ctx context.Context, interval time.Duration, look func(context.Context) (waiting bool, err error), failing func(error)) {
	if interval < 0 {
		return
	}
	p.began = make(chan struct{}, 1)
	p.running.Go(func() { p.run(ctx, interval, look, failing) })
}

func (p *Poller) run(ctx context.Context, interval time.Duration, look func(context.Context) (bool, error), failing func(error)) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	failed := false
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		waiting, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failed {
				failing(err)
			}
			timer.Reset(pollRetry)
		case !waiting:
			select {
			case <-p.began:
			case <-ctx.Done():
				return
			}
			timer.Reset(interval)
		default:
			timer.Reset(interval)
		}
		failed = err != nil
	}
}

// Began says that somebody waits. It never blocks.
func (p *Poller) Began() {
	select {
	case p.began <- struct{}{}:
	default:
	}
}

// Wait returns when nothing looks any more. The context of Start must have ended.
func (p *Poller) Wait() { p.running.Wait() }
