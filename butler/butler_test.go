package butler

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// testOutput is a memory output that can be told to fail, to wait, and to be like the reference.
type testOutput struct {
	memory.Output
	maxSize int
	plain   bool
	// fail is called for each bundle, if it is not nil.
	fail func(*logpb.ButlerLogBundle) error
}

func (o *testOutput) SendBundle(b *logpb.ButlerLogBundle) error {
	if o.fail != nil {
		if err := o.fail(b); err != nil {
			return err
		}
	}
	return o.Output.SendBundle(b)
}

func (o *testOutput) MaxSize() int     { return o.maxSize }
func (o *testOutput) Extensions() bool { return !o.plain }

func newButler(t *testing.T, ctx context.Context, out output.Output) *Butler {
	t.Helper()
	b, err := New(ctx, Config{Output: out, BufferLogs: true, MaxBufferAge: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// source is a stream that knows whether it was closed.
type source struct {
	io.Reader
	mu     sync.Mutex
	closed int
}

func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	if c, ok := s.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (s *source) closes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func text(s string) *source { return &source{Reader: strings.NewReader(s)} }

func desc(name string, t logpb.StreamType) *logpb.LogStreamDescriptor {
	return &logpb.LogStreamDescriptor{Name: name, StreamType: t, ContentType: "x/y"}
}

func add(t *testing.T, b *Butler, name string, s io.ReadCloser) {
	t.Helper()
	if err := b.AddStream(s, desc(name, logpb.StreamType_TEXT)); err != nil {
		t.Fatal(err)
	}
}

func finish(t *testing.T, b *Butler) {
	t.Helper()
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestStreams(t *testing.T) {
	for _, plain := range []bool{false, true} {
		out := &testOutput{plain: plain}
		b := newButler(t, t.Context(), out)
		var sources []*source
		for i := range 256 {
			if i == 128 {
				b.Activate()
			}
			s := text(fmt.Sprintf("line %d\nand the rest \xe2\x86", i))
			sources = append(sources, s)
			add(t, b, fmt.Sprintf("s/%03d", i), s)
		}
		add(t, b, "empty", text(""))
		finish(t, b)
		if n := len(b.Streams()); n != 257 || !slices.IsSorted(b.Streams()) {
			t.Errorf("%d streams", n)
		}
		for i, s := range sources {
			got := out.Stream(types.StreamName(fmt.Sprintf("s/%03d", i)))
			if want := fmt.Sprintf("line %d\nand the rest \xe2\x86", i); string(got.Data) != want {
				t.Errorf("%q, want %q", got.Data, want)
			}
			if got.Terminal != 1 || got.TerminalIndex != types.MessageIndex(len(got.Entries)-1) || s.closes() != 1 {
				t.Errorf("%d: terminal %d times, index %d; closed %d times", i, got.Terminal, got.TerminalIndex, s.closes())
			}
		}
		if e := out.Stream("empty"); plain && e != nil || !plain && (e == nil || !e.TerminalEmpty) {
			t.Errorf("empty stream: %+v", e)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no output":    {},
		"tiny bundles": {Output: &testOutput{maxSize: 10}},
		"invalid tags": {Output: &testOutput{}, GlobalTags: streamproto.TagMap{"-": ""}},
	} {
		if _, err := New(t.Context(), c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestUnlimitedAndSmallBundles(t *testing.T) {
	for _, size := range []int{0, MinOutputSize} {
		out := &testOutput{maxSize: size}
		b := newButler(t, t.Context(), out)
		want := strings.Repeat(strings.Repeat("x", 3000)+"\n\n\n", 100)
		add(t, b, "s", text(want))
		finish(t, b)
		if got := string(out.Stream("s").Data); got != want {
			t.Errorf("size %d: data differs", size)
		}
	}
}

func TestRefusedStreams(t *testing.T) {
	b := newButler(t, t.Context(), &testOutput{maxSize: MinOutputSize})
	add(t, b, "s", text(""))
	large := desc("large", logpb.StreamType_TEXT)
	large.Tags = map[string]string{"k": strings.Repeat("v", 4000)}
	for _, c := range []struct {
		d    *logpb.LogStreamDescriptor
		kind fault.Kind
	}{
		{nil, fault.Invalid},
		{desc("", 0), fault.Invalid},
		{desc("a//b", 0), fault.Invalid},
		{desc("t", 7), fault.Invalid},
		{desc("s", 0), fault.Exists},
		{large, fault.Invalid},
		{large, fault.Invalid}, // not a duplicate
	} {
		s := text("x")
		if err := b.AddStream(s, c.d); !fault.Is(err, c.kind) || s.closes() != 0 {
			t.Errorf("%v: %v, closed %d times", c.d, err, s.closes())
		}
	}
	finish(t, b)
	if err := b.AddStream(text(""), desc("late", 0)); !fault.Is(err, fault.Precondition) {
		t.Errorf("after the end: %v", err)
	}
	if err := b.Wait(); err != nil {
		t.Errorf("second Wait: %v", err)
	}
	if diff := cmp.Diff([]types.StreamName{"s"}, b.Streams()); diff != "" {
		t.Error(diff)
	}
}

// TestActivateAndWait has a Butler that waits although nothing runs, until it is told that all has come that will.
func TestActivateAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(testOutput)
		b := newButler(t, t.Context(), out)
		add(t, b, "before", text("1"))
		results := make(chan error, 1)
		go func() { results <- b.Wait() }()
		expectWaiting := func() {
			t.Helper()
			synctest.Wait()
			if len(results) > 0 {
				t.Fatal("Wait did not wait")
			}
		}
		expectWaiting()
		add(t, b, "during", text("2")) // all streams had ended
		expectWaiting()
		r, w := io.Pipe()
		add(t, b, "long", r)
		b.Activate()
		b.Activate()
		expectWaiting()
		add(t, b, "after", text("3"))
		expectWaiting()
		w.Close()
		if err := errors.Join(<-results, b.Wait(), b.Wait()); err != nil {
			t.Error(err)
		}
		for _, name := range b.Streams() {
			if s := out.Stream(name); s.Terminal != 1 {
				t.Errorf("%s: terminal %d times", name, s.Terminal)
			}
		}
	})
}

func TestGlobalTags(t *testing.T) {
	out := new(testOutput)
	b, err := New(t.Context(), Config{Output: out, GlobalTags: streamproto.TagMap{"a": "global", "b": "global"}})
	if err != nil {
		t.Fatal(err)
	}
	d := desc("s", logpb.StreamType_TEXT)
	d.Tags = map[string]string{"b": "own"}
	d.Prefix = "ignored"
	if err := b.AddStream(text("x"), d); err != nil {
		t.Fatal(err)
	}
	finish(t, b)
	got := out.Stream("s").Desc
	if diff := cmp.Diff(map[string]string{"a": "global", "b": "own"}, got.GetTags()); diff != "" {
		t.Error(diff)
	}
	if got.GetPrefix() != "" || got.GetTimestamp().AsTime().Before(time.Now().Add(-time.Hour)) {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff(map[string]string{"b": "own"}, d.GetTags()); diff != "" {
		t.Errorf("the caller's descriptor was changed: %s", diff)
	}
}

func TestReaderErrors(t *testing.T) {
	out := new(testOutput)
	b := newButler(t, t.Context(), out)
	add(t, b, "error", &source{Reader: io.MultiReader(strings.NewReader("kept"), iotest.ErrReader(errors.New("broken")))})
	add(t, b, "with-eof", &source{Reader: iotest.DataErrReader(strings.NewReader("all"))})
	add(t, b, "panic", &source{Reader: readerFunc(func([]byte) (int, error) { panic("reader") })})
	finish(t, b)
	for name, want := range map[types.StreamName]struct{ data, reason string }{
		"error": {"kept", "reading it failed: broken"}, "with-eof": {"all", ""}, "panic": {"", "the Butler failed to read it"},
	} {
		if s := out.Stream(name); string(s.Data) != want.data || s.Terminal != 1 || s.Ended.GetReason() != want.reason {
			t.Errorf("%s: %q, terminal %d times, %v", name, s.Data, s.Terminal, s.Ended)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestMalformedDatagramsHarmNobodyElse(t *testing.T) {
	out := new(testOutput)
	b := newButler(t, t.Context(), out)
	ends := make(chan types.StreamName, 10)
	b.AddStreamRegistrationCallback(func(d *logpb.LogStreamDescriptor) StreamChunkCallback {
		return func(e *logpb.LogEntry) {
			if e == nil {
				ends <- types.StreamName(d.GetName())
			}
		}
	}, false)
	over := binary.AppendUvarint([]byte("\x02ok"), 10<<20+1)
	for name, in := range map[string][]byte{
		"over": over, "overflow": bytes.Repeat([]byte{0xff}, 11), "cut-length": {0x80}, "cut-data": {5}, "fine": []byte("\x02hi\x00"),
	} {
		if err := b.AddStream(&source{Reader: bytes.NewReader(in)}, desc(name, logpb.StreamType_DATAGRAM)); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, b)
	if got := out.Stream("fine").Datagrams; len(got) != 2 || string(got[0]) != "hi" {
		t.Errorf("%q", got)
	}
	if s := out.Stream("over"); s.TerminalIndex != 0 || string(s.Datagrams[0]) != "ok" {
		t.Errorf("%+v", s)
	}
	if len(ends) != 5 {
		t.Errorf("%d of 5 streams ended", len(ends))
	}
}

func TestShutdown(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	out := new(testOutput)
	b := newButler(t, ctx, out)
	var sources []*source
	for i := range 256 {
		r, w := io.Pipe()
		s := &source{Reader: r}
		sources = append(sources, s)
		add(t, b, fmt.Sprintf("s%d", i), s)
		if i%2 == 0 {
			if _, err := w.Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel(errors.New("reason"))
	if err := b.Wait(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for i, s := range sources {
		got := out.Stream(types.StreamName(fmt.Sprintf("s%d", i)))
		if s.closes() != 1 || got.Terminal != 1 || got.TerminalEmpty != (i%2 == 1) {
			t.Errorf("%d: closed %d times, %+v", i, s.closes(), got)
		}
	}
}

func TestLossIsReported(t *testing.T) {
	lost := errors.New("gone")
	out := &testOutput{fail: func(b *logpb.ButlerLogBundle) error {
		if len(b.GetEntries()[0].GetLogs()) > 0 {
			return lost
		}
		return nil
	}}
	b := newButler(t, t.Context(), out)
	add(t, b, "s", text("1\n"))
	b.Activate()
	err := b.Wait()
	var loss *LossError
	if !errors.As(err, &loss) || !errors.Is(err, lost) || loss.Bundles != 1 || loss.Entries != 1 || !slices.Equal(loss.Streams, []types.StreamName{"s"}) {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), "1 entries of 1 streams") {
		t.Error(err)
	}
}

// TestStalledOutput opens and ends streams while the output does not move.
func TestStalledOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := make(chan struct{})
		out := &testOutput{fail: func(*logpb.ButlerLogBundle) error { <-stalled; return nil }}
		b := newButler(t, t.Context(), out)
		big := strings.Repeat("some line or other, and some more of it to make it longer than most\n", 1<<17)
		add(t, b, "big", text(big))
		synctest.Wait()
		small := make([]*source, 1000)
		for i := range small {
			small[i] = text("hello\n")
			add(t, b, fmt.Sprintf("small/%d", i), small[i])
		}
		synctest.Wait()
		for i, s := range small {
			if s.closes() != 1 {
				t.Fatalf("stream %d waits for the output", i)
			}
		}
		close(stalled)
		finish(t, b)
		if got := out.Stream("big").Data; string(got) != big {
			t.Errorf("%d bytes, want %d", len(got), len(big))
		}
	})
}

// server is a StreamServer of given streams.
type server struct {
	streams chan string
	closed  sync.Once
	panics  bool
}

func newServer(names ...string) *server {
	s := &server{streams: make(chan string, 1000)}
	for _, n := range names {
		s.streams <- n
	}
	return s
}

func (s *server) Next() (io.ReadCloser, *logpb.LogStreamDescriptor) {
	if s.panics {
		panic("server")
	}
	name, ok := <-s.streams
	if !ok {
		return nil, nil
	}
	return text(name), desc(name, logpb.StreamType_TEXT)
}

func (s *server) Close() { s.closed.Do(func() { close(s.streams) }) }

func TestStreamServers(t *testing.T) {
	out := new(testOutput)
	b := newButler(t, t.Context(), out)
	var names []types.StreamName
	for i := range 10 {
		s := newServer("-bad-")
		for k := range 50 {
			n := fmt.Sprintf("server%d/%02d", i, k)
			s.streams <- n
			names = append(names, types.StreamName(n))
		}
		b.AddStreamServer(s)
	}
	// All streams that the servers have are taken, however soon the end comes.
	finish(t, b)
	if diff := cmp.Diff(names, b.Streams()); diff != "" {
		t.Error(diff)
	}
	late := newServer("late")
	b.AddStreamServer(late)
	if name, open := <-late.streams; open {
		t.Errorf("a server added after the end was not closed, or %q neither taken nor refused", name)
	}
}

func TestServerPanicEndsTheRun(t *testing.T) {
	b := newButler(t, t.Context(), new(testOutput))
	r, w := io.Pipe()
	defer w.Close()
	add(t, b, "s", r)
	b.AddStreamServer(&server{panics: true, streams: make(chan string)})
	if err := b.Wait(); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Fatal(err)
	}
}

func TestDrainNamespace(t *testing.T) {
	b := newButler(t, t.Context(), new(testOutput))
	var writers []*io.PipeWriter
	for _, n := range []string{"a/b/c", "a/b/d", "a/x", "z"} {
		r, w := io.Pipe()
		writers = append(writers, w)
		add(t, b, n, r)
	}
	drain := func(ctx context.Context, ns string, want ...types.StreamName) {
		t.Helper()
		if diff := cmp.Diff(want, b.DrainNamespace(ctx, types.StreamName(ns))); diff != "" {
			t.Fatalf("%s: %s", ns, diff)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	drain(t.Context(), "nobody")
	drain(canceled, "a/b", "a/b/c", "a/b/d")
	if err := b.AddStream(text(""), desc("a/b/new", 0)); err == nil || !strings.Contains(err.Error(), `"a/b/"`) {
		t.Errorf("stream in a drained namespace: %v", err)
	}
	r, neighbour := io.Pipe()
	add(t, b, "a/bb", r)
	writers[0].Close()
	writers[1].Close()
	drain(t.Context(), "a/b/")
	drain(canceled, "", "a/bb", "a/x", "z")
	neighbour.Close()
	writers[2].Close()
	drain(t.Context(), "a")
	go writers[3].Close()
	drain(t.Context(), "")
	if err := b.AddStream(text(""), desc("anything", 0)); err == nil {
		t.Error("a stream was added to the drained root")
	}
	finish(t, b)
}
