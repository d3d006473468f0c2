package collector

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	testTime   = time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
	testSecret = types.PrefixSecret("a secret of exactly thirty-six bytes")
)

// fakeCoordinator keeps streams in memory. It knows one secret for each prefix: the first one it sees, or testSecret.
type fakeCoordinator struct {
	mu      sync.Mutex
	streams map[types.StreamPath]*coordinator.LogStreamState
	// What happened, in order.
	registered, terminated []types.StreamPath
	// Hooks return the error of a call, if any. They are called without the lock.
	onRegister  func(*coordinator.LogStreamState) error
	onTerminate func(*coordinator.TerminateRequest) error
}

func (f *fakeCoordinator) RegisterStream(_ context.Context, s *coordinator.LogStreamState, desc []byte) (*coordinator.LogStreamState, error) {
	if f.onRegister != nil {
		if err := f.onRegister(s); err != nil {
			return nil, err
		}
	}
	d := new(logpb.LogStreamDescriptor)
	if err := proto.Unmarshal(desc, d); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if prefix, name := s.Path.Split(); d.GetPrefix() != string(prefix) || d.GetName() != string(name) {
		return nil, fault.New(fault.Invalid, "descriptor of %s/+/%s for %s", d.GetPrefix(), d.GetName(), s.Path)
	}
	if !s.Secret.Equal(testSecret) {
		return nil, fault.New(fault.Invalid, "wrong secret")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registered = append(f.registered, s.Path)
	if f.streams == nil {
		f.streams = make(map[types.StreamPath]*coordinator.LogStreamState)
	}
	known := f.streams[s.Path]
	if known == nil {
		known = new(coordinator.LogStreamState)
		*known = *s
		known.ID = string(s.Path.ID())
		known.Secret = bytes.Clone(s.Secret)
		f.streams[s.Path] = known
	}
	out := *known
	return &out, nil
}

func (f *fakeCoordinator) TerminateStream(_ context.Context, r *coordinator.TerminateRequest) error {
	if f.onTerminate != nil {
		if err := f.onTerminate(r); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.terminated = append(f.terminated, r.Path)
	s := f.streams[r.Path]
	switch {
	case s == nil || s.ID != r.ID || !s.Secret.Equal(r.Secret):
		return fault.New(fault.NotFound, "no such stream")
	case s.Terminated() && (s.TerminalIndex != r.TerminalIndex || s.TerminalEmpty != r.TerminalEmpty):
		return fault.New(fault.Precondition, "the stream has another end")
	}
	s.TerminalIndex, s.TerminalEmpty, s.Ended = r.TerminalIndex, r.TerminalEmpty, r.Ended
	return nil
}

// ends returns the known streams with their terminal indices.
func (f *fakeCoordinator) ends() map[types.StreamPath]types.MessageIndex {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[types.StreamPath]types.MessageIndex)
	for path, s := range f.streams {
		out[path] = s.TerminalIndex
	}
	return out
}

// text returns an entry of lines, each with its delimiter.
func text(index uint64, lines ...string) *logpb.LogEntry {
	t := new(logpb.Text)
	for _, l := range lines {
		delimiter := ""
		for _, d := range []string{"\r\n", "\n"} {
			if delimiter == "" && strings.HasSuffix(l, d) {
				delimiter = d
			}
		}
		t.Lines = append(t.Lines, &logpb.Text_Line{Value: []byte(strings.TrimSuffix(l, delimiter)), Delimiter: delimiter})
	}
	return &logpb.LogEntry{StreamIndex: index, Content: &logpb.LogEntry_Text{Text: t}}
}

// entry returns the bundle entry of a text stream with the given indices.
func entry(name string, indices ...uint64) *logpb.ButlerLogBundle_Entry {
	e := &logpb.ButlerLogBundle_Entry{Desc: &logpb.LogStreamDescriptor{
		Name: name, ContentType: "text/plain", Timestamp: timestamppb.New(testTime), Tags: map[string]string{"k": "v"},
	}}
	for _, i := range indices {
		e.Logs = append(e.Logs, text(i, fmt.Sprintf("%s %d\n", name, i)))
	}
	return e
}

func indices(first, n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(first + i)
	}
	return out
}

func ends(e *logpb.ButlerLogBundle_Entry, index uint64) *logpb.ButlerLogBundle_Entry {
	e.Terminal, e.TerminalIndex = true, index
	return e
}

func bundleOf(entries ...*logpb.ButlerLogBundle_Entry) *logpb.ButlerLogBundle {
	return &logpb.ButlerLogBundle{Project: "proj", Prefix: "pre/fix", Secret: testSecret, Entries: entries}
}

