package disklog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// entry is a record on its way into the log.
type entry interface {
	// ordered tells the record's sequence number, when its place in the log is known.
	ordered(seq uint64)
	// publish makes the record's effect visible. It is called in log order, once the record is durable.
	publish()
}

// batch is what one write and one sync make durable.
type batch struct {
	buf     []byte
	entries []entry
	ends    []int // where in buf each entry's record ends
	// done is closed when all entries have been published, or err is set and none will be.
	done chan struct{}
	err  error
}

// position is a place in the log.
type position struct {
	segment uint64
	offset  int64
}

// errStale is returned by enqueue for an entry that builds on entries which failed.
var errStale = fault.New(fault.Transient, "journal log: an append before this one failed")

// writer owns the log's end: whatever is queued is written at once, synced once, published, and answered, by whoever waits for it or
// by run.
type writer struct {
	segments *segments
	metrics  *metrics
	maxBatch int
	// published is called after the entries of a batch have been published.
	published func(*batch)
	// rotated is called when a new segment has been begun.
	rotated func()

	mu    sync.Mutex
	queue []*batch
	// generation counts failures that later entries may recover from. An entry must have been made in the current one.
	generation uint64
	seq        uint64   // the last number given to a record
	durable    position // everything before it is durable and published
	dead       error    // why no record will ever be written again
	closing    bool
	work       sync.Cond // wakes run
	spareBuf   []byte
	writing    bool // somebody has what follows

	segment *segment
	at      int64
	done    chan struct{}
}

// enqueue gives a record its place in the log. Entries of one journal must be enqueued in the order of their effects, each
// made from the journal's state after the one before it, in the given generation.
func (w *writer) enqueue(generation uint64, typ recordType, head, content []byte, e entry) (*batch, error) {
	size := recordSize(len(head) + len(content))
	if limit := w.segments.size - int64(recordSize(0)); int64(size) > limit {
		return nil, fault.New(fault.Invalid, "journal log: a change of %d bytes is larger than the log takes at once (%d)", size, limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dead != nil:
		return nil, w.dead
	case w.closing:
		return nil, errClosed
	case generation != w.generation:
		return nil, errStale
	}
	var b *batch
	if n := len(w.queue); n > 0 && len(w.queue[n-1].buf)+size <= w.maxBatch {
		b = w.queue[n-1]
	} else {
		b = &batch{buf: w.spareBuf[:0], done: make(chan struct{})}
		w.spareBuf = nil
		w.queue = append(w.queue, b)
	}
	w.seq++
	e.ordered(w.seq)
	b.buf = appendRecord(b.buf, typ, w.seq, head, content)
	b.ends = append(b.ends, len(b.buf))
	b.entries = append(b.entries, e)
	w.metrics.queuedRecords.Inc()
	return b, nil
}

// await waits until a batch has been published or has failed, or ctx ends. Whoever enqueues must call it: if nobody writes, it
// writes the batch itself, which saves a single append the way to another goroutine and back.
func (w *writer) await(ctx context.Context, b *batch) error {
	w.mu.Lock()
	if !w.writing && len(w.queue) > 0 && w.queue[0] == b {
		w.writeFirst()
		if len(w.queue) > 0 || w.closing {
			w.work.Signal()
		}
	}
	w.mu.Unlock()
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// current returns the generation in which entries are to be made.
func (w *writer) current() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.generation
}

// failure returns why the log takes no more records, or nil.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// position returns the place in the log up to which everything has been published.
func (w *writer) position() position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.durable
}

// run writes what nobody else does, until close. It runs in its own goroutine.
func (w *writer) run() {
	defer close(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.writing || len(w.queue) == 0 && !w.closing {
			w.work.Wait()
		}
		if len(w.queue) == 0 {
			return
		}
		w.writeFirst()
	}
}

// writeFirst writes the first batch of the queue, and answers it. The caller holds mu, which is released meanwhile.
func (w *writer) writeFirst() {
	w.writing = true
	w.gather()
	b := w.queue[0]
	w.queue = w.queue[1:]
	w.mu.Unlock()

	final, err := w.write(b)
	if err != nil {
		w.fail(b, err, final)
	} else {
		w.publish(b)
	}
	w.mu.Lock()
	w.writing = false
}

