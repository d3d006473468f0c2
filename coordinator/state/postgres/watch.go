package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/types"
)

// pollInterval is the time between two looks for changes that other processes made.
const pollInterval = 40 * time.Millisecond

type streamKey struct {
	project types.Project
	id      types.StreamID
}

// watch is what is waited for in this process, and how it was when last looked at.
type watch struct {
	mu      sync.Mutex
	streams map[streamKey]*watched
	tasks   watched
	poller  wake.Poller
	// ending ends when the poller has been told to.
	ending sync.WaitGroup
}

type watched struct {
	watchers int
	// seen says whether version is known. A change between the watcher's look and the first one of ours would be missed, so the first
	// one wakes in any case.
	seen    bool
	version int64
}

// WatchStream implements state.Store.
func (s *Store) WatchStream(project types.Project, id types.StreamID) (<-chan struct{}, func()) {
	key := streamKey{project, id}
	changed, stop := s.streams.Watch(key)
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.streams[key]
	if v == nil {
		v = new(watched)
		w.streams[key] = v
	}
	v.watchers++
	v.seen = false
	w.poller.Began()
	return changed, func() {
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		if v.watchers--; v.watchers == 0 {
			delete(w.streams, key)
		}
	}
}

// WatchTasks implements state.Store.
func (s *Store) WatchTasks() (<-chan struct{}, func()) {
	changed, stop := s.tasks.Watch(struct{}{})
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks.watchers++
	w.tasks.seen = false
	w.poller.Began()
	return changed, func() {
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tasks.watchers--
	}
}

// start begins to look for what is waited for. A negative interval is never.
func (w *watch) start(s *Store, interval time.Duration) {
	w.streams = make(map[streamKey]*watched)
	ctx, cancel := context.WithCancel(context.Background())
	w.ending.Go(func() {
		<-s.closing
		cancel()
	})
	w.poller.Start(ctx, interval, func(ctx context.Context) (bool, error) {
		ids, tasks := w.wanted()
		if len(ids) == 0 && !tasks {
			return false, nil
		}
		return true, w.look(ctx, s, ids, tasks)
	}, func(err error) {
		s.log.Warn("changes of other processes are not seen until the database answers", "error", err)
	})
}

// wait waits until nobody looks any more. The store is closing.
func (w *watch) wait() {
	w.ending.Wait()
	w.poller.Wait()
}

// wanted returns what is waited for.
func (w *watch) wanted() (ids []string, tasks bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.streams {
		ids = append(ids, string(key.id))
	}
	return ids, w.tasks.watchers > 0
}

const (
	// versions also finds streams of other projects with the same ids, which do no harm.
	versions = `SELECT project, id, version FROM streams WHERE id = ANY($1)`
	// noTask stands for the time of the next task when there is none.
	noTask = -1
)

// look reads what is waited for and wakes those whose wait is over.
func (w *watch) look(ctx context.Context, s *Store, ids []string, tasks bool) error {
	if len(ids) > 0 {
		rows, err := s.pool.Query(ctx, versions, ids)
		if err != nil {
			return err
		}
		now := make(map[streamKey]int64, len(ids))
		var key streamKey
		var version int64
		if _, err := pgx.ForEachRow(rows, []any{&key.project, &key.id, &version}, func() error { now[key] = version; return nil }); err != nil {
			return err
		}
		s.streams.Wake(w.changed(ids, now)...)
	}
	if tasks {
		var next *int64
		if err := s.pool.QueryRow(ctx, nextTask).Scan(&next); err != nil {
			return err
		}
		version := int64(noTask)
		if next != nil {
			version = *next
		}
		w.mu.Lock()
		changed := w.tasks.update(version)
		w.mu.Unlock()
		if changed {
			s.tasks.Wake(struct{}{})
		}
	}
	return nil
}

// changed notes the versions of those streams that were asked for, and returns those that have changed. A stream that is not there has
// version zero.
func (w *watch) changed(ids []string, now map[streamKey]int64) (keys []streamKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := make(map[types.StreamID]bool, len(ids))
	for _, id := range ids {
		asked[types.StreamID(id)] = true
	}
	for key, v := range w.streams {
		if asked[key.id] && v.update(now[key]) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (v *watched) update(version int64) (changed bool) {
	changed = !v.seen || v.version != version
	v.seen, v.version = true, version
	return changed
}
