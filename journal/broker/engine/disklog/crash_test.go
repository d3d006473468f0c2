package disklog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
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

func (m *moment) check(rt *rapid.T, t *testing.T) {
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
			rt.Fatal(err)
		}
	}
}

// written returns a disk with a log that nobody closed, the appends of its one journal, and the name of its last segment.
func written(t *testing.T) (disk *vfs.Mem, appends []string, segment string) {
	t.Helper()
	disk = vfs.NewMem()
	opts := small(disk)
	opts.SegmentSize = 64 << 10
	l := open(t, "/data", opts)
	enginetest.Create(t, l, "test/a")
	enginetest.Create(t, l, "test/b")
	for i := range 12 {
		content := fmt.Sprintf("append %d %s;", i, strings.Repeat("x", 10*i))
		enginetest.Must(t, l, "test/a", enginetest.Append(content))
		appends = append(appends, content)
		if i < 6 {
			enginetest.Must(t, l, "test/b", enginetest.Append("other"))
		}
	}
	out := disk.Clone()
	enginetest.Close(t, l)
	for _, name := range out.Files() {
		if strings.HasPrefix(name, "/data/log/") {
			segment = name
		}
	}
	return out, appends, segment
}

// end returns where the records of a segment end.
func end(t *testing.T, disk *vfs.Mem, segment string) (records []int64) {
	t.Helper()
	var buf []byte
	b, err := readInto(disk, segment, &buf)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); ; {
		records = append(records, at)
		_, size, ok := parseRecord(b[at:], 1)
		if !ok {
			return records
		}
		at += int64(size)
	}
}

// TestTornTail cuts the log at every byte of its last records: what is left is always whole appends.
func TestTornTail(t *testing.T) {
	disk, appends, segment := written(t)
	records := end(t, disk, segment)
	for cut := records[len(records)-4]; cut < records[len(records)-1]; cut++ {
		d := disk.Clone()
		f, err := d.Open(segment)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, records[len(records)-1]-cut), cut); err != nil {
			t.Fatal(err)
		}
		l := open(t, "/data", small(d))
		got := string(enginetest.Content(t, l, "test/a"))
		ok := false
		for n := 9; n <= 12; n++ {
			ok = ok || got == strings.Join(appends[:n], "")
		}
		if !ok {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		enginetest.Must(t, l, "test/a", enginetest.Append("go on"))
		enginetest.Close(t, l)
	}
}

// TestDamage flips bits of records in the middle. Their ranges are not served, and everything else is.
func TestDamage(t *testing.T) {
	disk, appends, segment := written(t)
	whole := strings.Join(appends, "")
	records := end(t, disk, segment)
	// The first three records are the start and the two journals.
	for i := 3; i < len(records)-2; i++ {
		for _, at := range []int64{0, 5, 9, 13, 17, 30, 34, 40} {
			d := disk.Clone()
			d.Flip(segment, (records[i]+at)*8+3)
			l := open(t, "/data", small(d))
			s := enginetest.State(t, l, "test/a")
			if int(s.Head) != len(whole) {
				t.Fatalf("record %d byte %d: the journal ends at %d instead of %d", i, at, s.Head, len(whole))
			}
			lost := readAround(t, l, &s, whole)
			if other := enginetest.State(t, l, "test/b"); other.Head != 30 {
				t.Fatalf("record %d byte %d: the other journal ends at %d", i, at, other.Head)
			}
			if lost > len(appends[11])+20 {
				t.Errorf("record %d byte %d: %d bytes lost", i, at, lost)
			}
			enginetest.Must(t, l, "test/a", enginetest.Append("go on"))
			enginetest.Close(t, l)
		}
	}
}

