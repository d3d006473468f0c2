package butler

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/butler/output/null"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// endless is a stream of the same bytes, given out as a pipe does it.
type endless struct {
	data []byte
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.data[:min(e.left, len(e.data))])
	e.left -= n
	return n, nil
}

func (e *endless) Close() error { return nil }

// BenchmarkText is one stream of 80-byte lines to the null output, through everything, beside idle streams.
func BenchmarkText(b *testing.B) {
	lines := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, 79), '\n'), 800)
	for _, idle := range []int{0, 4000} {
		b.Run(fmt.Sprintf("idle=%d", idle), func(b *testing.B) {
			u, err := New(b.Context(), Config{Output: new(null.Output), BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
			if err != nil {
				b.Fatal(err)
			}
			var writers []*io.PipeWriter
			for i := range idle {
				r, w := io.Pipe()
				writers = append(writers, w)
				if err := u.AddStream(r, desc(fmt.Sprintf("idle/%d", i), logpb.StreamType_TEXT)); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(lines)))
			b.ReportAllocs()
			b.ResetTimer()
			if err := u.AddStream(&endless{lines, b.N * len(lines)}, desc("s/s", logpb.StreamType_TEXT)); err != nil {
				b.Fatal(err)
			}
			u.DrainNamespace(b.Context(), "s")
			b.StopTimer()
			for _, w := range writers {
				_ = w.Close() // never fails
			}
			u.Activate()
			if err := u.Wait(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
