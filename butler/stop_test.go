package butler

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// deaf is a stream that gives some data, and then waits whatever happens to it.
type deaf struct {
	data    []byte
	release chan struct{}
}

func (d *deaf) Read(p []byte) (int, error) {
	if len(d.data) == 0 {
		<-d.release
		return copy(p, "too late"), nil
	}
	n := copy(p, d.data)
	d.data = d.data[n:]
	return n, nil
}

func (*deaf) Close() error { return nil }

func TestReadersThatIgnoreCloseAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := new(testOutput)
		b := newButler(t, ctx, out)
		release := make(chan struct{})
		add(t, b, "deaf", &deaf{[]byte("one\ntwo"), release})
		if err := b.AddStream(&deaf{[]byte("\x02ok\x05"), release}, desc("dgram", logpb.StreamType_DATAGRAM)); err != nil {
			t.Fatal(err)
		}
		add(t, b, "other", text("all of it\n"))
		synctest.Wait()
		cancel()
		begin := time.Now()
		err := b.Wait()
		if took := time.Since(begin); took > stopLimit {
			t.Errorf("Wait took %v", took)
		}
		var cut *AbandonedError
		if !errors.Is(err, context.Canceled) || !errors.As(err, &cut) {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]types.StreamName{"deaf", "dgram"}, cut.Streams); diff != "" {
			t.Error(diff)
		}
		const note = "one\ntwo\n[daybook: the stream was cut off: it did not end within 5s of the end of the Butler]\n"
		for name, want := range map[types.StreamName]string{"deaf": note, "other": "all of it\n"} {
			if s := out.Stream(name); string(s.Data) != want || s.Terminal != 1 {
				t.Errorf("%s: %q, terminal %d times", name, s.Data, s.Terminal)
			}
		}
		if s := out.Stream("dgram"); s.Terminal != 1 || len(s.Datagrams) != 1 {
			t.Errorf("%+v", s)
		}
		for name, want := range map[types.StreamName]string{
			"deaf": "cut off: it did not end within 5s of the end of the Butler", "other": "",
			"dgram": "cut off: it did not end within 5s of the end of the Butler",
		} {
			if got := out.Stream(name).Ended.GetReason(); got != want {
				t.Errorf("%s: reason %q, want %q", name, got, want)
			}
		}
		close(release) // what the reader gives now is nobody's
		synctest.Wait()
		if s := out.Stream("deaf"); string(s.Data) != note || s.Terminal != 1 {
			t.Errorf("later: %q, terminal %d times", s.Data, s.Terminal)
		}
	})
}

func TestCallbacksThatDoNotReturnAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := new(testOutput)
		b := newButler(t, ctx, out)
		release := make(chan struct{})
		var mu sync.Mutex
		seen := make(map[string][]*logpb.LogEntry)
		b.AddStreamRegistrationCallback(func(d *logpb.LogStreamDescriptor) StreamChunkCallback {
			return func(e *logpb.LogEntry) {
				if d.GetName() == "stuck" {
					<-release
				}
				mu.Lock()
				defer mu.Unlock()
				seen[d.GetName()] = append(seen[d.GetName()], e)
			}
		}, false)
		// More than a callback may leave waiting: the stream is paused.
		big := strings.Repeat(strings.Repeat("x", 99)+"\n", 5*watcherBuffer/100)
		add(t, b, "stuck", text(big))
		add(t, b, "free", text("1\n"))
		synctest.Wait()
		b.Activate()
		cancel()
		if err := b.Wait(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if s := out.Stream("stuck"); string(s.Data) != big || s.Terminal != 1 {
			t.Errorf("%d bytes, want %d; terminal %d times", len(s.Data), len(big), s.Terminal)
		}
		close(release)
		synctest.Wait()
		for name, entries := range seen {
			if i := slices.Index(entries, nil); i != len(entries)-1 || len(entries) < 2 {
				t.Errorf("%s: %d entries, the end is number %d", name, len(entries), i)
			}
		}
		if len(seen) != 2 {
			t.Errorf("%d streams were seen", len(seen))
		}
	})
}

func TestOutputsThatTakeNothingAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		var taken, ends atomic.Int64
		out := &testOutput{fail: func(u *logpb.ButlerLogBundle) error {
			if taken.Add(1) > 3 {
				<-release
				return nil
			}
			time.Sleep(stopLimit - time.Second) // slow is not stuck
			return nil
		}, maxSize: MinOutputSize}
		b := newButler(t, ctx, out)
		b.AddStreamRegistrationCallback(func(*logpb.LogStreamDescriptor) StreamChunkCallback {
			return func(e *logpb.LogEntry) {
				if e == nil {
					ends.Add(1)
				}
			}
		}, false)
		add(t, b, "small", text("fine\n"))
		synctest.Wait()
		add(t, b, "big", text(strings.Repeat(strings.Repeat("x", 999)+"\n", 20)))
		synctest.Wait()
		cancel()
		err := b.Wait()
		var loss *LossError
		if !errors.Is(err, context.Canceled) || !errors.As(err, &loss) || !fault.Is(loss.Err, fault.Deadline) {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]types.StreamName{"big"}, loss.Streams); diff != "" || loss.Bundles != 1 || loss.Entries == 0 {
			t.Errorf("%v\n%s", loss, diff)
		}
		if taken.Load() != 4 || ends.Load() != 2 {
			t.Errorf("%d bundles were taken, %d ends seen", taken.Load(), ends.Load())
		}
		close(release)
		synctest.Wait()
		if taken.Load() != 4 {
			t.Errorf("%d bundles were taken in the end", taken.Load())
		}
	})
}