// publish makes the entries of a batch that is durable visible.
func (w *writer) publish(b *batch) {
	for _, e := range b.entries {
		e.publish()
	}
	w.published(b)
	w.metrics.appendsPerSync.Observe(float64(len(b.entries)))
	w.metrics.queuedRecords.Sub(float64(len(b.entries)))
	w.metrics.bytes.Add(float64(len(b.buf)))
	w.mu.Lock()
	w.durable = position{w.segment.number, w.at}
	if cap(b.buf) <= 2*w.maxBatch {
		w.spareBuf = b.buf
	}
	w.mu.Unlock()
	b.buf, b.entries = nil, nil
	close(b.done)
}

// gather lets goroutines that are about to enqueue do so, as long as there are any: those that the last batch has answered tend to
// come back together. It waits for nobody. The caller holds mu.
func (w *writer) gather() {
	for n := 0; len(w.queue) == 1 && len(w.queue[0].entries) > n; {
		n = len(w.queue[0].entries)
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
}

// write makes a batch durable. A final error means that nobody knows what is on the disk.
func (w *writer) write(b *batch) (final bool, err error) {
	if w.at+int64(len(b.buf)+recordSize(0)) > w.segments.size {
		if final, err := w.rotate(); err != nil {
			return final, err
		}
	}
	begin := 0
	for _, end := range b.ends {
		seal(b.buf[begin:end], w.segment.number, uint32(w.at))
		begin = end
	}
	// What a failed write leaves behind does not matter: the next one begins at the same place, and sequence numbers tell
	// its records from leftovers.
	if err := w.segment.write(b.buf, w.at, w.segments.size); err != nil {
		return false, fmt.Errorf("write the log: %w", err)
	}
	if err := w.sync(); err != nil {
		return true, err
	}
	w.at += int64(len(b.buf))
	return false, nil
}

func (w *writer) sync() error {
	begin := time.Now()
	if err := w.segment.file.Sync(); err != nil {
		return fmt.Errorf("sync the log: %w", err)
	}
	w.metrics.syncSeconds.Observe(time.Since(begin).Seconds())
	return nil
}

// rotate ends the segment and begins the next. Once the segment's end is durable, all records in it are.
func (w *writer) rotate() (final bool, err error) {
	next, err := w.segments.make()
	if err != nil {
		return false, err
	}
	if err := w.end(); err != nil {
		_ = next.file.Close()
		return true, err
	}
	if err := w.segment.file.Close(); err != nil {
		_ = next.file.Close()
		return true, fmt.Errorf("close a segment of the log: %w", err)
	}
	w.segment, w.at = next, 0
	w.rotated()
	return false, nil
}

// end writes and syncs the record that ends the segment.
func (w *writer) end() error {
	w.mu.Lock()
	w.seq++
	seq := w.seq
	w.mu.Unlock()
	if err := writeEnd(w.segment.file, w.segment.number, w.at, seq); err != nil {
		return err
	}
	return w.sync()
}

// fail answers a batch that could not be written, and all that are queued, since they may build on it.
func (w *writer) fail(b *batch, err error, final bool) {
	w.mu.Lock()
	w.generation++
	failed := append([]*batch{b}, w.queue...)
	w.queue = nil
	if final {
		err = fault.New(fault.Transient, "journal log: %w; nothing can be appended until a restart has found out what is on the disk", err)
		w.dead = err
	} else {
		err = fault.New(fault.Transient, "journal log: %w", err)
	}
	w.mu.Unlock()
	for _, b := range failed {
		w.metrics.queuedRecords.Sub(float64(len(b.entries)))
		b.err = err
		close(b.done)
	}
}

// kill makes err final, for failures outside of the log itself.
func (w *writer) kill(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead == nil {
		w.dead = fault.New(fault.Transient, "journal log: %w; nothing can be appended until a restart has found out what is on the disk", err)
	}
}

// close writes what is queued, ends the segment, and ends run. The log goes on in the next segment, so that the next start
// need not look for the end of this one.
func (w *writer) close() error {
	w.mu.Lock()
	w.closing = true
	w.work.Signal()
	w.mu.Unlock()
	<-w.done
	if w.failure() == nil {
		if err := w.end(); err != nil {
			return errors.Join(err, w.segment.file.Close())
		}
		w.mu.Lock()
		w.durable = position{segment: w.segment.number + 1}
		w.mu.Unlock()
	}
	if err := w.segment.file.Close(); err != nil {
		return fmt.Errorf("close a segment of the log: %w", err)
	}
	return nil
}
