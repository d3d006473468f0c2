package broker

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// keeperPause is the least time between two rounds of the keeper: journals that change all the time are looked at
	// this often.
	keeperPause = 50 * time.Millisecond
	// While space is tight, fragments are finished when they are so long or so old. Every attempt to store them follows the
	// one before within tightWait.
	tightLength = 1 << 20
	tightAge    = 10 * time.Second
	tightWait   = 5 * time.Second
	// maxListings is how many journals are listed at once.
	maxListings = 8
	// pruneEvery is the time between looks for fragments that have outlived their retention. The first look is that late too,
	// so that readers have registered what they need.
	pruneEvery = time.Hour
)

// keeper does for the journals what no request asks for: it finishes fragments in time, has them stored, lists the stores,
// and prunes. A journal that rests costs it an entry in a map, if it has stores, and nothing else.
type keeper struct {
	broker  *Broker
	ctx     context.Context
	cancel  context.CancelFunc
	working sync.WaitGroup
	uploads uploads
	// listings are the rights to list.
	listings chan struct{}

	wake chan struct{}

	mu      sync.Mutex
	touched map[protocol.Journal]struct{}
	shelves map[protocol.Journal]*shelf
	changed chan struct{} // closed and replaced when shelves change
	due     dueHeap
	// looks are the times at which journals are looked at next, as far as that is in due.
	looks map[protocol.Journal]time.Time
	// relieved is when all journals were looked at because space is tight.
	relieved time.Time
	// needed are the offsets below which nobody reads, as Trim told.
	needed map[incarnation]protocol.Offset
}

// incarnation is a journal from its creation to its deletion. Another of the same name has nothing of it.
type incarnation struct {
	journal protocol.Journal
	created int64
}

func newKeeper(b *Broker) *keeper {
	k := &keeper{
		broker: b, listings: make(chan struct{}, maxListings), wake: make(chan struct{}, 1),
		touched: make(map[protocol.Journal]struct{}), shelves: make(map[protocol.Journal]*shelf), changed: make(chan struct{}),
		looks: make(map[protocol.Journal]time.Time), needed: make(map[incarnation]protocol.Offset),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.uploads = uploads{keeper: k, queues: make(map[protocol.FragmentStore]*uploadQueue), broken: make(map[brokenKey]bool)}
	return k
}

func (k *keeper) start() {
	k.working.Go(k.watchSpecs)
	k.working.Go(k.run)
	k.working.Go(k.pruneAll)
	k.working.Go(k.scrub)
}

// stop ends everything, and waits for it.
func (k *keeper) stop() {
	k.cancel()
	k.working.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.shelves {
		s.close()
	}
	clear(k.shelves)
}

// sleep waits, and reports whether the keeper goes on.
func (k *keeper) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.ctx.Done():
		return false
	}
}

// backoff returns how long to wait after a number of failures: twice as long each time from first on, up to five minutes.
func backoff(first time.Duration, failures int) time.Duration {
	d := min(first<<min(failures-1, 20), 5*time.Minute)
	return d*4/5 + rand.N(d*2/5+1) //nolint:gosec // Not a secret.
}

// touch has the keeper look at a journal soon. It is cheap.
func (k *keeper) touch(journal protocol.Journal) {
	k.mu.Lock()
	_, ok := k.touched[journal]
	if !ok {
		k.touched[journal] = struct{}{}
	}
	k.mu.Unlock()
	if !ok {
		k.awake()
	}
}

// watchSpecs follows the specs: it touches journals that change, and keeps a shelf for each one with stores.
func (k *keeper) watchSpecs() {
	for after := int64(-1); ; {
		specs, err := k.broker.engine.AwaitSpecs(k.ctx, after)
		if err != nil {
			if k.ctx.Err() != nil || !k.sleep(time.Second) {
				return
			}
			continue
		}
		k.arrange(specs)
		for _, spec := range specs.All {
			if spec.Modified > after {
				k.touch(protocol.Journal(spec.GetName()))
			}
		}
		after = specs.Revision
	}
}

