package daybook

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// state is what matters of a file of streams.
func state(s *streams) map[string]uint64 {
	out := map[string]uint64{}
	for name, o := range s.open {
		out[name] = o.next
	}
	return out
}

func TestStreamsProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "streams")
		defer os.Remove(path)
		s, err := openStreams(path)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		ended := map[string]bool{}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			name := fmt.Sprintf("s%d", rapid.IntRange(0, 5).Draw(t, "stream"))
			if ended[name] {
				continue
			}
			lines := make([]string, rapid.IntRange(0, 3).Draw(t, "lines"))
			b := bundle(name, want[name], rapid.Bool().Draw(t, "end"), lines...)
			want[name] += uint64(len(lines))
			if err := s.note(b); err != nil {
				t.Fatal(err)
			}
			s.noteEnds(b)
			if b.Entries[0].GetTerminal() {
				ended[name] = true
				delete(want, name)
			}
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			switch rapid.IntRange(0, 4).Draw(t, "then") {
			case 0:
				if err := s.compact(); err != nil {
					t.Fatal(err)
				}
			case 1: // killed, maybe while it wrote
				if err := s.close(); err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Write(rapid.SampledFrom([][]byte{nil, {5}, {2, 1, 1, 0, 0, 0, 0}, {0x80}}).Draw(t, "torn")); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = openStreams(path); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, state(s)); diff != "" {
				t.Fatal(diff)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEndOvertakes has bundles that arrive in another order than they were made in.
func TestEndOvertakes(t *testing.T) {
	s, err := openStreams(filepath.Join(t.TempDir(), "streams"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, last := bundle("s", 0, false, "a"), bundle("s", 1, true, "b")
	for _, b := range []*logpb.ButlerLogBundle{last, first} {
		if err := s.note(b); err != nil {
			t.Fatal(err)
		}
		s.noteEnds(b)
	}
	if len(s.open) != 0 {
		t.Error("a stream that has ended is open")
	}
}

func TestStreamsAreRewritten(t *testing.T) {
	s, err := openStreams(filepath.Join(t.TempDir(), "streams"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i := range uint64(300_000) {
		if err := s.note(bundle("s", i, false, "x")); err != nil {
			t.Fatal(err)
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		if s.size > compactAt+1000 {
			t.Fatalf("the file has %d bytes", s.size)
		}
	}
}

func FuzzStreams(f *testing.F) {
	s := newStreams("")
	b := bundle("s", 0, true, "a", "b")
	if err := s.note(b); err != nil {
		f.Fatal(err)
	}
	s.noteEnds(b)
	f.Add(frameItems(s.unwritten))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStreams("")
		n, err := s.replay(data)
		if n < 0 || n > int64(len(data)) {
			t.Fatalf("%d of %d bytes are good", n, len(data))
		}
		// Items that pass their checksum may still be anything.
		_ = newStreams("").apply(data, map[uint64]*openStream{})
		if err == nil && n == 0 && len(s.open) > 0 {
			t.Fatal("streams out of nothing")
		}
	})
}
