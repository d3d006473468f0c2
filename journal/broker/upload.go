package broker

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/fragment"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

const (
	// maxUploads is how many fragments are on their way to a store at once, each of another journal.
	maxUploads = 8
	// uploadLimit is the time that an upload may take, and uploadRate what it is given more for each byte.
	uploadLimit = 5 * time.Minute
	uploadRate  = 1 << 20 // bytes a second
)

// uploads brings finished fragments to the first stores of their journals. The queue is what the engine holds: it survives
// restarts, and a store that is down for long costs disk space and nothing else.
type uploads struct {
	keeper *keeper

	mu     sync.Mutex
	queues map[protocol.FragmentStore]*uploadQueue
	// waiting is what each journal has to be stored.
	waiting map[protocol.Journal]waiting
	// broken are fragments that cannot be stored, as when their content is damaged.
	broken map[brokenKey]bool
}

type brokenKey struct {
	journal protocol.Journal
	begin   protocol.Offset
}

// waiting is what a journal has to be stored: how much, since when, and where.
type waiting struct {
	bytes int64
	since int64 // Unix seconds
	store protocol.FragmentStore
	// listed says that the stores have been listed. What is there already, from before a crash, need not be stored again
	// under another path.
	listed bool
}

// uploadQueue has the journals with fragments for one store. It has goroutines while it has work.
type uploadQueue struct {
	store    protocol.FragmentStore
	workers  int
	busy     map[protocol.Journal]bool
	failures int
	// failed counts the failures of a journal since it was stored last. Those with fewer come first: what is wrong with one
	// does not hold up the others.
	failed map[protocol.Journal]int
}

// look notes what a journal has to be stored, and sees to it.
func (u *uploads) look(spec *engine.Spec, state *engine.State) {
	journal := protocol.Journal(spec.GetName())
	stores := spec.GetFragment().GetStores()
	if u.keeper.broker.stores == nil || len(stores) == 0 {
		u.forget(journal)
		return
	}
	var w waiting
	if s := u.keeper.shelf(journal); s != nil {
		w.listed = s.isListed()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range state.Finished {
		if !u.broken[brokenKey{journal, f.Begin}] {
			if w.bytes == 0 {
				w.since, w.store = f.FirstAppend, protocol.FragmentStore(stores[0])
			}
			w.bytes += f.Len()
		}
	}
	if w.bytes == 0 {
		delete(u.waiting, journal)
		return
	}
	if u.waiting == nil {
		u.waiting = make(map[protocol.Journal]waiting)
	}
	u.waiting[journal] = w
	q := u.queues[w.store]
	if q == nil {
		q = &uploadQueue{store: w.store, busy: make(map[protocol.Journal]bool), failed: make(map[protocol.Journal]int)}
		u.queues[w.store] = q
	}
	most := maxUploads
	if u.keeper.broker.engine.Tight() {
		most *= 4
	}
	if q.failures > 0 {
		most = 1 // which finds out when the store is back
	}
	if w.listed && q.workers < most && !q.busy[journal] {
		q.workers++
		u.keeper.working.Go(func() { u.work(q) })
	}
}

// forget drops a journal from the queues.
func (u *uploads) forget(journal protocol.Journal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.waiting, journal)
	for _, q := range u.queues {
		delete(q.failed, journal)
	}
	maps.DeleteFunc(u.broken, func(key brokenKey, _ bool) bool { return key.journal == journal })
}

// backlog returns how many bytes wait to be stored, and the time of the first append among them in Unix seconds, or zero.
func (u *uploads) backlog() (bytes, since int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.waiting {
		bytes += w.bytes
		if since == 0 || w.since < since {
			since = w.since
		}
	}
	return bytes, since
}

