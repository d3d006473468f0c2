package bundler

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/logs/logpb"
)

func descriptor(name string, t logpb.StreamType) *logpb.LogStreamDescriptor {
	return &logpb.LogStreamDescriptor{Name: name, StreamType: t, ContentType: "x", Timestamp: timestamppb.Now()}
}

func register(t testing.TB, b *Bundler, name string, typ logpb.StreamType) *Stream {
	t.Helper()
	s, err := b.Register(descriptor(name, typ))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write puts data into a stream without closing it.
func write(t testing.TB, s *Stream, data []byte) {
	t.Helper()
	for len(data) > 0 {
		buf, err := s.Buffer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := copy(buf, data)
		s.Commit(n)
		data = data[n:]
	}
}

// next returns the next bundle with the times at which it was sent.
func next(t testing.TB, b *Bundler) *Bundle {
	t.Helper()
	u, err := b.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// content is what is in a bundle, for humans.
func content(u *Bundle) string {
	var out []string
	for _, e := range u.Proto.GetEntries() {
		var s strings.Builder
		fmt.Fprintf(&s, "%s:", e.GetDesc().GetName())
		for _, l := range e.GetLogs() {
			s.WriteString(" [")
			for _, line := range l.GetText().GetLines() {
				fmt.Fprintf(&s, "%s%s", line.GetValue(), strings.NewReplacer("\n", "$", "\r", "^").Replace(line.GetDelimiter()))
			}
			fmt.Fprintf(&s, "%s%s]", l.GetBinary().GetData(), l.GetDatagram().GetData())
		}
		if e.GetAnnounce() {
			s.WriteString(" announced")
		}
		if e.GetTerminal() {
			fmt.Fprintf(&s, " end %d", e.GetTerminalIndex())
		}
		if e.GetTerminalEmpty() {
			s.WriteString(" empty")
		}
		out = append(out, s.String())
	}
	for _, s := range u.Ended {
		out = append(out, "ended "+string(s.Name()))
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, b *Bundler, want string) {
	t.Helper()
	u := next(t, b)
	defer u.Release()
	if got := content(u); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second})
		begin := time.Now()
		s := register(t, b, "s", logpb.StreamType_TEXT)
		time.Sleep(10 * time.Second)
		write(t, s, []byte("one\ntw"))
		time.Sleep(600 * time.Millisecond)
		write(t, s, []byte("o\nthr"))
		// The bundle leaves when its oldest byte is a second old. What is younger than that is not split.
		expect(t, b, "s: [one$two$]")
		if got := time.Since(begin); got != 11*time.Second {
			t.Fatalf("left after %v", got)
		}
		expect(t, b, "s: [thr]")
		if got := time.Since(begin); got != 11600*time.Millisecond {
			t.Fatalf("left after %v", got)
		}
		s.Close()
		expect(t, b, "s: end 1, ended s")
		if got := time.Since(begin); got != 12600*time.Millisecond {
			t.Fatalf("left after %v", got)
		}
		b.Flush()
		if _, err := b.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

func TestNoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		s := register(t, b, "s", logpb.StreamType_TEXT)
		write(t, s, []byte("unfini"))
		expect(t, b, "s: [unfini]")
		write(t, s, []byte("shed\r"))
		expect(t, b, "s: [shed]")
		// The carriage return may be half of a delimiter, so nothing is due.
		got := make(chan string)
		go func() {
			u := next(t, b)
			defer u.Release()
			got <- content(u)
		}()
		synctest.Wait()
		write(t, s, []byte("\n"))
		if c := <-got; c != "s: [^$]" {
			t.Fatal(c)
		}
		s.Close()
		expect(t, b, "s: end 2, ended s")
	})
}

func TestMergeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second})
		s := register(t, b, "s", logpb.StreamType_TEXT)
		for range 12 {
			write(t, s, []byte("x\n"))
			time.Sleep(time.Millisecond)
		}
		expect(t, b, "s: [x$x$x$x$x$] [x$x$x$x$x$] [x$x$]")
	})
}

