package disklog

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// small are options with which few bytes make everything happen.
func small(fsys vfs.FS) Options {
	return Options{FS: fsys, SegmentSize: 4 << 10, InlineSize: 200, AdoptSize: 3000, OpenFiles: 2, CheckpointInterval: time.Hour}
}

// modelJournal is what a journal must be.
type modelJournal struct {
	begin     int
	content   []byte // from offset 0 on
	registers *protocol.LabelSet
	stored    []engine.StoredFragment
}

type model map[protocol.Journal]modelJournal

// differs returns how an engine differs from the model; "" if it does not.
func (m model) differs(t testing.TB, e engine.Engine) string {
	specs := e.Specs()
	if len(specs.All) != len(m) {
		return fmt.Sprintf("%d journals instead of %d", len(specs.All), len(m))
	}
	for name, want := range m {
		s, err := e.Load(t.Context(), name)
		if err != nil {
			return fmt.Sprint(err)
		}
		if int(s.Head) != len(want.content) || int(s.Begin()) != want.begin || !proto.Equal(s.Registers, want.registers) {
			return fmt.Sprintf("%s is [%d, %d) %v instead of [%d, %d) %v", name, s.Begin(), s.Head, s.Registers, want.begin, len(want.content), want.registers)
		}
		if !slices.Equal(s.Stored, want.stored) {
			return fmt.Sprintf("%s has %v in stores instead of %v", name, s.Stored, want.stored)
		}
		if len(want.stored) == 0 {
			if got := enginetest.Content(t, e, name); !bytes.Equal(got, want.content[want.begin:]) {
				return fmt.Sprintf("the content of %s differs", name)
			}
		} else if what := want.partDiffers(t, e, name, &s); what != "" {
			return what
		}
	}
	return ""
}

// partDiffers returns how the content of a journal differs of which some is in stores.
func (want *modelJournal) partDiffers(t testing.TB, e engine.Engine, name protocol.Journal, s *engine.State) string {
	all := append(slices.Clone(s.Finished), s.Open)
	for _, f := range want.stored {
		all = append(all, f.Fragment)
	}
	slices.SortStableFunc(all, func(x, y engine.Fragment) int { return compareBegin(x, y.Begin) })
	at := s.Begin()
	for _, f := range all {
		if f.Begin != at {
			return fmt.Sprintf("%s has a gap from %d to %d", name, at, f.Begin)
		}
		at = f.End
	}
	for _, f := range append(slices.Clone(s.Finished), s.Open) {
		if f.Len() == 0 {
			continue
		}
		b := make([]byte, f.Len())
		r, err := e.Open(t.Context(), name, f)
		if err != nil {
			return fmt.Sprint(err)
		}
		_, err = r.ReadAt(b, f.Begin)
		if closeErr := r.Close(); closeErr != nil {
			return fmt.Sprint(closeErr)
		}
		if !bytes.Equal(b, want.content[f.Begin:f.End]) {
			return fmt.Sprintf("[%d, %d) of %s differs: %v", f.Begin, f.End, name, err)
		}
	}
	return ""
}

// moment is the file system at some point of a history, and what had been acknowledged then.
type moment struct {
	op            int
	what          string // the operation on the disk that comes next
	disk          *vfs.Mem
	before, after model
}

// history runs random operations, and keeps moments of them.
type history struct {
	t     *rapid.T
	outer *testing.T
	disk  *vfs.Mem
	log   *Log

	mu      sync.Mutex
	op      int
	model   model
	random  *rand.Rand
	moments []*moment
}

func (h *history) hook(vfs.Op, string) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.random.IntN(25) == 0 {
		h.moments = append(h.moments, &moment{op: h.op, disk: h.disk.Clone(), before: maps.Clone(h.model)})
	}
	return 0, nil
}

// done notes the outcome of an operation.
func (h *history) done(change func(model)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if change != nil {
		change(h.model)
	}
	for _, m := range h.moments {
		if m.op == h.op {
			m.after = maps.Clone(h.model)
		}
	}
	h.op++
}