// work stores fragments as long as there are any. After a failure it waits, longer each time.
func (u *uploads) work(q *uploadQueue) {
	for wait := time.Duration(0); wait == 0 || u.keeper.sleep(wait); {
		journal, ok := u.take(q)
		if !ok {
			return
		}
		err := u.store(u.keeper.ctx, journal, q.store)
		if err == nil {
			u.again(journal)
		}
		wait = u.done(q, journal, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	q.workers--
}

// take returns the journal of a queue that has waited longest, of those that failed least. Without one, the worker ends.
func (u *uploads) take(q *uploadQueue) (journal protocol.Journal, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keeper.ctx.Err() == nil && (q.failures == 0 || q.workers == 1) {
		oldest := int64(0)
		for j, w := range u.waiting {
			before := q.failed[j] - q.failed[journal]
			if w.store == q.store && w.listed && !q.busy[j] && (!ok || before < 0 || before == 0 && w.since < oldest) {
				journal, oldest, ok = j, w.since, true
			}
		}
	}
	if !ok {
		if q.workers--; q.workers == 0 && len(q.busy) == 0 && q.failures == 0 {
			delete(u.queues, q.store)
		}
		return journal, false
	}
	q.busy[journal] = true
	return journal, true
}

// again looks at a journal of which a fragment has been stored. What it sees may be older than what the keeper saw meanwhile, and
// replaces that: the keeper, whose looks are in order, has the last one.
func (u *uploads) again(journal protocol.Journal) {
	defer u.keeper.touch(journal)
	b := u.keeper.broker
	spec := b.engine.Specs().Get(journal)
	state, err := b.engine.Load(u.keeper.ctx, journal)
	if spec == nil || err != nil {
		u.forget(journal)
		return
	}
	u.look(spec, &state)
}

// done notes the outcome, and returns how long to wait before the next attempt.
func (u *uploads) done(q *uploadQueue, journal protocol.Journal, err error) time.Duration {
	b := u.keeper.broker
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(q.busy, journal)
	if err == nil {
		if q.failures > 0 {
			b.logger.Info("fragments are stored again", "store", q.store)
		}
		q.failures = 0
		delete(q.failed, journal)
		return 0
	}
	if u.keeper.ctx.Err() != nil {
		return 0
	}
	b.metrics.uploadFailures.Inc()
	q.failed[journal]++
	if q.failures++; q.failures == 1 {
		b.logger.Warn("cannot store fragments; they stay on the local disk until it works", "store", q.store, "journal", journal, "error", err)
	}
	wait := backoff(time.Second, q.failures)
	if b.engine.Tight() {
		wait = min(wait, tightWait)
	}
	return wait
}

// store stores the oldest fragment of a journal. The error is the store's; what is wrong with the fragment is put aside.
func (u *uploads) store(ctx context.Context, journal protocol.Journal, name protocol.FragmentStore) error {
	b := u.keeper.broker
	spec := b.engine.Specs().Get(journal)
	if stores := spec.GetFragment().GetStores(); spec == nil || len(stores) == 0 || stores[0] != string(name) {
		return nil // it is asked again where it belongs
	}
	shelf := u.keeper.shelf(journal)
	if shelf == nil {
		u.forget(journal) // until the keeper has looked
		return nil
	}
	state, err := b.engine.Load(ctx, journal)
	if err != nil {
		return nil // it was deleted
	}
	i := slices.IndexFunc(state.Finished, func(f engine.Fragment) bool { return !u.isBroken(brokenKey{journal, f.Begin}) })
	if i < 0 {
		return nil
	}
	f := engine.StoredFragment{Fragment: state.Finished[i], Store: name}
	err = u.put(ctx, spec, &state, shelf, &f)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault.Is(err, fault.NotFound):
		return nil // it was dropped meanwhile
	case fault.Is(err, fault.DataLoss), fault.Is(err, fault.Invalid):
		u.mu.Lock()
		u.broken[brokenKey{journal, f.Begin}] = true
		u.mu.Unlock()
		b.metrics.damaged.Inc()
		b.logger.Error("a fragment cannot be stored; it stays on the local disk", "journal", journal, "begin", f.Begin, "end", f.End, "error", err)
		return nil
	}
	return err
}

func (u *uploads) isBroken(key brokenKey) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.broken[key]
}