// TestDamagedSpecs loses records about specs. What is said later holds.
func TestDamagedSpecs(t *testing.T) {
	disk := vfs.NewMem()
	opts := small(disk)
	opts.SegmentSize = 64 << 10
	l := open(t, "/data", opts)
	remove := &protocol.ApplyRequest_Change{Delete: "test/a", ExpectModRevision: -1}
	for _, c := range []*protocol.ApplyRequest_Change{
		{Upsert: enginetest.Spec("test/a")},
		remove,
		{Upsert: enginetest.Spec("test/a")},
		{Upsert: enginetest.Spec("test/a"), ExpectModRevision: -1},
		{Upsert: enginetest.Spec("test/b")},
	} {
		if _, err := l.Apply(t.Context(), []*protocol.ApplyRequest_Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	specs := l.Specs()
	crashed := disk.Clone()
	enginetest.Close(t, l)
	const segment = "/data/log/0000000000000001"
	for i, at := range end(t, crashed, segment)[1:5] {
		d := crashed.Clone()
		d.Flip(segment, (at+40)*8)
		opts.FS = d
		l := open(t, "/data", opts)
		if got := l.Specs(); got.Revision != specs.Revision || len(got.All) != 2 {
			t.Errorf("record %d: revision %d, %d journals", i+1, got.Revision, len(got.All))
		}
		if s, spec := enginetest.State(t, l, "test/a"), l.Specs().Get("test/a"); s.Created != spec.Created || s.Head != 0 {
			t.Errorf("record %d: created at %d and %d", i+1, s.Created, spec.Created)
		}
		enginetest.Must(t, l, "test/a", enginetest.Append("x"))
		enginetest.Close(t, l)
	}
}

// readAround reads what can be read, checks it, and returns how much cannot.
func readAround(t *testing.T, l *Log, s *engine.State, whole string) (lost int) {
	t.Helper()
	for _, f := range append(slices.Clone(s.Finished), s.Open) {
		if f.Len() == 0 {
			continue
		}
		r, err := l.Open(t.Context(), "test/a", f)
		if err != nil {
			t.Fatal(err)
		}
		for off := f.Begin; off < f.End; off++ {
			var b [1]byte
			switch n, err := r.ReadAt(b[:], off); {
			case fault.Is(err, fault.DataLoss):
				lost++
			case n != 1:
				t.Fatalf("read at %d: %v", off, err)
			case b[0] != whole[off]:
				t.Fatalf("byte %d is %q instead of %q", off, b[0], whole[off])
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return lost
}

// TestDamagedCheckpoint starts from the one before.
func TestDamagedCheckpoint(t *testing.T) {
	disk := vfs.NewMem()
	l := open(t, "/data", small(disk))
	enginetest.Create(t, l, "test/a")
	for range 3 {
		enginetest.Must(t, l, "test/a", enginetest.Append("x"))
		if err := l.checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	enginetest.Close(t, l)
	var checkpoints []string
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/checkpoint/") {
			checkpoints = append(checkpoints, name)
		}
	}
	if len(checkpoints) != 2 {
		t.Fatalf("checkpoints: %v", checkpoints)
	}
	disk.Flip(checkpoints[1], 300)
	l = open(t, "/data", small(disk))
	if got := enginetest.Content(t, l, "test/a"); string(got) != "xxx" {
		t.Errorf("content %q", got)
	}
	enginetest.Close(t, l)

	disk = vfs.NewMem()
	enginetest.Close(t, open(t, "/data", small(disk)))
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/checkpoint/") {
			disk.Flip(name, 300)
		}
	}
	if _, err := Open(t.Context(), "/data", small(disk)); !fault.Is(err, fault.DataLoss) {
		t.Errorf("without any checkpoint: %v", err)
	}
}

// TestFailedSync is final: nothing is acknowledged any more, and reads go on.
func TestFailedSync(t *testing.T) {
	disk := vfs.NewMem()
	var failing sync.Map
	l := open(t, "/data", small(vfs.Inject(disk, func(op vfs.Op, name string) (int, error) {
		if _, ok := failing.Load(op); ok && strings.HasPrefix(name, "/data/log") {
			return 0, syscall.EIO
		}
		return 0, nil
	})))
	enginetest.Create(t, l, "test/a")
	enginetest.Must(t, l, "test/a", enginetest.Append("kept"))
	failing.Store(vfs.OpSync, true)
	if _, err := l.Commit(t.Context(), "test/a", enginetest.Append("lost")); !fault.Is(err, fault.Transient) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("append: %v", err)
	}
	failing.Clear()
	for _, content := range []string{"lost", ""} {
		if _, err := l.Commit(t.Context(), "test/a", enginetest.Append(content)); !fault.Is(err, fault.Transient) {
			t.Errorf("a later append: %v", err)
		}
	}
	if err := l.Ready(); err == nil {
		t.Error("the log says that it is ready")
	}
	if got := enginetest.Content(t, l, "test/a"); string(got) != "kept" {
		t.Errorf("content %q", got)
	}
	enginetest.Close(t, l)
}

// TestNoSpace fills the disk. Appends fail as long as it is full, and go on without a restart.
func TestNoSpace(t *testing.T) {
	disk := vfs.NewMem()
	l := open(t, "/data", small(disk))
	enginetest.Create(t, l, "test/a")
	disk.Limit(disk.Used() + 20_000)
	m := model{"test/a": {}}
	var failed int
	for round := range 3 {
		for failed = 0; failed < 5; {
			content := strings.Repeat("x", 10+round)
			a := enginetest.Append(content)
			a.Roll.Length = 3000
			_, err := l.Commit(t.Context(), "test/a", a)
			if err != nil {
				if !fault.Is(err, fault.Transient) || !vfs.IsNoSpace(err) {
					t.Fatalf("append: %v", err)
				}
				failed++
				continue
			}
			j := m["test/a"]
			j.content = append(j.content, content...)
			m["test/a"] = j
		}
		if diff := m.differs(t, l); diff != "" {
			t.Fatal(diff)
		}
		disk.Limit(disk.Used() + 20_000)
	}
	disk.Limit(0)
	enginetest.Close(t, l)
	l = open(t, "/data", small(disk))
	if diff := m.differs(t, l); diff != "" {
		t.Error(diff)
	}
	enginetest.Close(t, l)
}
