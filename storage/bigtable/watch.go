package bigtable

import (
	"context"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/wake"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

// overlap is how far behind a gap may lie the end of a row that fills it.
const overlap = 1024

// watch is what is watched in this process, and what is known of it.
type watch struct {
	mu      sync.Mutex
	streams map[streamID]*watched
	poller  wake.Poller
}

type watched struct {
	name     storage.Stream
	watchers int
	// seen says whether a look was had since the youngest watcher came. What changed between its look and the first one of ours would
	// be missed, so the first one wakes in any case.
	seen bool
	// there are the entries that are known.
	there runs.Spans
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
		v.there.Add(runs.Span{First: 0, End: s.positions.of(id)})
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

// own notes what this process has put. It wakes by itself.
func (w *watch) own(s *runs.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.streams) == 0 {
		return
	}
	if v := w.streams[idOf(s.Name)]; v != nil {
		for _, r := range s.Runs {
			v.there.Add(r.Span())
		}
	}
}

// start begins to look for changes of what is watched. A negative interval is never.
func (w *watch) start(s *Storage, interval time.Duration) {
	w.streams = make(map[streamID]*watched)
	w.poller.Start(s.life, interval, func(ctx context.Context) (bool, error) {
		q := w.question()
		if len(q.ends) == 0 {
			return false, nil
		}
		return true, w.look(ctx, s, q)
	}, func(err error) {
		s.log.Warn("entries that other processes store are not seen until Bigtable answers", "error", err)
	})
}

// question asks for rows of the watched streams that are not known.
type question struct {
	rows *rowSet
	// ends are the ends of what was known of the streams. The last row known is asked for, too: if it is not there, the stream was expunged.
	ends map[streamID]types.MessageIndex
}

func (w *watch) question() question {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := question{new(rowSet), make(map[streamID]types.MessageIndex, len(w.streams))}
	for id, v := range w.streams {
		end := v.there.End()
		q.ends[id] = end
		for _, gap := range v.there.Gaps() {
			q.rows.RowRanges = append(q.rows.RowRanges, rowRange(id.from(gap.First), id.from(behind(gap.End, overlap))))
		}
		q.rows.RowRanges = append(q.rows.RowRanges, rowRange(id.from(max(end-1, 0)), id.end()))
	}
	return q
}

// look asks the question and wakes the watchers of those streams that other processes have changed.
func (w *watch) look(ctx context.Context, s *Storage, q question) error {
	found := make(map[streamID][]runs.Span, len(q.ends))
	err := s.table.read(ctx, q.rows, dataColumn, true, 0, func(c cell) (bool, error) {
		id, row, err := parseKey(c.key)
		found[id] = append(found[id], row)
		return true, err
	})
	if err != nil {
		return err
	}
	s.hub.Wake(w.changed(q, found)...)
	return nil
}

// changed notes what was found, and returns the streams to wake.
func (w *watch) changed(q question, found map[streamID][]runs.Span) (names []storage.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, end := range q.ends {
		v := w.streams[id]
		if v == nil {
			continue
		}
		wake, lastThere := !v.seen, end == 0
		for _, row := range found[id] {
			lastThere = lastThere || row.End == end
		}
		if !lastThere {
			v.there, wake = runs.Spans{}, true
		}
		for _, row := range found[id] {
			if v.there.Add(row) {
				wake = true
			}
		}
		v.seen = true
		if wake {
			names = append(names, v.name)
		}
	}
	return names
}
