// Package enginetest is the test body that every journal engine must pass.
package enginetest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Opener opens the engine under test on the data that it had when it was closed before.
type Opener func(t *testing.T) engine.Engine

// Test runs all tests. newOpener returns an Opener on data of its own.
func Test(t *testing.T, newOpener func(t *testing.T) Opener) {
	for name, test := range map[string]func(t *testing.T, open Opener){
		"AppendAndRead":  testAppendAndRead,
		"Registers":      testRegisters,
		"Offsets":        testOffsets,
		"Empty":          testEmpty,
		"Staged":         testStaged,
		"Roll":           testRoll,
		"FirstFragment":  testFirstFragment,
		"Fragments":      testFragments,
		"Specs":          testSpecs,
		"Recreate":       testRecreate,
		"Trim":           testTrim,
		"Stored":         testStored,
		"Watch":          testWatch,
		"Race":           testRace,
		"Reopen":         testReopen,
		"ReadWhileTrim":  testReadWhileTrim,
		"UnknownJournal": testUnknownJournal,
	} {
		t.Run(name, func(t *testing.T) { test(t, newOpener(t)) })
	}
}

// Spec returns a spec as tests use it.
func Spec(name protocol.Journal) *protocol.JournalSpec {
	return &protocol.JournalSpec{
		Name: string(name), Replication: 1,
		Fragment: &protocol.JournalSpec_Fragment{Length: 1 << 20, CompressionCodec: protocol.CompressionCodec_NONE},
	}
}

// Create creates a journal.
func Create(t testing.TB, e engine.Engine, name protocol.Journal) {
	t.Helper()
	if _, err := e.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Upsert: Spec(name)}}); err != nil {
		t.Fatal(err)
	}
}

// policy keeps everything after the first append in one fragment.
var policy = engine.RollPolicy{Length: 1 << 30, Codec: protocol.CompressionCodec_GZIP}

// Append returns a request to append content.
func Append(content string) *engine.Append {
	return &engine.Append{Content: []byte(content), Roll: policy, Now: time.Unix(1_700_000_000, 0)}
}

// Must appends, and returns where.
func Must(t testing.TB, e engine.Engine, name protocol.Journal, a *engine.Append) engine.Result {
	t.Helper()
	res, err := e.Commit(t.Context(), name, a)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return res
}

// State loads a journal's state.
func State(t testing.TB, e engine.Engine, name protocol.Journal) engine.State {
	t.Helper()
	s, err := e.Load(t.Context(), name)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return s
}

// Content reads all content of a journal from its beginning to its head. It fails if there are gaps.
func Content(t testing.TB, e engine.Engine, name protocol.Journal) []byte {
	t.Helper()
	s := State(t, e, name)
	var out []byte
	at := s.Begin()
	for _, f := range append(append([]engine.Fragment(nil), s.Finished...), s.Open) {
		if f.Begin != at {
			t.Fatalf("there is a gap from %d to %d", at, f.Begin)
		}
		b := read(t, e, name, f)
		if f.Len() > 0 && f.Sum != sha1.Sum(b) {
			t.Errorf("the sum of [%d, %d) is wrong", f.Begin, f.End)
		}
		out = append(out, b...)
		at = f.End
	}
	if at != s.Head {
		t.Fatalf("content ends at %d, the journal at %d", at, s.Head)
	}
	return out
}

func read(t testing.TB, e engine.Engine, name protocol.Journal, f engine.Fragment) []byte {
	t.Helper()
	if f.Len() == 0 {
		return nil
	}
	r, err := e.Open(t.Context(), name, f)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer closeOf(t, r)
	b := make([]byte, f.Len())
	if n, err := r.ReadAt(b, f.Begin); n < len(b) {
		t.Fatalf("read [%d, %d): %d bytes, %v", f.Begin, f.End, n, err)
	}
	if _, err := r.ReadAt(make([]byte, 1), f.End); !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %v", err)
	}
	return b
}

