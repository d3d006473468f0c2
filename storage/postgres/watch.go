package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/storage"
)

// watch is what is watched in this process, and how it was when last looked at.
type watch struct {
	mu      sync.Mutex
	streams map[streamID]*watched
	poller  wake.Poller
}

type watched struct {
	name     storage.Stream
	watchers int
	// seen says whether change is known. A change between the watcher's look and the first one of ours would be missed, so the first
	// one wakes in any case.
	seen   bool
	change int64
	// ours is the youngest change of this process, which wakes by itself.
	ours int64
}

// Watch implements storage.Storage.
func (s *Storage) Watch(name storage.Stream) (<-chan struct{}, func()) {
	changed, stop := s.hub.Watch(name)
	id, w := idOf(name), &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.streams[id]
	if v == nil {
		v = &watched{name: name}
		w.streams[id] = v
	}
	v.watchers++
	v.seen = false
	w.poller.Began()
	return changed, func() {
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		if v.watchers--; v.watchers == 0 {
			delete(w.streams, id)
		}
	}
}

// own notes what a commit is going to change.
func (w *watch) own(commit *writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range commit.streams {
		if v := w.streams[p.id]; v != nil {
			v.ours = commit.change
		}
	}
}

// start begins to look for changes of what is watched. A negative interval is never.
func (w *watch) start(s *Storage, interval time.Duration) {
	w.streams = make(map[streamID]*watched)
	w.poller.Start(s.life, interval, func(ctx context.Context) (bool, error) {
		ids := w.wanted()
		if len(ids) == 0 {
			return false, nil
		}
		return true, w.look(ctx, s, ids)
	}, func(err error) {
		s.log.Warn("entries that other processes store are not seen until the database answers", "error", err)
	})
}

// wanted returns the streams that are watched.
func (w *watch) wanted() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([][]byte, 0, len(w.streams))
	for id := range w.streams {
		ids = append(ids, append([]byte(nil), id[:]...))
	}
	return ids
}

const selectChanges = `SELECT id, change FROM streams WHERE id = ANY($1)`

// look reads the changes of the streams and wakes the watchers of those that other processes have changed.
func (w *watch) look(ctx context.Context, s *Storage, ids [][]byte) error {
	now := make(map[streamID]int64, len(ids))
	err := s.on(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, selectChanges, ids)
		if err != nil {
			return err
		}
		var id []byte
		var change int64
		_, err = pgx.ForEachRow(rows, []any{&id, &change}, func() error { now[streamID(id)] = change; return nil })
		return err
	})
	if err != nil {
		return err
	}
	s.hub.Wake(w.changed(ids, now)...)
	return nil
}

// changed notes the changes of those streams that were asked for, and returns the streams to wake. One that is not there has change zero.
func (w *watch) changed(ids [][]byte, now map[streamID]int64) (names []storage.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		v := w.streams[streamID(id)]
		if v == nil {
			continue
		}
		change := now[streamID(id)]
		if !v.seen || change != v.change && change != v.ours {
			names = append(names, v.name)
		}
		v.seen, v.change = true, change
	}
	return names
}
