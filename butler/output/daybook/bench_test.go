package daybook

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/butler"
)

// BenchmarkText is one stream of 80-byte lines through a Butler and the spool to a server that takes everything.
func BenchmarkText(b *testing.B) {
	s := newServer()
	s.discard = true
	c, _ := config(b, s)
	var text []byte
	for i := range 12_500 {
		text = append(text, fmt.Sprintf("2026-01-02T03:04:05.%06d step %5d of %-40.40s\n", i*7919%1_000_000, i, "compile something/or/other.o")...)
	}
	b.SetBytes(int64(len(text)))
	b.ResetTimer()
	o, err := New(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	u, err := butler.New(b.Context(), butler.Config{Output: o, BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	var readers []io.Reader
	for range b.N {
		readers = append(readers, bytes.NewReader(text))
	}
	if err := u.AddStream(io.NopCloser(io.MultiReader(readers...)), desc("s")); err != nil {
		b.Fatal(err)
	}
	u.Activate()
	if err := u.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := o.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
