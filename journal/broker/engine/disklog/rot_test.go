package disklog

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// TestRot flips a bit in the file of a fragment, and checks that no read returns it, before and after a restart, whether
// the fragment is finished or grows and however its content came into the file.
func TestRot(t *testing.T) {
	const blocks = 3
	content := bytes.Repeat([]byte("0123456789abcdef"), blocks*blockSize/16)
	content = append(content, "and a bit"...)
	for _, finished := range []bool{false, true} {
		for how, opts := range map[string]Options{
			"inline": {}, "referred to": {InlineSize: 1}, "adopted": {AdoptSize: 1},
		} {
			t.Run(fmt.Sprintf("%s, finished %v", how, finished), func(t *testing.T) {
				dir := t.TempDir()
				l := open(t, dir, opts)
				enginetest.Create(t, l, "test/a")
				enginetest.Must(t, l, "test/a", enginetest.Append("first"))
				if how == "adopted" {
					st, err := l.Stage(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if _, err := st.Write(content); err != nil {
						t.Fatal(err)
					}
					a := enginetest.Append("")
					a.Staged = st
					enginetest.Must(t, l, "test/a", a)
					if err := st.Close(); err != nil {
						t.Fatal(err)
					}
				} else {
					for p := content; len(p) > 0; p = p[min(len(p), 10_000):] {
						enginetest.Must(t, l, "test/a", enginetest.Append(string(p[:min(len(p), 10_000)])))
					}
				}
				if finished {
					a := enginetest.Append("next")
					a.Roll.Force = true
					enginetest.Must(t, l, "test/a", a)
				}
				for restart := range 3 {
					s := enginetest.State(t, l, "test/a")
					f := s.Open
					if finished {
						f = s.Finished[1]
					}
					if restart > 0 {
						// Any reader finds the flipped bit, wherever it begins, and what it returns before is right.
						flip := int64(restart-1)*2*blockSize + 5
						damage(t, l, "test/a", f, flip)
						checkRot(t, l, f, content, flip)
						damage(t, l, "test/a", f, flip)
					}
					checkRot(t, l, f, content, -1)
					enginetest.Close(t, l)
					l = open(t, dir, opts)
				}
				enginetest.Close(t, l)
			})
		}
	}
}

// damage flips a bit of a fragment's file.
func damage(t *testing.T, l *Log, name protocol.Journal, f engine.Fragment, at int64) {
	t.Helper()
	j, err := l.journal(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := vfs.OS.Open(j.content(f.Begin).path())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// checkRot reads a fragment, of which the byte at flip is wrong unless that is negative.
func checkRot(t *testing.T, l *Log, f engine.Fragment, content []byte, flip int64) {
	t.Helper()
	r, err := l.Open(t.Context(), "test/a", f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, size := range []int64{1, 32736, blockSize, 2 * blockSize, int64(len(content))} {
		for at := int64(0); at < f.Len(); at += max(size, 7777) {
			p := make([]byte, min(size, f.Len()-at))
			n, err := r.ReadAt(p, f.Begin+protocol.Offset(at))
			if !bytes.Equal(p[:n], content[at:at+int64(n)]) {
				t.Fatalf("%d bytes at %d are wrong", size, at)
			}
			block := flip / blockSize
			hit := flip >= 0 && at/blockSize <= block && (at+int64(len(p))-1)/blockSize >= block
			if hit != fault.Is(err, fault.DataLoss) || !hit && n < len(p) {
				t.Fatalf("%d bytes at %d with damage at %d: %d, %v", size, at, flip, n, err)
			}
		}
	}
}
