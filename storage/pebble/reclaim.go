package pebble

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// reclaimer gives disk space back after streams were expunged. Pebble would do so when it compacts anyway, which on a
// store that is written little may be never: the keys are few, and it is the values apart from them that need the space.
type reclaimer struct {
	compact func(context.Context) error
	usage   func() uint64   // bytes on disk
	ctx     context.Context // ends with the store
	cancel  context.CancelFunc
	failed  func(error)

	mu      sync.Mutex
	garbage uint64 // bytes expunged since the last compaction began
	running sync.WaitGroup
	busy    bool
}

// minGarbage is the least that is worth a compaction.
const minGarbage = 64 << 20

func newReclaimer(db *pebble.DB, failed func(error)) *reclaimer {
	r := &reclaimer{
		compact: func(ctx context.Context) error {
			return db.Compact(ctx, []byte{kindEntry}, []byte{kindEntry + 1}, false)
		},
		usage:  func() uint64 { return db.Metrics().DiskSpaceUsage() },
		failed: failed,
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// expunged is told of garbage. When there is much of it, also in proportion to the whole, a compaction begins in the background.
// It rewrites keys, not values, and so is cheap.
func (r *reclaimer) expunged(bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.garbage += bytes
	if r.busy || !r.worthwhile() {
		return
	}
	r.garbage, r.busy = 0, true
	r.running.Go(r.run)
}

// worthwhile reports whether there is enough garbage. The caller holds r.mu.
func (r *reclaimer) worthwhile() bool { return r.garbage >= minGarbage && r.garbage >= r.usage()/10 }

// run compacts, and again if there is much garbage that came meanwhile: there may be no later call of expunged to see to it.
func (r *reclaimer) run() {
	for {
		err := r.compact(r.ctx)
		if err != nil && r.ctx.Err() == nil {
			r.failed(err)
		}
		r.mu.Lock()
		r.busy = err == nil && r.worthwhile()
		if !r.busy {
			r.mu.Unlock()
			return
		}
		r.garbage = 0
		r.mu.Unlock()
	}
}

// close ends what runs. Nothing may call expunged any more.
func (r *reclaimer) close() {
	r.cancel()
	r.running.Wait()
}