func message(t testing.TB, b *logpb.ButlerLogBundle) []byte {
	t.Helper()
	w := envelope.Writer{Compression: envelope.Zstd}
	msg, err := w.Append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func envelopeNone(b *logpb.ButlerLogBundle) ([]byte, error) {
	return new(envelope.Writer).Append(nil, b)
}

func path(name string) types.StreamPath { return types.StreamPath("pre/fix/+/" + name) }

// stored returns the text of the stored entries of a stream by index, as one string.
func stored(t testing.TB, s storage.Storage, p types.StreamPath) string {
	t.Helper()
	var b strings.Builder
	err := s.Get(context.Background(), storage.GetRequest{Stream: storage.Stream{Project: "proj", Path: p}}, func(e storage.Entry) bool {
		log := new(logpb.LogEntry)
		if err := proto.Unmarshal(e.Data, log); err != nil || log.GetStreamIndex() != uint64(e.Index) {
			t.Errorf("entry %d of %s: %v, %v", e.Index, p, log, err)
		}
		for _, l := range log.GetText().GetLines() {
			fmt.Fprintf(&b, "%s%s", l.GetValue(), l.GetDelimiter())
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wants checks that a stream holds the lines that entry made for the indices.
func wants(t testing.TB, s storage.Storage, name string, indices ...uint64) {
	t.Helper()
	var want strings.Builder
	for _, i := range indices {
		fmt.Fprintf(&want, "%s %d\n", name, i)
	}
	if got := stored(t, s, path(name)); got != want.String() {
		t.Errorf("stream %s holds\n%.300s\nwant\n%.300s", name, got, want.String())
	}
}

type fixture struct {
	*Collector
	coord *fakeCoordinator
	store *memory.Storage
	log   *lockedBuffer
}

// uncached makes setUp leave the cache away.
var uncached bool

// TestProcessWithoutCache runs the tests of Process once more, without the cache.
func TestProcessWithoutCache(t *testing.T) {
	uncached = true
	defer func() { uncached = false }()
	for name, test := range map[string]func(*testing.T){
		"two streams":                    TestProcessTwoStreams,
		"open, then end":                 TestProcessOpenThenEnd,
		"without entries":                TestProcessWithoutEntries,
		"failures":                       TestProcessFailures,
		"refuses without registering":    TestProcessRefusesWithoutRegistering,
		"keeps the good entries":         TestProcessKeepsTheGoodEntries,
		"drops silently":                 TestProcessDropsSilently,
		"late":                           TestProcessLate,
		"cancelled":                      TestProcessCancelled,
		"puts aside":                     TestProcessPutsAside,
		"keeps nothing that comes again": TestProcessKeepsNothingThatComesAgain,
	} {
		t.Run(name, test)
	}
}

func setUp(t *testing.T) *fixture {
	f := &fixture{coord: new(fakeCoordinator), store: memory.New(), log: new(lockedBuffer)}
	f.Collector = &Collector{Coordinator: f.coord, Storage: f.store, Logger: slog.New(slog.NewTextHandler(f.log, nil)), uncached: uncached}
	t.Cleanup(func() {
		f.Close()
		if strings.Contains(f.log.String(), string(testSecret)) {
			t.Error("the log has the secret")
		}
	})
	return f
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// class names the outcome of Process.
func class(err error) string {
	switch {
	case err == nil:
		return "success"
	case fault.IsTransient(err):
		return "transient"
	}
	return "permanent"
}

func (f *fixture) process(t *testing.T, want string, b *logpb.ButlerLogBundle) {
	t.Helper()
	if err := f.Process(t.Context(), message(t, b)); class(err) != want {
		t.Errorf("outcome %s (%v), want %s", class(err), err, want)
	}
}

func TestProcessTwoStreams(t *testing.T) {
	f := setUp(t)
	for range 2 { // the second time as a redelivery
		f.process(t, "success", bundleOf(ends(entry("a", indices(0, 128)...), 127), ends(entry("b", indices(0, 256)...), 255)))
		wants(t, f.store, "a", indices(0, 128)...)
		wants(t, f.store, "b", indices(0, 256)...)
	}
	if diff := cmp.Diff(map[types.StreamPath]types.MessageIndex{path("a"): 127, path("b"): 255}, f.coord.ends()); diff != "" {
		t.Error(diff)
	}
	if n, m := len(f.coord.registered), len(f.coord.terminated); !uncached && (n != 2 || m != 0) {
		t.Errorf("%d registrations and %d terminations, want one call a stream", n, m)
	}
}

func TestProcessOpenThenEnd(t *testing.T) {
	f := setUp(t)
	f.process(t, "success", bundleOf(entry("a", 0, 1)))
	f.process(t, "success", bundleOf(ends(entry("a"), 1)))
	f.process(t, "success", bundleOf(ends(entry("a"), 1)))
	if n, m := len(f.coord.registered), len(f.coord.terminated); !uncached && (n != 1 || m != 1) {
		t.Errorf("%d registrations and %d terminations, want 1 and 1", n, m)
	}
	// Another end is not worth an error, when it is known here; what came with it is stored.
	outcome := "success"
	if uncached {
		outcome = "permanent"
	}
	f.process(t, outcome, bundleOf(ends(entry("a", 2), 2)))
	wants(t, f.store, "a", 0, 1, 2)
	if !strings.Contains(f.log.String(), "another end") {
		t.Error("another end was not logged")
	}
	for range 2 * maxComplaints { // nobody fills a disk with it
		f.process(t, outcome, bundleOf(ends(entry("a"), 2)))
	}
	if n := strings.Count(f.log.String(), "another end"); n > 2*maxComplaints {
		t.Errorf("it was logged %d times", n)
	}
}

func TestProcessWithoutEntries(t *testing.T) {
	f := setUp(t)
	announced := entry("announced")
	announced.Announce = true
	empty := entry("empty")
	empty.Terminal, empty.TerminalEmpty, empty.Ended = true, true, &logpb.StreamEnd{Reason: "killed"}
	f.process(t, "success", bundleOf(announced, empty, entry("junk")))
	if diff := cmp.Diff(map[types.StreamPath]types.MessageIndex{path("announced"): -1, path("empty"): -1}, f.coord.ends()); diff != "" {
		t.Error(diff)
	}
	if !f.coord.streams[path("empty")].TerminalEmpty {
		t.Error("the empty stream has not ended")
	}

	// An announced stream that ends without an entry.
	announced.Terminal, announced.TerminalEmpty, announced.Ended = true, true, &logpb.StreamEnd{Reason: "gone"}
	f.process(t, "success", bundleOf(announced))
	if !f.coord.streams[path("announced")].TerminalEmpty {
		t.Error("the announced stream has not ended")
	}
	for name, want := range map[string]string{"announced": "gone", "empty": "killed"} {
		if got := f.coord.streams[path(name)].Ended.GetReason(); got != want {
			t.Errorf("stream %s ended with reason %q, want %q", name, got, want)
		}
	}

	contradiction := entry("c", 0)
	contradiction.Terminal, contradiction.TerminalEmpty = true, true
	f.process(t, "permanent", bundleOf(contradiction))
}

func TestProcessFailures(t *testing.T) {
	for _, c := range []struct {
		kind fault.Kind
		want string
	}{
		{fault.Transient, "transient"},
		{fault.Denied, "transient"},
		{fault.Unauthenticated, "transient"},
		{fault.Exhausted, "transient"},
		{fault.Canceled, "transient"},
		{fault.Invalid, "permanent"},
		{fault.Precondition, "permanent"},
	} {
		failure := fault.New(c.kind, "no")
		t.Run(c.kind.String(), func(t *testing.T) {
			f := setUp(t)
			f.coord.onRegister = func(*coordinator.LogStreamState) error { return failure }
			f.process(t, c.want, bundleOf(entry("a", 0)))
			wants(t, f.store, "a")

			f.coord.onRegister = nil
			f.process(t, "success", bundleOf(entry("a", 0)))
			f.coord.onTerminate = func(*coordinator.TerminateRequest) error { return failure }
			f.process(t, c.want, bundleOf(ends(entry("a", 1), 1)))
			wants(t, f.store, "a", 0, 1)

			f.coord.onTerminate = nil
			f.store.SetErr(failure)
			f.process(t, c.want, bundleOf(entry("a", 2)))
			f.store.SetErr(nil)
			f.process(t, "success", bundleOf(entry("a", 2)))
			wants(t, f.store, "a", 0, 1, 2)
		})
	}
}

func TestProcessRefusesWithoutRegistering(t *testing.T) {
	one := func(change func(*logpb.ButlerLogBundle)) *logpb.ButlerLogBundle {
		b := bundleOf(entry("a", 0))
		change(b)
		return b
	}
	for name, b := range map[string]*logpb.ButlerLogBundle{
		"no project":    one(func(b *logpb.ButlerLogBundle) { b.Project = "" }),
		"bad project":   one(func(b *logpb.ButlerLogBundle) { b.Project = "P" }),
		"no prefix":     one(func(b *logpb.ButlerLogBundle) { b.Prefix = "" }),
		"bad prefix":    one(func(b *logpb.ButlerLogBundle) { b.Prefix = "a//b" }),
		"no secret":     one(func(b *logpb.ButlerLogBundle) { b.Secret = nil }),
		"short secret":  one(func(b *logpb.ButlerLogBundle) { b.Secret = testSecret[1:] }),
		"long secret":   one(func(b *logpb.ButlerLogBundle) { b.Secret = append(bytes.Clone(testSecret), 0) }),
		"wrong secret":  one(func(b *logpb.ButlerLogBundle) { b.Secret = types.NewPrefixSecret() }),
		"no descriptor": one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc = nil }),
		"other prefix":  one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc.Prefix = "pre/fox" }),
		"no name":       one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc.Name = "" }),
		"no timestamp":  one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc.Timestamp = nil }),
		"unknown type":  one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc.StreamType = 3 }),
		"binary in a text stream": one(func(b *logpb.ButlerLogBundle) {
			b.Entries[0].Logs[0].Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte("x")}}
		}),
		"binary stream":         one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Desc.StreamType = 1 }),
		"no line":               one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Logs[0].GetText().Lines = nil }),
		"gap":                   one(func(b *logpb.ButlerLogBundle) { b.Entries[0] = entry("a", 0, 2) }),
		"index out of range":    one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Logs[0].StreamIndex = 1 << 63 }),
		"index too high":        one(func(b *logpb.ButlerLogBundle) { b.Entries[0].Logs[0].StreamIndex = 1<<63 - 1 }),
		"indices run out":       one(func(b *logpb.ButlerLogBundle) { b.Entries[0] = entry("a", 1<<63-1, 1<<63) }),
		"end out of range":      one(func(b *logpb.ButlerLogBundle) { ends(b.Entries[0], 1<<63) }),
		"end without any entry": one(func(b *logpb.ButlerLogBundle) { ends(b.Entries[0], 0).Desc = nil }),
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			f.process(t, "permanent", b)
			if len(f.coord.registered) > 0 {
				t.Error("the stream was registered")
			}
			wants(t, f.store, "a")
			// It harms nobody who comes later.
			f.process(t, "success", bundleOf(entry("a", 0)))
			wants(t, f.store, "a", 0)
		})
	}
}

