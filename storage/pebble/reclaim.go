package pebble

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// reclaimer gives disk space back after streams were expunged. Pebble would do so when it compacts anyway, which on a
// store that is written little may be never: the keys are few, and it is the values apart from them that need the space.
type reclaimer struct {
	db     *pebble.DB
	ctx    context.Context // ends with the store
	cancel context.CancelFunc
	failed func(error)

	mu      sync.Mutex
	garbage uint64 // bytes expunged since the last compaction began
	running sync.WaitGroup
	busy    bool
}

// minGarbage is the least that is worth a compaction.
const minGarbage = 64 << 20

func newReclaimer(db *pebble.DB, failed func(error)) *reclaimer {
	r := &reclaimer{db: db, failed: failed}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// expunged is told of garbage. When there is much of it, also in proportion to the whole, a compaction begins in the background.
// It rewrites keys, not values, and so is cheap.
func (r *reclaimer) expunged(bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.garbage += bytes
	if r.busy || r.garbage < minGarbage || r.garbage < r.db.Metrics().DiskSpaceUsage()/10 {
		return
	}
	r.garbage, r.busy = 0, true
	r.running.Go(func() {
		err := r.db.Compact(r.ctx, []byte{kindEntry}, []byte{kindEntry + 1}, false)
		if err != nil && r.ctx.Err() == nil {
			r.failed(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.busy = false
	})
}

// close ends what runs. Nothing may call expunged any more.
func (r *reclaimer) close() {
	r.cancel()
	r.running.Wait()
}