func TestExtensions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second, Extensions: true})
		a := register(t, b, "a", logpb.StreamType_TEXT)
		c := register(t, b, "c", logpb.StreamType_BINARY)
		write(t, c, []byte("!"))
		expect(t, b, "a: announced, c: [!]")
		a.Close()
		c.Close()
		expect(t, b, "a: end 0 empty, c: end 0, ended a, ended c")
	})
}

func TestEndWithoutEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		for _, in := range []string{"", "\x80", "\x05", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"} {
			s := register(t, b, "s", logpb.StreamType_DATAGRAM)
			write(t, s, []byte(in))
			s.Close()
			expect(t, b, "ended s")
			if (s.Err() != nil) != (len(in) > 2) {
				t.Fatal(s.Err())
			}
		}
	})
}

func TestFailedStreamRefusesData(t *testing.T) {
	b := New(Config{Memory: 64 << 10})
	s := register(t, b, "s", logpb.StreamType_DATAGRAM)
	write(t, s, []byte("\x01a\x00\x81\x80\x80\x05xyz"))
	expect(t, b, "s: [a] [] end 1, ended s")
	if _, err := s.Buffer(t.Context()); !errors.Is(err, errDatagramTooLarge) {
		t.Fatal(err)
	}
	s.Close()
	if _, err := b.Register(descriptor("s", logpb.StreamType_TEXT)); err != nil {
		t.Fatal(err)
	}
}

// The end of a stream that failed says why, beside what else is said of it.
func TestFailedStreamTellsWhy(t *testing.T) {
	b := New(Config{Extensions: true})
	s := register(t, b, "s", logpb.StreamType_DATAGRAM)
	write(t, s, []byte("\x01a\x81\x80\x80\x05xyz"))
	s.SetEnd(&logpb.StreamEnd{Tags: map[string]string{"k": "v"}})
	s.Close()
	u, err := b.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Release()
	end := u.Proto.GetEntries()[0].GetEnded()
	if !strings.HasPrefix(end.GetReason(), "cut off: datagram") || end.GetTags()["k"] != "v" {
		t.Errorf("%v", end)
	}
}

func TestRegister(t *testing.T) {
	b := New(Config{MaxSize: 4096})
	register(t, b, "s", logpb.StreamType_TEXT)
	big := descriptor("big", logpb.StreamType_TEXT)
	big.Tags = map[string]string{"k": strings.Repeat("x", 4000)}
	for _, d := range []*logpb.LogStreamDescriptor{descriptor("s", 0), descriptor("-", 0), big, nil} {
		if _, err := b.Register(d); err == nil {
			t.Errorf("%v was taken", d)
		}
	}
	b.Flush()
	if _, err := b.Register(descriptor("late", 0)); err == nil {
		t.Error("a stream was taken after Flush")
	}
}

// bundles reads all bundles and gives each to f, until the end.
func bundles(t testing.TB, b *Bundler, f func(*Bundle)) {
	t.Helper()
	for {
		u, err := b.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		f(u)
		u.Release()
	}
}

// collected is what a receiver makes of bundles.
type collected struct {
	t       testing.TB
	data    map[string][]byte
	next    map[string]uint64
	ended   map[string]int
	prefix  uint64
	maxSize int
	bundles int
}