// buffered is a stream with data that nobody reads before the end has begun.
type buffered struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte
	drain  bool
	closed bool
}

func newBuffered(data string) *buffered {
	b := &buffered{data: []byte(data)}
	b.change.L = &b.mu
	return b
}

func (b *buffered) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.drain && !b.closed {
		b.change.Wait()
	}
	switch {
	case b.closed:
		return 0, os.ErrClosed
	case len(b.data) == 0:
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *buffered) set(flag *bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	*flag = true
	b.change.Broadcast()
	return nil
}

func (b *buffered) Close() error                    { return b.set(&b.closed) }
func (b *buffered) SetReadDeadline(time.Time) error { return b.set(&b.drain) }

func TestWhatWasWrittenIsReadAtShutdown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := new(testOutput)
	b := newButler(t, ctx, out)
	want := strings.Repeat("written before the end\n", 10_000)
	s := newBuffered(want)
	add(t, b, "s", s)
	cancel()
	if err := b.Wait(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got := out.Stream("s")
	if string(got.Data) != want || got.Terminal != 1 || !s.closed {
		t.Errorf("%d bytes, want %d; terminal %d times, closed %v", len(got.Data), len(want), got.Terminal, s.closed)
	}
	if got.Ended.GetReason() != "cut off: the Butler was stopped" {
		t.Errorf("the end is %v", got.Ended)
	}
	if err := b.AddStream(text(""), desc("late", 0)); !fault.Is(err, fault.Precondition) {
		t.Errorf("a late stream: %v", err)
	}
}

// backlog is a server whose streams appear when it is closed.
type backlog struct{ *server }

func (s backlog) Close() {
	for _, name := range []string{"one", "two"} {
		s.streams <- name
	}
	s.server.Close()
}

func TestServersBringWhatTheyHaveAtShutdown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := new(testOutput)
	b := newButler(t, ctx, out)
	b.AddStreamServer(backlog{newServer()})
	cancel()
	if err := b.Wait(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, name := range []types.StreamName{"one", "two"} {
		if s := out.Stream(name); s == nil || string(s.Data) != string(name) || s.Terminal != 1 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// hanging is a server that never comes to its end.
type hanging struct{ release chan struct{} }

func (s hanging) Next() (io.ReadCloser, *logpb.LogStreamDescriptor) {
	<-s.release
	return nil, nil
}

func (s hanging) Close() { <-s.release }

func TestServersThatHangAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newButler(t, ctx, new(testOutput))
		s := hanging{make(chan struct{})}
		b.AddStreamServer(s)
		cancel()
		begin := time.Now()
		if err := b.Wait(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > stopLimit {
			t.Errorf("Wait took %v", took)
		}
		close(s.release)
		synctest.Wait()
	})
}

// asking is a stream that wants an answer.
type asking struct {
	io.Reader
	events *events
	name   string
}

type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) add(parts ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, strings.Join(parts, " "))
}

func (a asking) Read(p []byte) (int, error) {
	a.events.add(a.name, "read")
	return a.Reader.Read(p)
}

func (a asking) Close() error {
	a.events.add(a.name, "closed")
	return nil
}

func (a asking) Answer(url string, err error) {
	kind := ""
	if err != nil {
		kind = fault.KindOf(err).String()
	}
	a.events.add(a.name, "answer", url, kind)
}

// asker is a server of given streams.
type asker chan asking

func (s asker) Next() (io.ReadCloser, *logpb.LogStreamDescriptor) {
	a, ok := <-s
	if !ok {
		return nil, nil
	}
	name, _, _ := strings.Cut(a.name, " ")
	return a, desc(name, logpb.StreamType_TEXT)
}

func (s asker) Close() { close(s) }

// pagedOutput has pages.
type pagedOutput struct {
	testOutput
	env output.Environment
}

func (o *pagedOutput) URLConstructionEnv() output.Environment { return o.env }

func TestAnswers(t *testing.T) {
	for host, url := range map[string]string{
		"127.0.0.1:80":     "http://127.0.0.1:80/logs/proj/a/b/+/ns/s",
		"localhost:80":     "http://localhost:80/logs/proj/a/b/+/ns/s",
		"logs.example.org": "https://logs.example.org/logs/proj/a/b/+/ns/s",
		"file:///some/dir": "",
		"":                 "",
	} {
		b := newButler(t, t.Context(), &pagedOutput{env: output.Environment{CoordinatorHost: host, Project: "proj", Prefix: "a/b"}})
		ev := new(events)
		s := make(asker, 3)
		for _, name := range []string{"ns/s", "ns/s again", "-"} {
			s <- asking{bytes.NewReader(nil), ev, name}
		}
		b.AddStreamServer(s)
		finish(t, b)
		of := func(name string) (out []string) {
			for _, e := range ev.all {
				if rest, ok := strings.CutPrefix(e, name+" "); ok && !strings.HasPrefix(rest, "again") {
					out = append(out, rest)
				}
			}
			return out
		}
		for name, want := range map[string][]string{
			"ns/s":       {"answer " + url + " ", "read", "closed"},
			"ns/s again": {"answer  exists", "closed"},
			"-":          {"answer  invalid", "closed"},
		} {
			if diff := cmp.Diff(want, of(name)); diff != "" {
				t.Errorf("%s, %s: %s", host, name, diff)
			}
		}
	}
}