func closeOf(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Close closes an engine.
func Close(t testing.TB, e engine.Engine) {
	t.Helper()
	if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testAppendAndRead(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	var want []byte
	for i := range 20 {
		content := fmt.Sprintf("append %d\n", i)
		res := Must(t, e, "test/a", Append(content))
		if res.Begin != protocol.Offset(len(want)) || res.End != res.Begin+protocol.Offset(len(content)) ||
			res.Sum != sha1.Sum([]byte(content)) || res.Codec != protocol.CompressionCodec_GZIP {
			t.Fatalf("append %d: %+v", i, res)
		}
		want = append(want, content...)
		if got := Content(t, e, "test/a"); !bytes.Equal(got, want) {
			t.Fatalf("after append %d: %q", i, got)
		}
	}
}

func testRegisters(t *testing.T, open Opener) {
	e := open(t)
	Create(t, e, "test/a")
	set := protocol.MustLabelSet
	check := func(include *protocol.LabelSet) *protocol.LabelSelector {
		return &protocol.LabelSelector{Include: include}
	}

	a := Append("one")
	a.Check, a.Union = check(set("lock", "nobody")), set("lock", "me", "seq", "1")
	res := Must(t, e, "test/a", a) // empty registers let everyone pass
	if diff := cmp.Diff(set("lock", "me", "seq", "1"), res.Registers, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
	a = Append("two")
	a.Check = check(set("lock", "other"))
	if res = Must(t, e, "test/a", a); res.Refusal != engine.RegisterMismatch || res.Begin != 3 {
		t.Fatalf("with another's lock: %+v", res)
	}
	a = Append("two")
	a.Check, a.Subtract, a.Union = check(set("lock", "me")), set("lock", "me"), set("seq", "2")
	if res = Must(t, e, "test/a", a); res.Refusal != engine.Committed || res.End != 6 {
		t.Fatalf("with the lock: %+v", res)
	}
	Close(t, e)
	e = open(t)
	defer Close(t, e)
	if diff := cmp.Diff(set("seq", "2"), State(t, e, "test/a").Registers, protocmp.Transform()); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	if got := Content(t, e, "test/a"); string(got) != "onetwo" {
		t.Errorf("content %q", got)
	}
}

func testOffsets(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	Must(t, e, "test/a", Append("0123456789"))
	a := Append("x")
	a.Offset = 9
	if res := Must(t, e, "test/a", a); res.Refusal != engine.WrongOffset || res.Begin != 10 {
		t.Fatalf("at a wrong offset: %+v", res)
	}
	a.Offset = 10
	if res := Must(t, e, "test/a", a); res.Begin != 10 || res.End != 11 {
		t.Fatalf("at the head: %+v", res)
	}
	a = Append("y")
	a.Offset, a.Floor = 100, 100
	if res := Must(t, e, "test/a", a); res.Begin != 100 || res.End != 101 {
		t.Fatalf("beyond the head: %+v", res)
	}
	a = Append("")
	a.Floor = 1000
	if res := Must(t, e, "test/a", a); res.Begin != 1000 || res.End != 1000 {
		t.Fatalf("to a floor without content: %+v", res)
	}
	s := State(t, e, "test/a")
	if s.Head != 1000 || s.Open.Len() != 0 || s.Open.Begin != 1000 || s.Finished[len(s.Finished)-1].End != 101 {
		t.Fatalf("state: %+v", s)
	}
	a = Append("xx")
	a.Floor = 1<<63 - 2
	if _, err := e.Commit(t.Context(), "test/a", a); !fault.Is(err, fault.OutOfRange) {
		t.Fatalf("beyond all offsets: %v", err)
	}
}

func testEmpty(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	if res := Must(t, e, "test/a", Append("")); res.Begin != 0 || res.End != 0 || res.Registers != nil {
		t.Fatalf("to an empty journal: %+v", res)
	}
	Must(t, e, "test/a", Append("abc"))
	if res := Must(t, e, "test/a", Append("")); res.Begin != 3 || res.End != 3 || res.Sum != sha1.Sum(nil) {
		t.Fatalf("to a journal: %+v", res)
	}
}

// Stage puts content into a stage.
func Stage(t testing.TB, e engine.Engine, content []byte) engine.Stage {
	t.Helper()
	st, err := e.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for len(content) > 0 {
		n := min(len(content), 100_000)
		if _, err := st.Write(content[:n]); err != nil {
			t.Fatal(err)
		}
		content = content[n:]
	}
	return st
}

func testStaged(t *testing.T, open Opener) {
	e := open(t)
	Create(t, e, "test/a")
	random := rand.NewChaCha8([32]byte{1})
	var want []byte
	for _, size := range []int{10, 3_000_000, 5, 0, 700_000, 20_000_000, 1, 18_000_000, 3} {
		content := make([]byte, size)
		_, _ = random.Read(content)
		a := Append("")
		if size > 100 {
			a.Staged = Stage(t, e, content)
		} else {
			a.Content = content
		}
		res := Must(t, e, "test/a", a)
		if a.Staged != nil {
			closeOf(t, a.Staged)
		}
		if res.Begin != protocol.Offset(len(want)) || int(res.End-res.Begin) != size || res.Sum != sha1.Sum(content) {
			t.Fatalf("append of %d: %+v", size, res)
		}
		want = append(want, content...)
	}
	if got := Content(t, e, "test/a"); !bytes.Equal(got, want) {
		t.Error("content differs")
	}
	dropped := Stage(t, e, []byte("never committed"))
	closeOf(t, dropped)
	Close(t, e)
	e = open(t)
	defer Close(t, e)
	if got := Content(t, e, "test/a"); !bytes.Equal(got, want) {
		t.Error("content differs after a restart")
	}
}

func testRoll(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	small := policy
	small.Length = 10
	for range 5 {
		a := Append("abcdefgh")
		a.Roll = small
		Must(t, e, "test/a", a)
	}
	var got []int64
	s := State(t, e, "test/a")
	for _, f := range s.Finished {
		got = append(got, f.Len())
	}
	// The first append is alone; then two of eight bytes exceed ten.
	if diff := cmp.Diff([]int64{8, 16}, got); diff != "" || s.Open.Len() != 16 {
		t.Fatalf("%s; open: %d", diff, s.Open.Len())
	}
	force := Append("")
	force.Roll.Force, force.Roll.ForceBelow = true, s.Open.Begin
	Must(t, e, "test/a", force)
	if s = State(t, e, "test/a"); len(s.Finished) != 2 || s.Open.Len() != 16 {
		t.Fatalf("after a forced roll of what is no longer open: %+v", s)
	}
	force.Roll.ForceBelow++
	Must(t, e, "test/a", force)
	if s = State(t, e, "test/a"); len(s.Finished) != 3 || s.Open.Len() != 0 || s.Open.Begin != 40 {
		t.Fatalf("after a forced roll: %+v", s)
	}
	if got := Content(t, e, "test/a"); len(got) != 40 {
		t.Fatalf("content: %q", got)
	}
}

// testFirstFragment checks that the fragment at the lowest offset of a journal is finished after its first append, whatever was
// before it: nothing, content that was dropped, or a head that was moved.
func testFirstFragment(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	expect := func(what string, finished int, begin, head protocol.Offset) {
		t.Helper()
		if s := State(t, e, "test/a"); len(s.Finished) != finished || s.Open.Begin != begin || s.Head != head {
			t.Errorf("%s: %+v", what, s)
		}
	}
	Must(t, e, "test/a", Append("one"))
	expect("the first append", 0, 0, 3)
	Must(t, e, "test/a", Append("two"))
	Must(t, e, "test/a", Append("three"))
	expect("more of them", 1, 3, 11)

	force := Append("")
	force.Roll.Force = true
	Must(t, e, "test/a", force)
	if err := e.Trim(t.Context(), "test/a", 11); err != nil {
		t.Fatal(err)
	}
	expect("without content", 0, 11, 11)
	Must(t, e, "test/a", Append("four"))
	Must(t, e, "test/a", Append("five"))
	Must(t, e, "test/a", Append("six"))
	expect("after that", 1, 15, 22)

	reset := Append("")
	reset.Offset, reset.Floor = 100, 100
	Must(t, e, "test/a", reset)
	expect("with the head moved", 2, 100, 100)
	Must(t, e, "test/a", Append("seven"))
	Must(t, e, "test/a", Append("eight"))
	expect("behind a gap there is no first fragment", 2, 100, 110)
}

// testFragments checks what is kept of a fragment: its codec from the first append on, the times of its appends, and the postfix
// that its journal's registers give it when it is finished.
func testFragments(t *testing.T, open Opener) {
	e := open(t)
	Create(t, e, "test/a")
	at := func(second int64, content string, codec protocol.CompressionCodec) *engine.Append {
		a := Append(content)
		a.Now, a.Roll.Codec = time.Unix(second, 0), codec
		a.Union = protocol.MustLabelSet("at", fmt.Sprint(second))
		a.Roll.Postfix = func(f engine.Fragment, registers *protocol.LabelSet) string {
			return fmt.Sprintf("%d-%d-%s", f.Begin, f.End, registers.ValueOf("at"))
		}
		return a
	}
	Must(t, e, "test/a", at(1000, "first", protocol.CompressionCodec_GZIP))
	Must(t, e, "test/a", at(2000, "second", protocol.CompressionCodec_GZIP))
	// Neither another codec nor a clock that goes back changes the fragment.
	if res := Must(t, e, "test/a", at(1500, "third", protocol.CompressionCodec_ZSTANDARD)); res.Codec != protocol.CompressionCodec_GZIP {
		t.Errorf("an append in %v", res.Codec)
	}
	last := at(3000, "fourth", protocol.CompressionCodec_ZSTANDARD)
	last.Roll.Force = true
	Must(t, e, "test/a", last)
	fragment := func(content string, begin protocol.Offset, codec protocol.CompressionCodec, first, last int64, postfix string) engine.Fragment {
		return engine.Fragment{
			Begin: begin, End: begin + protocol.Offset(len(content)), Sum: sha1.Sum([]byte(content)), Codec: codec,
			FirstAppend: first, LastAppend: last, Postfix: postfix,
		}
	}
	want := []engine.Fragment{
		fragment("first", 0, protocol.CompressionCodec_GZIP, 1000, 1000, "0-5-1000"),
		fragment("secondthird", 5, protocol.CompressionCodec_GZIP, 2000, 2000, "5-16-1500"),
		fragment("fourth", 16, protocol.CompressionCodec_ZSTANDARD, 3000, 3000, ""),
	}
	for range 2 {
		s := State(t, e, "test/a")
		if diff := cmp.Diff(want, append(append([]engine.Fragment(nil), s.Finished...), s.Open)); diff != "" {
			t.Errorf("fragments (-want +got):\n%s", diff)
		}
		Close(t, e)
		e = open(t)
	}
	Close(t, e)
}

func testSpecs(t *testing.T, open Opener) {
	e := open(t)
	apply := func(want error, changes ...*protocol.ApplyRequest_Change) int64 {
		t.Helper()
		r, err := e.Apply(t.Context(), changes)
		if !errors.Is(err, want) {
			t.Fatalf("apply: %v, want %v", err, want)
		}
		return r
	}
	first := e.Specs().Revision
	r1 := apply(nil, &protocol.ApplyRequest_Change{Upsert: Spec("test/b")}, &protocol.ApplyRequest_Change{Upsert: Spec("test/a")})
	if r1 != first+1 || e.Specs().Revision != r1 {
		t.Fatalf("revisions %d, %d", first, r1)
	}
	apply(engine.ErrRevision, &protocol.ApplyRequest_Change{Upsert: Spec("test/a")}, &protocol.ApplyRequest_Change{Upsert: Spec("test/c")})
	if e.Specs().Get("test/c") != nil {
		t.Fatal("half of a failed change was made")
	}
	changed := Spec("test/a")
	changed.MaxAppendRate = 1000
	r2 := apply(nil, &protocol.ApplyRequest_Change{Upsert: changed, ExpectModRevision: r1})
	if got := e.Specs().Get("test/a"); got.Created != r1 || got.Modified != r2 || got.MaxAppendRate != 1000 {
		t.Fatalf("changed spec: %+v", got)
	}
	if r := apply(nil, &protocol.ApplyRequest_Change{Delete: "test/none", ExpectModRevision: -1}); r != r2 {
		t.Fatalf("deleting nothing gave revision %d", r)
	}
	if r := apply(nil); r != r2 {
		t.Fatalf("no change gave revision %d", r)
	}
	r3 := apply(nil, &protocol.ApplyRequest_Change{Delete: "test/b", ExpectModRevision: r1})

	id := e.Identity()
	Close(t, e)
	e = open(t)
	defer Close(t, e)
	specs := e.Specs()
	if specs.Revision != r3 || len(specs.All) != 1 || specs.All[0].Modified != r2 || specs.All[0].Created != r1 {
		t.Fatalf("after a restart: revision %d, %v", specs.Revision, specs.All)
	}
	if diff := cmp.Diff(changed, specs.All[0].JournalSpec, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if again := e.Identity(); again.Cluster != id.Cluster || again.Term <= id.Term || again.Cluster == 0 || again.Member == 0 {
		t.Errorf("identities %+v, %+v", id, again)
	}
}

func testRecreate(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	a := Append("secret")
	a.Union = protocol.MustLabelSet("lock", "me")
	Must(t, e, "test/a", a)
	created := State(t, e, "test/a").Created
	if _, err := e.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Delete: "test/a", ExpectModRevision: -1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), "test/a"); !fault.Is(err, fault.NotFound) {
		t.Fatalf("load a deleted journal: %v", err)
	}
	Create(t, e, "test/a")
	s := State(t, e, "test/a")
	if s.Head != 0 || s.Registers != nil || s.Created == created || len(Content(t, e, "test/a")) != 0 {
		t.Fatalf("the new journal has something of the old one: %+v", s)
	}
	a = Append("x")
	a.Created = created
	if _, err := e.Commit(t.Context(), "test/a", a); !fault.Is(err, fault.NotFound) {
		t.Fatalf("append meant for the old journal: %v", err)
	}
}

func testTrim(t *testing.T, open Opener) {
	e := open(t)
	Create(t, e, "test/a")
	each := policy
	each.Force = true
	for range 6 {
		a := Append("0123456789")
		a.Roll = each
		Must(t, e, "test/a", a)
	}
	if err := e.Trim(t.Context(), "test/a", 39); err != nil {
		t.Fatal(err)
	}
	check := func(begin protocol.Offset) {
		t.Helper()
		if s := State(t, e, "test/a"); s.Begin() != begin || s.Head != 60 {
			t.Fatalf("from %d to %d", s.Begin(), s.Head)
		}
		if got := Content(t, e, "test/a"); len(got) != int(60-begin) {
			t.Fatalf("content %q", got)
		}
	}
	check(30)
	if err := e.Trim(t.Context(), "test/a", 5); err != nil {
		t.Fatal(err)
	}
	if err := e.Trim(t.Context(), "test/a", 1000); err != nil {
		t.Fatal(err)
	}
	check(50) // the open fragment stays
	Close(t, e)
	e = open(t)
	defer Close(t, e)
	check(50)
}

func testReadWhileTrim(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	Create(t, e, "test/a")
	Must(t, e, "test/a", Append("first"))
	Must(t, e, "test/a", Append("second"))
	f := State(t, e, "test/a").Finished[0]
	r, err := e.Open(t.Context(), "test/a", f)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Trim(t.Context(), "test/a", 5); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if n, err := r.ReadAt(b, 0); string(b[:n]) != "first" {
		t.Errorf("a reader that was there before the trim: %q, %v", b[:n], err)
	}
	closeOf(t, r)
	if _, err := e.Open(t.Context(), "test/a", f); !fault.Is(err, fault.NotFound) {
		t.Errorf("a reader that came after the trim: %v", err)
	}
}

func testWatch(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	revision := e.Specs().Revision
	applied := make(chan *engine.Specs, 1)
	go func() {
		specs, _ := e.AwaitSpecs(t.Context(), revision)
		applied <- specs
	}()
	Create(t, e, "test/a")
	if specs := <-applied; specs.Get("test/a") == nil {
		t.Fatal("the new specs lack the journal")
	}
	changed, stop := e.Watch("test/a")
	defer stop()
	Must(t, e, "test/a", Append("x"))
	<-changed
	if _, err := e.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Delete: "test/a", ExpectModRevision: -1}}); err != nil {
		t.Fatal(err)
	}
	<-changed
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.AwaitSpecs(ctx, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("await in vain: %v", err)
	}
}