func (c *collected) add(u *Bundle) {
	c.bundles++
	if n := proto.Size(u.Proto); n > c.maxSize {
		c.t.Errorf("bundle of %d bytes, limit %d", n, c.maxSize)
	}
	var indices []uint64
	for _, e := range u.Proto.GetEntries() {
		name := e.GetDesc().GetName()
		for _, l := range e.GetLogs() {
			indices = append(indices, l.GetPrefixIndex())
			if l.GetStreamIndex() != c.next[name] {
				c.t.Errorf("%s: index %d, want %d", name, l.GetStreamIndex(), c.next[name])
			}
			c.next[name]++
			if e.GetDesc().GetStreamType() != logpb.StreamType_DATAGRAM && l.GetContentOffset() != uint64(len(c.data[name])) {
				c.t.Errorf("%s: content offset %d, want %d", name, l.GetContentOffset(), len(c.data[name]))
			}
			for _, line := range l.GetText().GetLines() {
				c.data[name] = append(append(c.data[name], line.GetValue()...), line.GetDelimiter()...)
			}
			c.data[name] = append(c.data[name], l.GetBinary().GetData()...)
			if d := l.GetDatagram(); d != nil {
				if p := d.GetPartial(); p == nil {
					c.data[name] = binary.AppendUvarint(c.data[name], uint64(len(d.GetData())))
				} else if p.GetIndex() == 0 {
					c.data[name] = binary.AppendUvarint(c.data[name], p.GetSize())
				}
				c.data[name] = append(c.data[name], d.GetData()...)
			}
		}
		if e.GetTerminal() && !e.GetTerminalEmpty() && e.GetTerminalIndex() != c.next[name]-1 {
			c.t.Errorf("%s: terminal index %d of %d entries", name, e.GetTerminalIndex(), c.next[name])
		}
	}
	slices.Sort(indices)
	for _, i := range indices {
		if i != c.prefix {
			c.t.Errorf("prefix index %d, want %d", i, c.prefix)
		}
		c.prefix++
	}
	for _, s := range u.Ended {
		c.ended[string(s.Name())]++
	}
}

func newCollected(t testing.TB, maxSize int) *collected {
	return &collected{t: t, data: map[string][]byte{}, next: map[string]uint64{}, ended: map[string]int{}, maxSize: maxSize}
}

func feed(ctx context.Context, s *Stream, data []byte, step func() int) error {
	defer s.Close()
	for len(data) > 0 {
		buf, err := s.Buffer(ctx)
		if err != nil {
			return err
		}
		n := copy(buf, data[:min(len(data), step())])
		s.Commit(n)
		data = data[n:]
	}
	return nil
}

// TestBundlerProperty sends random data over many streams at once, through little memory and small bundles.
func TestBundlerProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{4096, 10000, 1 << 20}).Draw(rt, "size")
		b := New(Config{
			MaxSize: size, Extensions: rapid.Bool().Draw(rt, "extensions"),
			Delay:  rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Hour}).Draw(rt, "delay"),
			Memory: rapid.SampledFrom([]int{4 << 10, 64 << 10, 16 << 20}).Draw(rt, "memory"),
		})
		want := map[string][]byte{}
		seed := rapid.Uint64().Draw(rt, "seed")
		var producers sync.WaitGroup
		for i := range rapid.IntRange(1, 12).Draw(rt, "streams") {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			typ := logpb.StreamType(i % 3)
			name := fmt.Sprintf("s%d", i)
			var data []byte
			for n := rnd.IntN(40_000); len(data) < n; {
				part := bytes.Repeat([]byte{byte('a' + i)}, rnd.IntN(1<<rnd.IntN(14)))
				switch typ {
				case logpb.StreamType_DATAGRAM:
					data = binary.AppendUvarint(data, uint64(len(part)))
				case logpb.StreamType_TEXT:
					part = append(part, "\r\n"[rnd.IntN(2):]...)
				}
				data = append(data, part...)
			}
			want[name] = data
			s := register(t, b, name, typ)
			producers.Go(func() {
				if err := feed(t.Context(), s, data, func() int { return 1 + rnd.IntN(1<<rnd.IntN(13)) }); err != nil {
					t.Error(err)
				}
			})
		}
		go func() {
			producers.Wait()
			b.Flush()
		}()
		got := newCollected(t, size)
		bundles(t, b, got.add)
		for name, data := range want {
			if !bytes.Equal(got.data[name], data) {
				rt.Fatalf("%s: %d bytes, want %d", name, len(got.data[name]), len(data))
			}
			if got.ended[name] != 1 {
				rt.Fatalf("%s ended %d times", name, got.ended[name])
			}
		}
		b.mem.mu.Lock()
		defer b.mem.mu.Unlock()
		if b.mem.used != 0 {
			rt.Fatalf("%d bytes of memory are still in use", b.mem.used)
		}
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

