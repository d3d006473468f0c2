package broker

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

func TestFlowVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/append_flow_control.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Traces []struct {
			Note    string
			Global  int64 `json:"global_max_rate"`
			Journal int64 `json:"journal_max_rate"`
			Least   int64 `json:"min_rate"`
			Total   int64 `json:"total_chunks"`
			Delayed int64 `json:"delayed_chunks"`
			Steps   []struct {
				Event                         string
				Value, Balance, Charge, Spent int64
				Rate                          int64 `json:"effective_max"`
				Underflow                     bool
			}
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, trace := range vectors.Traces {
		t.Run(trace.Note, func(t *testing.T) {
			r := rates{most: trace.Global, least: trace.Least}
			var now, total, delayed int64
			var p *pace
			b := &bank{last: -1}
			for i, step := range trace.Steps {
				var stalled bool
				switch step.Event {
				case "start":
					rate := r.of(&protocol.JournalSpec{MaxAppendRate: trace.Journal})
					if trace.Journal == 0 && trace.Global != 0 {
						// Here the vectors record a defect: the maximum of the fleet holds for all journals.
						if rate != trace.Global {
							t.Errorf("the maximum is %d", rate)
						}
						rate = step.Rate
					}
					if rate != step.Rate {
						t.Errorf("the maximum is %d, want %d", rate, step.Rate)
					}
					p = &pace{least: trace.Least, spent: trace.Least}
					if rate != 0 {
						p.bank = b
						b.begin(rate, 0)
					}
				case "chunk":
					total++
					if !p.chunk(step.Value) {
						delayed++
					}
				case "tick":
					now += step.Value
					_, stalled = p.tick(now)
				case "invalidate":
					p.lift()
				}
				if b.balance != step.Balance || p.charge != step.Charge || p.spent != step.Spent || stalled != step.Underflow {
					t.Errorf("step %d, %s: balance %d, charge %d, spent %d, underflow %v; want %+v", i, step.Event, b.balance, p.charge, p.spent, stalled, step)
				}
			}
			if total != trace.Total || delayed != trace.Delayed {
				t.Errorf("%d chunks, %d delayed; want %d and %d", total, delayed, trace.Total, trace.Delayed)
			}
		})
	}
}

// A client that is held back for longer than a stalled one may rest is not cut off, neither then nor at once afterwards.
func TestHeldBackIsNotStalled(t *testing.T) {
	p := &pace{least: 64 << 10, spent: 64 << 10, bank: &bank{last: -1}}
	p.bank.begin(10_000, 0)
	if p.chunk(32 << 10) {
		t.Fatal("the chunk is free at once")
	}
	now, free := int64(0), false
	for !free {
		now += 50
		var stalled bool
		if free, stalled = p.tick(now); stalled {
			t.Fatalf("stalled after %d ms", now)
		}
	}
	if now < 2_200 || now > 2_350 {
		t.Errorf("the chunk is free after %d ms", now)
	}
	from := now
	for stalled := false; !stalled; {
		now += 50
		_, stalled = p.tick(now)
	}
	if now-from < 900 || now-from > 2_000 {
		t.Errorf("the client is cut off after %d ms", now-from)
	}
}

// Rates so low that a tick earns no whole byte are kept to nevertheless, as are those beyond all bounds.
func TestExtremeRates(t *testing.T) {
	b := &bank{last: -1}
	b.begin(3, 0)
	b.draw(3, 0, false)
	for now := int64(50); now <= 10_000; now += 50 {
		b.draw(0, now, true)
	}
	if b.balance != 30 {
		t.Errorf("30 bytes were earned in ten seconds, and the balance is %d", b.balance)
	}
	r := rates{most: 1<<63 - 1, least: 1<<63 - 1}
	spec := &engine.Spec{JournalSpec: &protocol.JournalSpec{Name: "a/journal", MaxAppendRate: 1<<63 - 1}, Created: 1}
	p := r.begin(spec, &engine.Specs{All: []*engine.Spec{spec}})
	for shift := range 62 {
		now := int64(1) << shift
		if _, stalled := p.tick(now); p.bank.balance < 0 || p.spent < 0 {
			t.Fatalf("balance %d, spent %d, %v", p.bank.balance, p.spent, stalled)
		}
		if !p.chunk(1 << 20) {
			t.Errorf("a chunk is held back at %d", now)
		}
	}
}

// Banks of journals that are gone are forgotten, and a journal that was made again begins anew.
func TestBanksAreForgotten(t *testing.T) {
	r := rates{most: 1000, least: 1}
	for i := range int64(100) {
		spec := &engine.Spec{JournalSpec: &protocol.JournalSpec{Name: "journal/" + string(rune('a'+i%26))}, Created: i}
		if p := r.begin(spec, &engine.Specs{All: []*engine.Spec{spec}}); p.bank.balance != 1000 {
			t.Errorf("journal %d begins with %d", i, p.bank.balance)
		}
		if len(r.banks) > 3 {
			t.Fatalf("%d banks", len(r.banks))
		}
	}
}

// A client is not blamed for the time that we take for its content.
func TestOurTimeIsNotTheClients(t *testing.T) {
	p := &pace{least: 1000, spent: 1000}
	p.chunk(500)
	p.rest(true)
	for now := int64(50); now <= 10_000; now += 50 {
		if _, stalled := p.tick(now); stalled {
			t.Fatalf("stalled after %d ms of ours", now)
		}
	}
	p.rest(false)
	now, stalled := int64(10_000), false
	for ; !stalled && now < 20_000; now += 50 {
		_, stalled = p.tick(now)
	}
	if now < 11_000 || now > 11_200 {
		t.Errorf("stalled after %d ms, want a second after ours", now)
	}
}