// arrange makes the shelves those of the specs.
func (k *keeper) arrange(specs *engine.Specs) {
	if k.broker.stores == nil {
		return
	}
	var gone []*shelf
	k.mu.Lock()
	for name, s := range k.shelves {
		if spec := specs.Get(name); !s.serves(spec) {
			gone = append(gone, s)
			delete(k.shelves, name)
		} else {
			s.refresh.Store(int64(refreshOf(spec)))
		}
	}
	for _, spec := range specs.All {
		name := protocol.Journal(spec.GetName())
		if len(spec.GetFragment().GetStores()) != 0 && k.shelves[name] == nil {
			s := newShelf(k.ctx, spec)
			k.shelves[name] = s
			heap.Push(&k.due, dueItem{at: time.Now(), journal: name, listing: s})
		}
	}
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
	for _, s := range gone {
		s.close()
		k.uploads.forget(s.journal)
	}
	k.awake()
}

// shelf returns the shelf of a journal, or nil.
func (k *keeper) shelf(journal protocol.Journal) *shelf {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shelves[journal]
}

// awaitShelf waits until the keeper knows of a journal with stores.
func (k *keeper) awaitShelf(ctx context.Context, spec *engine.Spec) (*shelf, error) {
	for {
		k.mu.Lock()
		s, changed := k.shelves[protocol.Journal(spec.GetName())], k.changed
		k.mu.Unlock()
		if s != nil && s.created >= spec.Created {
			return s, nil
		}
		select {
		case <-changed:
		case <-k.broker.closing:
			return nil, errClosing
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// run looks at the journals that were touched, and does what is due.
func (k *keeper) run() {
	for {
		k.mu.Lock()
		var next <-chan time.Time
		var timer *time.Timer
		if len(k.due) > 0 {
			timer = time.NewTimer(time.Until(k.due[0].at))
			next = timer.C
		}
		k.mu.Unlock()
		select {
		case <-k.wake:
		case <-next:
		case <-k.ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if k.ctx.Err() != nil {
			return
		}
		k.round()
		if !k.sleep(keeperPause) {
			return
		}
	}
}

func (k *keeper) round() {
	now := time.Now()
	// Space gets tight with appends, and these bring us here.
	tight := k.broker.engine.Tight()
	k.mu.Lock()
	touched := k.touched
	k.touched = make(map[protocol.Journal]struct{})
	var listings []dueItem
	for len(k.due) > 0 && !k.due[0].at.After(now) {
		if item := heap.Pop(&k.due).(dueItem); item.listing != nil {
			listings = append(listings, item)
		} else {
			delete(k.looks, item.journal)
			touched[item.journal] = struct{}{}
		}
	}
	if tight && now.Sub(k.relieved) >= time.Second {
		k.relieved = now
		for journal := range k.shelves {
			touched[journal] = struct{}{}
		}
	}
	k.mu.Unlock()
	for _, item := range listings {
		k.working.Go(func() { k.list(item.listing, item.again) })
	}
	specs := k.broker.engine.Specs()
	for journal := range touched {
		k.look(specs, journal, now)
	}
}

// at has something done at a time.
func (k *keeper) at(item dueItem) {
	k.mu.Lock()
	if item.listing == nil {
		if at, ok := k.looks[item.journal]; ok && !item.at.Before(at) {
			k.mu.Unlock()
			return
		}
		k.looks[item.journal] = item.at
	}
	heap.Push(&k.due, item)
	first := k.due[0] == item
	k.mu.Unlock()
	if first {
		k.awake()
	}
}

func (k *keeper) awake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// look finishes a journal's open fragment if it is due, and has its finished ones stored.
func (k *keeper) look(specs *engine.Specs, journal protocol.Journal, now time.Time) {
	spec := specs.Get(journal)
	if spec == nil {
		k.uploads.forget(journal)
		return
	}
	state, err := k.broker.engine.Load(k.ctx, journal)
	if err != nil {
		return // it was deleted, which will be told
	}
	if k.roll(spec, &state, now) {
		if state, err = k.broker.engine.Load(k.ctx, journal); err != nil {
			return
		}
	}
	k.uploads.look(spec, &state)
}

// roll finishes the open fragment if it is due, or sees to it that this happens in time. Fragments of journals that are not
// stored are finished with appends, and in time.
func (k *keeper) roll(spec *engine.Spec, state *engine.State, now time.Time) bool {
	if state.Open.Len() == 0 {
		return false
	}
	policy := engine.RollPolicyOf(spec.JournalSpec)
	interval := policy.FlushInterval.Truncate(time.Second)
	late := interval > 0 && now.Unix()/int64(interval/time.Second) != state.Open.FirstAppend/int64(interval/time.Second)
	stored := k.broker.stores != nil && len(spec.GetFragment().GetStores()) != 0
	if stored && k.broker.engine.Tight() {
		age := now.Sub(time.Unix(state.Open.FirstAppend, 0))
		late = late || state.Open.Len() >= tightLength || age >= tightAge
		if !late {
			k.at(dueItem{at: now.Add(tightAge - age), journal: protocol.Journal(spec.GetName())})
		}
	}
	if late || stored && policy.Due(state.Open, state.Begin(), state.Head, now) {
		if err := k.finish(spec, policy, state.Head, now); err != nil {
			k.at(dueItem{at: now.Add(time.Minute), journal: protocol.Journal(spec.GetName())})
			return false
		}
		return true
	}
	if interval > 0 {
		end := (state.Open.FirstAppend/int64(interval/time.Second) + 1) * int64(interval/time.Second)
		k.at(dueItem{at: time.Unix(end, 0), journal: protocol.Journal(spec.GetName())})
	}
	return false
}

// finish finishes the fragment that was open when the journal's head was this, or with zero the one that is open now.
func (k *keeper) finish(spec *engine.Spec, policy engine.RollPolicy, head protocol.Offset, now time.Time) error {
	policy.Force, policy.ForceBelow = true, head
	_, err := k.broker.engine.Commit(k.ctx, protocol.Journal(spec.GetName()), &engine.Append{Created: spec.Created, Roll: policy, Now: now})
	if err != nil && k.ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
		k.broker.logger.Warn("cannot finish a fragment in time", "journal", spec.GetName(), "error", err)
	}
	return err
}

// list lists the stores of a journal, unless it is for the first time and somebody could not wait for that.
func (k *keeper) list(s *shelf, again bool) {
	select {
	case k.listings <- struct{}{}:
	case <-k.ctx.Done():
		return
	}
	defer func() { <-k.listings }()
	if again || s.begun.CompareAndSwap(false, true) {
		k.listNow(s)
	}
}

// demand has the stores of a journal listed for the first time, ahead of all others.
func (k *keeper) demand(s *shelf) {
	if s.begun.CompareAndSwap(false, true) {
		k.working.Go(func() { k.listNow(s) })
	}
}

// listNow lists the stores of a journal, and has it done again.
func (k *keeper) listNow(s *shelf) {
	wait := s.list(k.broker)
	if k.shelf(s.journal) != s || k.ctx.Err() != nil {
		return
	}
	k.at(dueItem{at: time.Now().Add(wait), journal: s.journal, listing: s, again: true})
	k.touch(s.journal)
}

// dueItem is something to do at a time: to list the stores of a journal, or without a shelf to look at the journal.
type dueItem struct {
	at      time.Time
	journal protocol.Journal
	listing *shelf
	// again says that the stores have been listed before.
	again bool
}

// dueHeap has the earliest first.
type dueHeap []dueItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, k int) bool { return h[i].at.Before(h[k].at) }
func (h dueHeap) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueItem)) }

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
