package broker

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// TestPausedReaders reads pieces of compressed fragments: readers are kept for a time, not too many of them, and none that
// failed or whose caller went away.
func TestPausedReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.NewMem("b")
		s := newStill(t, b)
		gets := 0
		b.SetFault(func(op bucket.Op, key string) error {
			if op == bucket.OpGet && strings.HasPrefix(key, "test/") {
				gets++
			}
			return nil
		})
		s.create("test/a", func(f *protocol.JournalSpec_Fragment) { f.Stores, f.Length = []string{"s3://bucket/"}, 1<<10 })
		const size, fragments = 2000, 2 * pausedLimit
		for range fragments {
			s.append("test/a", strings.Repeat("0123456789", size/10))
		}
		time.Sleep(time.Minute)
		state := s.state("test/a")
		if len(state.Stored) < fragments-1 {
			t.Fatalf("%d fragments are stored", len(state.Stored))
		}
		piece := func(ctx context.Context, i int, from, to protocol.Offset) {
			t.Helper()
			f := indexed{StoredFragment: state.Stored[i]}
			r, err := s.openStored(ctx, f.message("test/a"), f.Begin+from, f.Begin+to)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if want := bytes.Repeat([]byte("0123456789"), size/10)[from:to]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("[%d, %d) is %q, %v", from, to, got, err)
			}
		}
		expect := func(readers, opened int) {
			t.Helper()
			s.paused.mu.Lock()
			kept := len(s.paused.readers)
			s.paused.mu.Unlock()
			if kept != readers || gets != opened {
				t.Errorf("%d readers are kept, %d were opened; want %d, %d", kept, gets, readers, opened)
			}
		}
		piece(t.Context(), 0, 100, 200)
		expect(1, 1)
		piece(t.Context(), 0, 250, 300) // goes on
		expect(1, 1)
		piece(t.Context(), 0, 299, 310) // is before where it was
		expect(2, 2)
		piece(t.Context(), 0, 300, size) // is the rest, verified
		expect(1, 2)
		time.Sleep(pausedLife + time.Second)
		expect(0, 2)

		for i := range fragments - 1 {
			piece(t.Context(), i, 0, 10)
		}
		expect(pausedLimit, 2+fragments-1)
		time.Sleep(pausedLife + time.Second)

		gets = 0
		ctx, cancel := context.WithCancel(t.Context())
		f := indexed{StoredFragment: state.Stored[0]}
		r, err := s.openStored(ctx, f.message("test/a"), f.Begin, f.Begin+10)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		expect(0, 1)
	})
}