func TestProcessKeepsTheGoodEntries(t *testing.T) {
	f := setUp(t)
	f.process(t, "permanent", bundleOf(entry("a", 1, 3), entry("a", 0), entry("b", 0, 1)))
	wants(t, f.store, "a", 0)
	wants(t, f.store, "b", 0, 1)

	f.coord.onRegister = func(s *coordinator.LogStreamState) error {
		if s.Path == path("away") {
			return fault.New(fault.Transient, "away")
		}
		return nil
	}
	f.process(t, "transient", bundleOf(entry("c", 1, 3), entry("away", 0), entry("d", 0)))
	wants(t, f.store, "d", 0)
}

// The entries of a message are stored together, or not at all.
func TestProcessStoresAllOrNothing(t *testing.T) {
	f := setUp(t)
	away := true
	f.Storage = &flaky{Storage: f.store, fail: func() error {
		if away {
			return fault.New(fault.Transient, "away")
		}
		return nil
	}}
	b := bundleOf(entry("a", 0), entry("b", 0, 1), ends(entry("c", 0), 0))
	f.process(t, "transient", b)
	for _, name := range []string{"a", "b", "c"} {
		wants(t, f.store, name)
	}
	away = false
	f.process(t, "success", b)
	wants(t, f.store, "a", 0)
	wants(t, f.store, "b", 0, 1)
	wants(t, f.store, "c", 0)
}