func (h *history) open() {
	var err error
	if h.log, err = Open(h.outer.Context(), "/data", small(vfs.Inject(h.disk, h.hook))); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) close() {
	if err := h.log.Close(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) step() {
	names := slices.Sorted(maps.Keys(h.model))
	if len(names) == 0 {
		h.create("test/a")
		return
	}
	name := rapid.SampledFrom(names).Draw(h.t, "journal")
	switch rapid.IntRange(0, 22).Draw(h.t, "what") {
	case 0:
		h.create(rapid.SampledFrom([]protocol.Journal{"test/a", "test/b", "test/c"}).Draw(h.t, "name"))
	case 1:
		if len(names) > 1 {
			h.apply(&protocol.ApplyRequest_Change{Delete: string(name), ExpectModRevision: -1})
			h.done(func(m model) { delete(m, name) })
		}
	case 2:
		h.close()
		h.open()
		h.done(nil)
	case 3, 4:
		if err := h.log.checkpoint(); err != nil {
			h.t.Fatal(err)
		}
		h.done(nil)
	case 5, 6:
		below := protocol.Offset(rapid.IntRange(0, len(h.model[name].content)).Draw(h.t, "below"))
		if err := h.log.Trim(h.outer.Context(), name, below); err != nil {
			h.t.Fatal(err)
		}
		s := enginetest.State(h.outer, h.log, name)
		h.done(func(m model) {
			j := m[name]
			j.begin, j.stored = int(s.Begin()), s.Stored
			m[name] = j
		})
	case 7, 8, 9:
		h.store(name)
	default:
		h.append(name)
	}
}

func (h *history) store(name protocol.Journal) {
	finished := enginetest.State(h.outer, h.log, name).Finished
	if len(finished) == 0 {
		return
	}
	f := engine.StoredFragment{
		Fragment: rapid.SampledFrom(finished).Draw(h.t, "fragment"), Store: "file:///a/", Modified: int64(h.op),
	}
	if err := h.log.Stored(h.outer.Context(), name, f); err != nil {
		h.t.Fatal(err)
	}
	s := enginetest.State(h.outer, h.log, name)
	h.done(func(m model) {
		j := m[name]
		j.stored = s.Stored
		m[name] = j
	})
}

func (h *history) create(name protocol.Journal) {
	if _, ok := h.model[name]; ok {
		return
	}
	h.apply(&protocol.ApplyRequest_Change{Upsert: enginetest.Spec(name)})
	h.done(func(m model) { m[name] = modelJournal{} })
}

func (h *history) apply(c *protocol.ApplyRequest_Change) {
	if _, err := h.log.Apply(h.outer.Context(), []*protocol.ApplyRequest_Change{c}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) append(name protocol.Journal) {
	size := rapid.OneOf(rapid.IntRange(0, 150), rapid.IntRange(150, 1500), rapid.IntRange(2900, 5000)).Draw(h.t, "size")
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(h.random.Uint32())
	}
	a := enginetest.Append(string(content))
	a.Roll.Length = 2000
	if size > 0 && rapid.Bool().Draw(h.t, "registers") {
		a.Union = protocol.MustLabelSet("op", fmt.Sprint(h.op))
	}
	if size > 1000 {
		a.Content, a.Staged = nil, enginetest.Stage(h.outer, h.log, content)
	}
	if _, err := h.log.Commit(h.outer.Context(), name, a); err != nil {
		h.t.Fatal(err)
	}
	if a.Staged != nil {
		if err := a.Staged.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
	s := enginetest.State(h.outer, h.log, name)
	h.done(func(m model) {
		j := m[name]
		j.content = append(slices.Clip(j.content), content...)
		if a.Union != nil {
			j.registers = a.Union
		}
		j.begin = int(s.Begin())
		m[name] = j
	})
}

// TestPowerLoss cuts the power at any write, sync or change of a name of a random history. What was acknowledged is there
// afterwards, and of what was under way all or nothing. The log goes on from there.
func TestPowerLoss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		h := &history{t: rt, outer: t, disk: vfs.NewMem(), model: model{}, random: rand.New(rand.NewPCG(seed, 0))}
		h.open()
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			h.step()
		}
		h.close()
		for _, m := range h.moments {
			if m.after == nil {
				m.after = m.before
			}
			var r *rand.Rand
			if h.random.IntN(3) > 0 {
				r = h.random
			}
			m.disk.PowerLoss(r)
			m.check(rt, t)
		}
	})
}

// check recovers twice, and goes on from there.
func (m *moment) check(rt interface{ Fatalf(string, ...any) }, t *testing.T) {
	t.Helper()
	for range 2 { // recovering twice is the same as once
		l, err := Open(t.Context(), "/data", small(m.disk))
		if err != nil {
			rt.Fatalf("op %d: %v", m.op, err)
		}
		before := m.before.differs(t, l)
		if before != "" {
			if after := m.after.differs(t, l); after != "" {
				rt.Fatalf("op %d: neither before: %s; nor after: %s", m.op, before, after)
			}
			m.before = m.after
		} else {
			m.after = m.before
		}
		for name := range m.before {
			j := m.before[name]
			enginetest.Must(t, l, name, enginetest.Append("more"))
			j.content = append(slices.Clip(j.content), "more"...)
			s := enginetest.State(t, l, name)
			j.begin = int(s.Begin())
			m.before[name] = j
		}
		m.after = m.before
		// The second time, nothing is closed: another crash.
		if err := l.Close(t.Context()); err != nil {
			rt.Fatalf("op %d: close: %v", m.op, err)
		}
	}
}
