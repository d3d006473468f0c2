package bundler

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// TestLongLine sends 100 MB without a line break through a bundler.
func TestLongLine(t *testing.T) {
	for _, typ := range []logpb.StreamType{logpb.StreamType_TEXT, logpb.StreamType_BINARY} {
		const total, size = 100_000_000, 1 << 20
		b := New(Config{MaxSize: size, Delay: time.Hour})
		s := register(t, b, "s", typ)
		go func() {
			zeros := make([]byte, 1<<20)
			for left := total; left > 0; {
				buf, err := s.Buffer(t.Context())
				if err != nil {
					t.Error(err)
					break
				}
				n := min(len(buf), left, len(zeros))
				copy(buf, zeros[:n])
				s.Commit(n)
				left -= n
			}
			s.Close()
			b.Flush()
		}()
		sum, peak := 0, uint64(0)
		bundles(t, b, func(u *Bundle) {
			if n := proto.Size(u.Proto); n > size {
				t.Errorf("bundle of %d bytes", n)
			}
			for _, l := range u.Proto.GetEntries()[0].GetLogs() {
				sum += len(l.GetBinary().GetData())
				for _, line := range l.GetText().GetLines() {
					sum += len(line.GetValue())
				}
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		})
		if sum != total {
			t.Fatalf("%v: %d bytes", typ, sum)
		}
		if peak > 64<<20 {
			t.Errorf("%v: peak of %d bytes of memory", typ, peak)
		}
		t.Logf("%v: peak %d MiB", typ, peak>>20)
	}
}

// TestFlood sends nothing but line breaks, and then empty datagrams, which are the most memory for a byte.
func TestFlood(t *testing.T) {
	for _, typ := range []logpb.StreamType{logpb.StreamType_TEXT, logpb.StreamType_DATAGRAM} {
		b := New(Config{MaxSize: 1 << 20, Delay: time.Hour})
		s := register(t, b, "s", typ)
		data := make([]byte, 100_000)
		if typ == logpb.StreamType_TEXT {
			data = bytes.Repeat([]byte{'\n'}, 500_000)
		}
		go func() {
			if err := feed(t.Context(), s, data, func() int { return 1 << 20 }); err != nil {
				t.Error(err)
			}
			b.Flush()
		}()
		got := newCollected(t, 1<<20)
		var peak uint64
		bundles(t, b, func(u *Bundle) {
			got.add(u)
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		})
		if !bytes.Equal(got.data["s"], data) {
			t.Fatal("data differs")
		}
		if peak > 64<<20 {
			t.Errorf("peak of %d bytes of memory", peak)
		}
		t.Logf("%v: peak %d MiB", typ, peak>>20)
	}
}

// TestStalledOutput fills the memory while nobody takes bundles: other streams go on, and nothing is lost.
func TestStalledOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Memory: 1 << 20, Delay: time.Millisecond})
		data := bytes.Repeat([]byte("some line\n"), 200_000)
		var greedy sync.WaitGroup
		for i := range 3 {
			s := register(t, b, fmt.Sprintf("greedy%d", i), logpb.StreamType_TEXT)
			greedy.Go(func() {
				if err := feed(t.Context(), s, data, func() int { return 1000 }); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		// All of them wait for memory now. Registration and small streams do not.
		for i := range 100 {
			s := register(t, b, fmt.Sprintf("small%d", i), logpb.StreamType_TEXT)
			write(t, s, []byte("hello\n"))
			s.Close()
		}
		if used := b.mem.used; used > 1<<20+200<<10 {
			t.Errorf("%d bytes in use", used)
		}
		go func() {
			greedy.Wait()
			b.Flush()
		}()
		got := newCollected(t, maxBundle)
		bundles(t, b, got.add)
		for i := range 3 {
			if !bytes.Equal(got.data[fmt.Sprintf("greedy%d", i)], data) {
				t.Error("data differs")
			}
		}
		if len(got.ended) != 103 {
			t.Errorf("%d streams ended", len(got.ended))
		}
	})
}