func TestBufferEndsWithContext(t *testing.T) {
	b := New(Config{Memory: 8 << 10})
	s := register(t, b, "s", logpb.StreamType_TEXT)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- feed(ctx, s, make([]byte, 1<<20), func() int { return 1 << 20 }) }()
	for !s.waiting.Load() {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.mem.mu.Lock()
	defer b.mem.mu.Unlock()
	if len(b.mem.waiters) != 0 {
		t.Fatal("somebody still waits")
	}
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second})
		p, s := register(t, b, "p", logpb.StreamType_TEXT), register(t, b, "s", logpb.StreamType_TEXT)
		write(t, p, []byte("1\n"))
		p.Pause()
		write(t, p, []byte("2\n"))
		write(t, s, []byte("x\n"))
		expect(t, b, "s: [x$]")
		p.Close()
		write(t, s, []byte("y\n"))
		expect(t, b, "s: [y$]")
		p.Resume()
		expect(t, b, "p: [1$2$] end 0, ended p")
	})
}

// TestOrder wants entries of several streams numbered by the time of their first byte.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second})
		z, a := register(t, b, "z", logpb.StreamType_TEXT), register(t, b, "a", logpb.StreamType_TEXT)
		for i := range 3 {
			write(t, a, fmt.Appendf(nil, "a%d\n", i))
			time.Sleep(20 * time.Millisecond)
			write(t, z, fmt.Appendf(nil, "z%d\n", i))
			time.Sleep(20 * time.Millisecond)
		}
		u := next(t, b)
		defer u.Release()
		order := make([]string, 6)
		for _, e := range u.Proto.GetEntries() {
			for _, l := range e.GetLogs() {
				order[l.GetPrefixIndex()] = string(l.GetText().GetLines()[0].GetValue())
			}
		}
		if got := strings.Join(order, " "); got != "a0 z0 a1 z1 a2 z2" {
			t.Fatal(got)
		}
	})
}

func TestFutureTimestamp(t *testing.T) {
	b := New(Config{})
	d := descriptor("s", logpb.StreamType_TEXT)
	d.Timestamp = timestamppb.New(time.Now().Add(time.Hour))
	s, err := b.Register(d)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, []byte("x\n"))
	u := next(t, b)
	defer u.Release()
	if got := u.Proto.GetEntries()[0].GetLogs()[0].GetTimeOffset().AsDuration(); got != 0 {
		t.Fatal(got)
	}
}

func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Delay: time.Second})
		text := register(t, b, "a", logpb.StreamType_TEXT)
		binary := register(t, b, "b", logpb.StreamType_BINARY)
		write(t, text, []byte("one\ntwo"))
		write(t, binary, []byte("data"))
		// Whoever reads is somewhere between Buffer and Commit.
		buf, err := text.Buffer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text.Abandon("\nnote\n", &logpb.StreamEnd{Reason: "stuck"})
		text.Abandon("again", &logpb.StreamEnd{Reason: "again"})
		binary.Abandon("", nil)
		n := copy(buf, "too late")
		text.Commit(n)
		if _, err := text.Buffer(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		expect(t, b, "a: [one$two$note$] end 0, b: [data] end 0, ended a, ended b")
		text.SetEnd(nil)
		if got := text.endInfo().GetReason(); got != "stuck" {
			t.Errorf("reason %q", got)
		}
		text.Close()
		binary.Close()
		b.Flush()
		if _, err := b.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if b.mem.used != 0 {
			t.Errorf("%d bytes of memory are still in use", b.mem.used)
		}
	})
}
