package collector

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/collector/quarantine"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// withQuarantine gives the fixture's Collector a quarantine.
func (f *fixture) withQuarantine(t *testing.T, fsys vfs.FS) *quarantine.Store {
	t.Helper()
	q, err := quarantine.Open("/quarantine", quarantine.Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	f.Quarantine = q
	return q
}

// kept lists the quarantine as journal@offset reason stream/entries of all.
func kept(t *testing.T, q *quarantine.Store) []string {
	t.Helper()
	all, err := q.List()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, m := range all {
		text := fmt.Sprintf("%s@%d %s %s:", m.GetJournal(), m.GetOffset(), m.GetProject(), m.GetPrefix())
		for _, r := range m.GetRefusals() {
			text += fmt.Sprintf(" %s %s/%d", r.GetReason(), r.GetStream(), r.GetEntries())
			if strings.Contains(r.GetError(), string(testSecret)) {
				t.Error("the quarantine shows the secret")
			}
		}
		out = append(out, text+fmt.Sprintf(" of %d", m.GetRefused()))
	}
	return out
}

func TestProcessPutsAside(t *testing.T) {
	f := setUp(t)
	q := f.withQuarantine(t, vfs.NewMem())
	wrong := bundleOf(entry("a", 0))
	wrong.Secret = types.NewPrefixSecret()
	noProject := bundleOf(entry("a", 0))
	noProject.Project = ""
	f.coord.streams = map[types.StreamPath]*coordinator.LogStreamState{path("other"): {ID: "id", Secret: wrong.Secret, TerminalIndex: -1}}
	gaps := bundleOf(entry("a", 1, 3), entry("b", 0))
	for range 20 {
		gaps.Entries = append(gaps.Entries, entry("c", 1, 3))
	}
	for range 3 { // each is kept, and logged, once
		if err := f.Process(t.Context(), []byte("junk")); err != nil {
			t.Error(err)
		}
		f.process(t, "permanent", noProject)
		f.process(t, "permanent", wrong)
		f.process(t, "permanent", gaps)
		f.process(t, "success", bundleOf(entry("other", 0)))
		f.process(t, "success", bundleOf(entry("a", 0)))
	}
	want := []string{
		"@0  : malformed /0 of 1",
		"@0  pre/fix: refused /0 of 1",
		"@0 proj pre/fix: refused a/1 of 1",
		"@0 proj pre/fix: refused a/2" + strings.Repeat(" refused c/2", 7) + " of 21",
		"@0 proj pre/fix: secret other/1 of 1",
	}
	got := kept(t, q)
	// Which of the entries of one bundle comes first is not said.
	if len(got) == 5 && strings.Count(got[3], "refused c/2") >= 7 && strings.HasSuffix(got[3], " of 21") {
		got[3] = want[3]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if n := strings.Count(f.log.String(), "refused a message"); n != 5 {
		t.Errorf("%d lines were logged, want 5:\n%s", n, f.log)
	}
	wants(t, f.store, "b", 0)
}

func TestProcessKeepsNothingThatComesAgain(t *testing.T) {
	f := setUp(t)
	q := f.withQuarantine(t, vfs.NewMem())
	f.coord.onRegister = func(s *coordinator.LogStreamState) error {
		if s.Path == path("away") {
			return fault.New(fault.Transient, "away")
		}
		return nil
	}
	f.process(t, "transient", bundleOf(entry("a", 1, 3), entry("away", 0)))
	if got := kept(t, q); len(got) > 0 {
		t.Errorf("kept %v", got)
	}
}

func TestReplay(t *testing.T) {
	f := setUp(t)
	q := f.withQuarantine(t, vfs.NewMem())
	refuse := fault.New(fault.Precondition, "the prefix is not registered")
	f.coord.onRegister = func(*coordinator.LogStreamState) error { return refuse }
	f.process(t, "permanent", bundleOf(ends(entry("a", 0, 1), 1)))
	if err := f.Process(t.Context(), []byte("junk")); err != nil {
		t.Error(err)
	}
	s := &quarantine.Service{Store: q, Replay: f.Replay, Authorize: func(context.Context) error { return nil }}
	replay := func(want ...bool) {
		t.Helper()
		r, err := s.ReplayQuarantined(t.Context(), &daybookv1.ReplayQuarantinedRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, result := range r.GetResults() {
			got = append(got, result.GetStored())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	replay(false, false)
	f.coord.onRegister = nil
	replay(true, false)
	replay(false)
	wants(t, f.store, "a", 0, 1)
	if f.coord.ends()[path("a")] != 1 {
		t.Error("the end was not reported")
	}
}

func TestConsumerPutsAside(t *testing.T) {
	f := setUp(t)
	disk := vfs.NewMem()
	q := f.withQuarantine(t, disk)
	c := consumeWith(t, f, new(fakeJournal), nil)
	late := c.journal.append(t, message(t, bundleOf(entry("a", 0))), []byte("junk"), message(t, bundleOf(entry("a", 1, 3), entry("b", 0))))
	c.waitFor(t, late)
	// An end that is refused when its entries are stored already.
	f.coord.onTerminate = func(*coordinator.TerminateRequest) error { return fault.New(fault.Precondition, "another end") }
	head := c.journal.append(t, message(t, bundleOf(ends(entry("a", 1), 1))))
	c.waitFor(t, head)
	wants(t, f.store, "a", 0, 1)
	wants(t, f.store, "b", 0)
	got := kept(t, q)
	if len(got) != 3 || !strings.Contains(got[0], ": malformed") || !strings.Contains(got[1], ": refused a/2 of 1") ||
		got[2] != fmt.Sprintf("%s@%d proj pre/fix: refused a/1 of 1", testJournal, late) {
		t.Errorf("kept %q", got)
	}
	// It can be had again, and processed when the cause is mended.
	f.coord.onTerminate = nil
	m, err := q.Get(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Replay(t.Context(), m.Body); err != nil {
		t.Error(err)
	}
	if f.coord.ends()[path("a")] != 1 {
		t.Error("the end was not reported")
	}
	// Bytes of somebody else, too.
	foreign := head
	c.journal.appendBytes([]byte("some foreign bytes"))
	head = c.journal.append(t, message(t, bundleOf(entry("b", 1))))
	c.waitFor(t, head)
	if m, err = q.Get(4); err != nil || string(m.Body) != "some foreign bytes" || m.About.GetOffset() != foreign {
		t.Errorf("foreign bytes: %q, %v", m.Body, err)
	}
	got = kept(t, q)
	// All of that was on the disk before the position passed it.
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	disk.PowerLoss(nil)
	q, err = quarantine.Open("/quarantine", quarantine.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if after := kept(t, q); !cmp.Equal(after, got) {
		t.Errorf("after a loss of power: %q", after)
	}
}

// A quarantine that cannot be written holds up nothing.
func TestConsumerWithoutRoomForBadMessages(t *testing.T) {
	f := setUp(t)
	disk := vfs.NewMem()
	f.withQuarantine(t, disk)
	disk.Limit(disk.Used() + 1)
	c := consumeWith(t, f, new(fakeJournal), nil)
	c.waitFor(t, c.journal.append(t, []byte("junk"), message(t, bundleOf(entry("a", 0)))))
	wants(t, f.store, "a", 0)
	if !strings.Contains(f.log.String(), "are not kept") {
		t.Errorf("that a message was lost was not logged:\n%s", f.log)
	}
}

// Nonsense is counted however much of it there is, and does not fill the log.
func TestComplaintsAreBounded(t *testing.T) {
	f := setUp(t)
	for i := range 1000 {
		if err := f.Process(t.Context(), fmt.Appendf(nil, "junk %d", i)); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(f.log.String(), "\n"); n < 1 || n > 2*maxComplaints {
		t.Errorf("%d lines for 1000 messages", n)
	}
}

// FuzzOpen opens messages that may be anything: nothing panics, and what is refused is told.
func FuzzOpen(f *testing.F) {
	for _, compression := range []logpb.ButlerMetadata_Compression{envelope.None, envelope.Zlib, envelope.Zstd} {
		msg, err := (&envelope.Writer{Compression: compression, Threshold: 1}).Append(nil, bundleOf(entry("a", 0, 1), ends(entry("b"), 3)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
		f.Add(msg[:len(msg)-1])
	}
	c := &Collector{Coordinator: new(fakeCoordinator)}
	c.init()
	f.Fuzz(func(t *testing.T, msg []byte) {
		b := c.open(msg, origin{})
		for _, r := range b.runs {
			if err := b.prepare(r); err != nil {
				_ = c.refuse(b, r, dropRefused, err)
			}
		}
		if b.err != nil && b.refused() == nil {
			t.Error("a refusal was not taken down")
		}
	})
}
