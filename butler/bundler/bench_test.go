package bundler

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// BenchmarkText is one stream of 80-byte lines, beside idle ones.
func BenchmarkText(b *testing.B) {
	for _, idle := range []int{0, 4000} {
		b.Run(fmt.Sprintf("idle=%d", idle), func(b *testing.B) {
			bd := New(Config{MaxSize: 1 << 20, Delay: 50 * time.Millisecond})
			for i := range idle {
				s := register(b, bd, fmt.Sprintf("idle/%d", i), logpb.StreamType_TEXT)
				if _, err := s.Buffer(b.Context()); err != nil {
					b.Fatal(err)
				}
				defer s.Close()
			}
			s := register(b, bd, "s", logpb.StreamType_TEXT)
			lines := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, 79), '\n'), 800)
			b.SetBytes(int64(len(lines)))
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				for range b.N {
					for rest := lines; len(rest) > 0; {
						buf, err := s.Buffer(b.Context())
						if err != nil {
							b.Error(err)
							return
						}
						n := copy(buf, rest)
						s.Commit(n)
						rest = rest[n:]
					}
				}
				s.Close()
			}()
			for {
				u, err := bd.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				proto.Size(u.Proto)
				ended := len(u.Ended) > 0
				u.Release()
				if ended {
					break
				}
			}
		})
	}
}
