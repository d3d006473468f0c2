package broker

import (
	"sync"
	"time"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// quantum is how often the rate of an append is looked at.
	quantum = 50 * time.Millisecond
	// maxBank is how many seconds of its maximum rate a journal can save up.
	maxBank = 10
	// unlimited is a rate that no machine reaches. Higher ones are cut to it, which keeps sums from overflowing.
	unlimited = 1 << 40
)

// rates are the bounds on appends, in bytes a second, and what journals have saved of their maximum.
type rates struct {
	most, least int64
	began       time.Time

	mu    sync.Mutex
	banks map[protocol.Journal]*bank
}

// now is the time by which rates are measured, in milliseconds. It never goes back.
func (r *rates) now() int64 { return time.Since(r.began).Milliseconds() }

// of returns the maximum rate of a journal; zero is none.
func (r *rates) of(spec *protocol.JournalSpec) int64 {
	rate := min(spec.GetMaxAppendRate(), unlimited)
	if r.most != 0 && (rate == 0 || r.most < rate) {
		rate = min(r.most, unlimited)
	}
	return rate
}

// begin returns the pace of an append that begins to stream.
func (r *rates) begin(spec *engine.Spec, specs *engine.Specs) *pace {
	now, least := r.now(), min(r.least, unlimited)
	p := &pace{least: least, spent: least, last: now}
	if rate := r.of(spec.JournalSpec); rate != 0 {
		p.bank = r.bank(spec, specs)
		p.bank.begin(rate, now)
	}
	return p
}

// bank returns the bank of a journal.
func (r *rates) bank(spec *engine.Spec, specs *engine.Specs) *bank {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := protocol.Journal(spec.GetName())
	if b := r.banks[name]; b != nil && b.created == spec.Created {
		return b
	}
	if r.banks == nil {
		r.banks = make(map[protocol.Journal]*bank)
	}
	if len(r.banks) > 2*len(specs.All) {
		for name := range r.banks {
			if specs.Get(name) == nil {
				delete(r.banks, name)
			}
		}
	}
	b := &bank{created: spec.Created, last: -1}
	r.banks[name] = b
	return b
}

// bank is what a journal has saved up of its maximum rate. All appends to the journal draw on it.
type bank struct {
	created int64

	mu      sync.Mutex
	rate    int64
	balance int64
	rest    int64 // thousandths of a byte that were earned beside the balance
	last    int64 // when something was earned; negative before the first append
}

// begin sets the rate, which may have changed since the last append.
func (b *bank) begin(rate, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate = rate
	if b.last < 0 {
		b.balance, b.last = rate, now
		return
	}
	b.earn(now)
}

// earn adds what the rate allows since the last time. The caller holds mu.
func (b *bank) earn(now int64) {
	if now < b.last {
		return
	}
	// More than a full bank is never earned.
	earned := b.rate*min(now-b.last, maxBank*1000) + b.rest
	b.rest = earned % 1000
	b.balance = min(b.balance+earned/1000, maxBank*b.rate)
	b.last = now
}

// draw earns, takes as much of n as there is, and returns how much that is.
func (b *bank) draw(n, now int64, earn bool) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if earn {
		b.earn(now)
	}
	n = min(n, b.balance)
	b.balance -= n
	return n
}

// pace polices the rate of one append (spec broker 5): a client that sends too much is held back, one that sends too little is
// cut off. It is used by two goroutines: one receives, the other ticks.
type pace struct {
	least int64
	bank  *bank // nil without a maximum

	mu     sync.Mutex
	last   int64
	charge int64 // of the message that is held back
	spent  int64 // the client's allowance
	// resting is set while the client's message is being dealt with: time does not pass for it.
	resting bool
	// owed is allowance that passed while we held the client back. It has it in store.
	owed int64
}

// chunk takes a message of n bytes. It is held back if free says no, until a tick says that it is free.
func (p *pace) chunk(n int64) (free bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.charge = n
	p.debit(p.last, false)
	return p.charge == 0
}

// tick lets time pass. The message that was held back may be free now; the client may have stalled.
func (p *pace) tick(now int64) (free, stalled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now < p.last {
		return p.charge == 0, false
	}
	if p.resting {
		p.last = now
		p.debit(now, true)
		return p.charge == 0, false
	}
	passed := min(p.spent, p.least*min(now-p.last, 1000)/1000)
	p.last = now
	p.spent -= passed
	if p.charge != 0 {
		p.owed = min(p.owed+passed, p.least)
	}
	p.debit(now, true)
	if p.spent <= 0 {
		p.spent, p.owed = p.owed, 0
	}
	return p.charge == 0, p.spent <= 0 && p.charge == 0
}

// rest begins or ends a time that is ours.
func (p *pace) rest(begin bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resting = begin
}

// free reports whether no message is held back.
func (p *pace) free() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.charge == 0
}

// debit pays for the message that is held back. The caller holds mu.
func (p *pace) debit(now int64, earn bool) {
	paid := p.charge
	if p.bank != nil {
		paid = p.bank.draw(p.charge, now, earn)
	}
	p.charge -= paid
	p.spent = min(p.spent+paid, p.least)
}

// lift takes the maximum away for the rest of the append.
func (p *pace) lift() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bank = nil
	p.debit(p.last, false)
}