func TestProcessDropsSilently(t *testing.T) {
	f := setUp(t)
	good := message(t, bundleOf(entry("a", 0)))
	for name, msg := range map[string][]byte{
		"empty":       nil,
		"junk":        []byte("junk"),
		"truncated":   good[:len(good)-1],
		"no type":     {0},
		"empty frame": append(bytes.Clone(good[:7]), 0),
		"no entries":  message(t, bundleOf()),
		"junk entry":  message(t, bundleOf(entry("a"))),
	} {
		if err := f.Process(t.Context(), msg); err != nil && name != "empty frame" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.coord.registered) > 0 {
		t.Error("a stream was registered")
	}
}

func TestProcessLate(t *testing.T) {
	for _, late := range []coordinator.LogStreamState{{Archived: true}, {Purged: true}, {}} {
		f := setUp(t)
		late.ID, late.Secret, late.TerminalIndex = "id", testSecret, -1
		if !late.Archived && !late.Purged {
			late.Secret = types.NewPrefixSecret() // another one, at a Coordinator that does not compare
		}
		f.coord.streams = map[types.StreamPath]*coordinator.LogStreamState{path("a"): &late}
		f.process(t, "success", bundleOf(ends(entry("a", 0), 0), entry("b", 0)))
		wants(t, f.store, "a")
		wants(t, f.store, "b", 0)
		if len(f.coord.terminated) > 0 {
			t.Error("the end was reported")
		}
	}
}