// TestIdleStreams has a busy stream beside idle ones, which cost nothing but their small buffers.
func TestIdleStreams(t *testing.T) {
	b := New(Config{Delay: time.Hour})
	const idle = 1000
	for i := range idle {
		s := register(t, b, fmt.Sprintf("idle%d", i), logpb.StreamType_TEXT)
		if _, err := s.Buffer(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if b.mem.used != idle*minBlock {
		t.Errorf("%d bytes for %d idle streams", b.mem.used, idle)
	}
	s := register(t, b, "busy", logpb.StreamType_TEXT)
	go func() {
		if err := feed(t.Context(), s, bytes.Repeat([]byte("some line\n"), 2_000_000), func() int { return 1 << 20 }); err != nil {
			t.Error(err)
		}
		b.Flush()
	}()
	sum := 0
	for sum < 20_000_000 {
		u := next(t, b)
		for _, e := range u.Proto.GetEntries() {
			for _, l := range e.GetLogs() {
				sum += 10 * len(l.GetText().GetLines())
			}
		}
		u.Release()
		b.mu.Lock()
		if len(b.due)+len(b.freshList) > 2 {
			t.Errorf("%d streams are due, %d have news", len(b.due), len(b.freshList))
		}
		b.mu.Unlock()
	}
}

// TestManyBusyStreams has more streams than memory for large buffers: all get through within the limit.
func TestManyBusyStreams(t *testing.T) {
	const memory = 4 << 20
	b := New(Config{Memory: memory, Delay: 50 * time.Millisecond, MaxSize: 1 << 20})
	data := bytes.Repeat([]byte("a line that is neither long nor short\n"), 1000)
	var producers sync.WaitGroup
	const streams = 1000
	for i := range streams {
		s := register(t, b, fmt.Sprintf("s%d", i), logpb.StreamType_TEXT)
		producers.Go(func() {
			if err := feed(t.Context(), s, data, func() int { return 10_000 }); err != nil {
				t.Error(err)
			}
		})
	}
	go func() {
		producers.Wait()
		b.Flush()
	}()
	total, peak := 0, 0
	bundles(t, b, func(u *Bundle) {
		for _, e := range u.Proto.GetEntries() {
			for _, l := range e.GetLogs() {
				for _, line := range l.GetText().GetLines() {
					total += len(line.GetValue()) + len(line.GetDelimiter())
				}
			}
		}
		b.mem.mu.Lock()
		peak = max(peak, b.mem.used)
		b.mem.mu.Unlock()
	})
	if total != streams*len(data) {
		t.Errorf("%d bytes", total)
	}
	if peak > memory+2*streams*minBlock {
		t.Errorf("peak of %d bytes of blocks", peak)
	}
}

// TestMemoryAccounts takes and gives back blocks in any order: what is counted is what there is, and nothing else is kept alive.
func TestMemoryAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &memory{limit: 1 << 20, streamLimit: 1 << 20}
		var s Stream // has buffered nothing, so it always gets a block
		var out []*block
		used := 0
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				class := rapid.IntRange(0, maxClass).Draw(t, "class")
				b := m.get(&s, class)
				if b.class > class || len(b.data) != minBlock<<(classShift*b.class) || b.refs.Load() != 1 {
					t.Fatalf("a block of class %d and %d bytes, with %d references, for class %d", b.class, len(b.data), b.refs.Load(), class)
				}
				out = append(out, b)
				used += len(b.data)
			},
			"release": func(t *rapid.T) {
				if len(out) == 0 {
					t.Skip("nothing to release")
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				used -= len(out[i].data)
				out[i].release()
				out[i] = out[len(out)-1]
				out = out[:len(out)-1]
			},
			"": func(t *rapid.T) {
				kept := 0
				for class, free := range m.free {
					for i, b := range free[:cap(free)] {
						switch {
						case i >= len(free) && b != nil:
							t.Fatalf("a block of %d bytes is neither used nor free", len(b.data))
						case i < len(free) && b.class != class:
							t.Fatalf("a block of class %d among those of class %d", b.class, class)
						case i < len(free):
							kept += len(b.data)
						}
					}
				}
				if m.used != used || m.kept != kept || kept > max(m.limit-used, 0) {
					t.Fatalf("%d bytes in use, counted as %d, and %d kept, counted as %d, of %d", used, m.used, kept, m.kept, m.limit)
				}
			},
		})
	})
}