// testRace appends from many goroutines to few journals, with and without offsets.
func testRace(t *testing.T, open Opener) {
	e := open(t)
	const journals, writers, each = 3, 16, 30
	for j := range journals {
		Create(t, e, name(j))
	}
	var mu sync.Mutex
	want := make([]map[protocol.Offset]string, journals)
	for j := range want {
		want[j] = make(map[protocol.Offset]string)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				j := (w + i) % journals
				a := Append(fmt.Sprintf("writer %d append %d;", w, i))
				if i%3 == 0 {
					s, err := e.Load(t.Context(), name(j))
					if err != nil {
						t.Error(err)
						return
					}
					a.Offset = s.Head
				}
				res, err := e.Commit(t.Context(), name(j), a)
				if err != nil {
					t.Error(err)
					return
				}
				if res.Refusal == engine.WrongOffset {
					continue
				}
				mu.Lock()
				if old, ok := want[j][res.Begin]; ok {
					t.Errorf("offset %d of journal %d given to %q and %q", res.Begin, j, old, a.Content)
				}
				want[j][res.Begin] = string(a.Content)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	check := func() {
		for j := range journals {
			got := Content(t, e, name(j))
			var n int
			for off, content := range want[j] {
				n += len(content)
				if !bytes.HasPrefix(got[off:], []byte(content)) {
					t.Fatalf("journal %d at %d: not %q", j, off, content)
				}
			}
			if n != len(got) {
				t.Fatalf("journal %d has %d bytes, %d were acknowledged", j, len(got), n)
			}
		}
	}
	check()
	Close(t, e)
	e = open(t)
	defer Close(t, e)
	check()
}

func name(j int) protocol.Journal { return protocol.Journal(fmt.Sprintf("test/journal-%d", j)) }

func testReopen(t *testing.T, open Opener) {
	var want []byte
	for i := range 6 {
		e := open(t)
		if i == 0 {
			Create(t, e, "test/a")
		}
		for k := range 5 {
			content := fmt.Sprintf("start %d append %d;", i, k)
			Must(t, e, "test/a", Append(content))
			want = append(want, content...)
		}
		if got := Content(t, e, "test/a"); !bytes.Equal(got, want) {
			t.Fatalf("start %d: %q, want %q", i, got, want)
		}
		Close(t, e)
	}
}

func testUnknownJournal(t *testing.T, open Opener) {
	e := open(t)
	defer Close(t, e)
	_, load := e.Load(t.Context(), "test/none")
	_, commit := e.Commit(t.Context(), "test/none", Append("x"))
	_, reader := e.Open(t.Context(), "test/none", engine.Fragment{})
	for what, err := range map[string]error{"load": load, "commit": commit, "open": reader, "trim": e.Trim(t.Context(), "test/none", 1)} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