func TestProcessSizeLimit(t *testing.T) {
	f := setUp(t)
	for _, compression := range []logpb.ButlerMetadata_Compression{envelope.None, envelope.Zlib, envelope.Zstd} {
		for _, n := range []int{envelope.MaxSize - 1, envelope.MaxSize} {
			b := bundleOf(entry("big", 0))
			line := b.Entries[0].Logs[0].GetText().Lines[0]
			line.Value = make([]byte, n)
			line.Value = line.Value[:n-(proto.Size(b)-n)]
			msg, err := (&envelope.Writer{Compression: compression}).Append(nil, b)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Process(t.Context(), msg); err != nil {
				t.Errorf("%v, %d bytes: %v", compression, n, err)
			}
		}
	}
	if got := len(stored(t, f.store, path("big"))); got < envelope.MaxSize-300 {
		t.Errorf("%d bytes are stored", got)
	}
}

// Messages above the limit cannot be had from our writer, so they are put together by hand.
func TestProcessAboveTheSizeLimit(t *testing.T) {
	f := setUp(t)
	q := f.withQuarantine(t, vfs.NewMem())
	b := bundleOf(entry("big", 0))
	line := b.Entries[0].Logs[0].GetText().Lines[0]
	line.Value = make([]byte, envelope.MaxSize)
	line.Value = line.Value[:envelope.MaxSize+1-(proto.Size(b)-envelope.MaxSize)]
	body, err := proto.Marshal(b)
	if err != nil || len(body) != envelope.MaxSize+1 {
		t.Fatal(len(body), err)
	}
	var squeezed bytes.Buffer
	z := zlib.NewWriter(&squeezed)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	z.Close()
	for compression, body := range map[logpb.ButlerMetadata_Compression][]byte{envelope.None: body, envelope.Zlib: squeezed.Bytes()} {
		meta, err := proto.Marshal(&logpb.ButlerMetadata{Type: logpb.ButlerMetadata_ButlerLogBundle, Compression: compression, ProtoVersion: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Process(t.Context(), frame.Append(frame.Append(nil, meta), body)); err != nil {
			t.Errorf("%v: %v", compression, err)
		}
	}
	if len(f.coord.registered) > 0 {
		t.Error("a stream was registered")
	}
	if got := kept(t, q); len(got) != 2 || !strings.Contains(got[0], "malformed") || !strings.Contains(got[1], "malformed") {
		t.Errorf("kept %v", got)
	}
}

func TestProcessCancelled(t *testing.T) {
	f := setUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Process(ctx, message(t, bundleOf(entry("a", 0)))); class(err) != "transient" {
		t.Errorf("outcome %s (%v)", class(err), err)
	}
}

func TestProcessAfterClose(t *testing.T) {
	f := setUp(t)
	f.Close()
	if err := f.Process(t.Context(), message(t, bundleOf(entry("a", 0)))); class(err) != "transient" {
		t.Errorf("outcome %s (%v)", class(err), err)
	}
}

func TestProcessDoesNotKeepTheMessage(t *testing.T) {
	f := setUp(t)
	msg, err := new(envelope.Writer).Append(nil, bundleOf(entry("a", 0)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Process(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	clear(msg)
	wants(t, f.store, "a", 0)
}

func TestCombine(t *testing.T) {
	a, b := fault.New(fault.Invalid, "a"), fault.New(fault.Transient, "b")
	for _, errs := range [][]error{{a, b, nil}, {b, a}} {
		err := combine(errs)
		if !fault.IsTransient(err) || !errors.Is(err, a) || !errors.Is(err, b) {
			t.Errorf("%v", err)
		}
	}
	if err := combine([]error{nil, a}); err == nil || fault.IsTransient(err) {
		t.Errorf("%v", err)
	}
	if err := combine([]error{nil, nil}); err != nil {
		t.Errorf("%v", err)
	}
}