// put stores a fragment and records that.
func (u *uploads) put(ctx context.Context, spec *engine.Spec, state *engine.State, shelf *shelf, f *engine.StoredFragment) error {
	b := u.keeper.broker
	ctx, cancel := context.WithTimeout(ctx, uploadLimit+time.Duration(f.Len()/uploadRate)*time.Second)
	defer cancel()
	// What a listing shows is stored again under the same path, unless it is right: it may be what a failure left.
	if !shelf.has(f) {
		if _, err := engine.PathPostfix(spec.JournalSpec, f.Fragment, state.Registers); err != nil && f.Postfix == "" {
			b.logger.Warn("a fragment is stored without a path postfix", "journal", spec.GetName(), "begin", f.Begin, "error", err)
		}
	}
	st, err := b.stores.Acquire(ctx, f.Store)
	if err != nil {
		return fault.Wrap(fault.Transient, err) // the fragment is well
	}
	defer st.Release()
	content, err := b.pack(ctx, protocol.Journal(spec.GetName()), f.Fragment)
	if err != nil {
		return err
	}
	defer content.close()
	m := indexed{StoredFragment: *f}
	modified, err := st.Put(ctx, m.message(protocol.Journal(spec.GetName())), content.Content)
	if err != nil {
		return fault.New(storeKind(err), "store [%d, %d) of %s: %w", f.Begin, f.End, spec.GetName(), err)
	}
	f.Modified = modified.Unix()
	b.metrics.storedBytes.Add(float64(f.Len()))
	if err := b.engine.Stored(ctx, protocol.Journal(spec.GetName()), *f); err != nil {
		return err
	}
	b.metrics.stored.Inc()
	return nil
}

// storeKind returns the kind of a store's error, which is never one of the fragment's own.
func storeKind(err error) fault.Kind {
	if k := fault.KindOf(err); k == fault.Invalid {
		return k // the path cannot be one of an object
	}
	return fault.Transient
}

// has reports whether a listing showed the same fragment, and completes f with its path.
func (s *shelf) has(f *engine.StoredFragment) bool {
	for _, l := range s.content.Load().listed {
		if l.Begin == f.Begin && l.End == f.End && l.Sum == f.Sum && l.Store == f.Store {
			f.Codec, f.Postfix = l.Codec, l.Postfix
			return true
		}
	}
	return false
}

// scratchPrefix begins the names of temporary files.
const scratchPrefix = "fragment-"

// clearScratch removes the temporary files that a crash left.
func clearScratch(dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), scratchPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// packed is a fragment's file that can be uploaded.
type packed struct {
	store.Content
	close func()
}

// pack verifies the content of a fragment, and makes the file of it that the store is to have. Content in no codec is
// uploaded from where it is.
func (b *Broker) pack(ctx context.Context, journal protocol.Journal, f engine.Fragment) (_ *packed, err error) {
	content, err := b.engine.Open(ctx, journal, f)
	if err != nil {
		return nil, err
	}
	raw := &rawFile{content: content, begin: f.Begin}
	sum := md5.New()
	var out io.Writer = sum
	p := &packed{close: func() {
		if err := content.Close(); err != nil {
			b.logger.Warn("cannot close a fragment", "journal", journal, "error", err)
		}
	}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.ReaderAt = raw
	if f.Codec != protocol.CompressionCodec_NONE {
		file, err := os.CreateTemp(b.scratch, scratchPrefix+"*")
		if err != nil {
			return nil, fault.New(fault.Transient, "compress a fragment: %w", err)
		}
		// Where a file can be used without its name, nothing stays behind when the process is killed.
		unnamed := os.Remove(file.Name()) == nil
		closeContent := p.close
		p.close = func() {
			closeContent()
			err := file.Close()
			if !unnamed {
				err = errors.Join(err, os.Remove(file.Name()))
			}
			if err != nil {
				b.logger.Warn("cannot remove a temporary file", "error", err)
			}
		}
		out, p.ReaderAt = io.MultiWriter(sum, file), file
	}
	size := &counter{w: out}
	w, err := fragment.NewWriter(size, f.Codec)
	if err != nil {
		return nil, err
	}
	source := fragment.Verify(io.NewSectionReader(raw, 0, f.Len()), fragmentOf(journal, f))
	if _, err := io.CopyBuffer(w, cancelled{ctx, source}, make([]byte, 256<<10)); err != nil {
		return nil, fmt.Errorf("read [%d, %d) of %s: %w", f.Begin, f.End, journal, errors.Join(err, w.Close()))
	}
	if err := w.Close(); err != nil {
		return nil, fault.New(fault.Transient, "compress a fragment: %w", err)
	}
	p.Size = size.n
	copy(p.MD5[:], sum.Sum(nil))
	return p, nil
}

// rawFile is a fragment's content as the file that it would be.
type rawFile struct {
	content engine.Reader
	begin   protocol.Offset
}

func (r *rawFile) ReadAt(p []byte, off int64) (int, error) {
	return r.content.ReadAt(p, r.begin+protocol.Offset(off))
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// cancelled is a reader that ends with a context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
