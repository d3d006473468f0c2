package butler

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// gate is an output that takes nothing until it is opened.
type gate struct {
	memory.Output
	opened chan struct{}
}

func (g *gate) SendBundle(b *logpb.ButlerLogBundle) error {
	<-g.opened
	return g.Output.SendBundle(b)
}

func (g *gate) MaxSize() int { return 256 << 10 }

// dropping returns a Butler that drops, with an output that takes nothing yet.
func dropping(t *testing.T) (*Butler, *gate) {
	t.Helper()
	out := &gate{opened: make(chan struct{})}
	b, err := New(t.Context(), Config{Output: out, WhenFull: Drop})
	if err != nil {
		t.Fatal(err)
	}
	b.patience = time.Millisecond
	return b, out
}

func pipe(t *testing.T, b *Butler, name string, typ logpb.StreamType) *io.PipeWriter {
	t.Helper()
	r, w := io.Pipe()
	d := &logpb.LogStreamDescriptor{Name: name, StreamType: typ, ContentType: "x/y", Timestamp: timestamppb.Now()}
	if err := b.AddStream(r, d); err != nil {
		t.Fatal(err)
	}
	return w
}

// A writer is not held by an output that takes nothing, and what it takes later says what is missing.
func TestDropText(t *testing.T) {
	b, out := dropping(t)
	w := pipe(t, b, "s", logpb.StreamType_TEXT)
	line := []byte(strings.Repeat("x", 999) + "\n")
	const before = 50_000
	for range before {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	close(out.opened)
	// What comes when there is room again is there.
	for b.Dropped() == 0 {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	last := []byte("the last line\n")
	if _, err := w.Write(last); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	s := out.Stream("s")
	marks := regexp.MustCompile(`\n\[daybook: (\d+) bytes of output are missing here: the spool took nothing for 1ms\]\n`)
	missing := int64(0)
	for _, m := range marks.FindAllSubmatch(s.Data, -1) {
		n, _ := strconv.ParseInt(string(m[1]), 10, 64)
		missing += n
	}
	if missing == 0 || missing != b.Dropped() || s.Ended.GetTags()[DroppedTag] != fmt.Sprint(missing) {
		t.Errorf("marks say %d, the Butler %d, the tag %q", missing, b.Dropped(), s.Ended.GetTags()[DroppedTag])
	}
	kept := int64(len(marks.ReplaceAll(s.Data, nil)))
	if (kept+missing-int64(len(last)))%int64(len(line)) != 0 || kept+missing < before*int64(len(line)) {
		t.Errorf("%d bytes kept and %d missing", kept, missing)
	}
	if !bytes.HasSuffix(s.Data, last) {
		t.Errorf("the stream ends with %q", s.Data[max(0, len(s.Data)-50):])
	}
}

// What is dropped of a sequence of datagrams does not tear the others.
func TestDropDatagrams(t *testing.T) {
	b, out := dropping(t)
	w := pipe(t, b, "s", logpb.StreamType_DATAGRAM)
	random := rand.New(rand.NewPCG(1, 2))
	write := func() {
		body := bytes.Repeat([]byte("d"), random.IntN(5000))
		p := append(binary.AppendUvarint(nil, uint64(len(body))), body...)
		for len(p) > 0 {
			n := min(len(p), 1+random.IntN(3000))
			if _, err := w.Write(p[:n]); err != nil {
				t.Fatal(err)
			}
			p = p[n:]
		}
	}
	for range 25_000 {
		write()
	}
	close(out.opened)
	for b.Dropped() == 0 {
		write()
	}
	last := append(binary.AppendUvarint(nil, 4), "last"...)
	if _, err := w.Write(last); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	s := out.Stream("s")
	if n := len(s.Datagrams); n < 100 || string(s.Datagrams[n-1]) != "last" {
		t.Fatalf("%d datagrams, the last is %.20q", n, s.Datagrams[n-1])
	}
	for i, d := range s.Datagrams[:len(s.Datagrams)-1] {
		if rest := bytes.TrimLeft(bytes.TrimRight(d, "\x00"), "d"); len(rest) > 0 {
			t.Fatalf("datagram %d is %.100q", i, d)
		}
	}
	if s.Ended.GetTags()[DroppedTag] == "" {
		t.Error("nothing was dropped")
	}
}

// A stream that ends while data is dropped has its mark.
func TestDropAtTheEnd(t *testing.T) {
	b, out := dropping(t)
	w := pipe(t, b, "s", logpb.StreamType_TEXT)
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 50_000 {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	b.Activate()
	close(out.opened)
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	if s := out.Stream("s"); !bytes.HasSuffix(s.Data, []byte("took nothing for 1ms]\n")) || s.Ended.GetTags()[DroppedTag] != fmt.Sprint(b.Dropped()) {
		t.Errorf("the stream ends with %q", s.Data[max(0, len(s.Data)-50):])
	}
}

func TestRedaction(t *testing.T) {
	secrets := new(redact.Set)
	if err := secrets.Add("hunter22"); err != nil {
		t.Fatal(err)
	}
	out := new(memory.Output)
	b, err := New(t.Context(), Config{Output: out, Redact: secrets})
	if err != nil {
		t.Fatal(err)
	}
	text, raw, plain := pipe(t, b, "text", logpb.StreamType_TEXT), pipe(t, b, "raw", logpb.StreamType_BINARY), pipe(t, b, "plain", logpb.StreamType_TEXT)
	datagrams := pipe(t, b, "datagrams", logpb.StreamType_DATAGRAM)
	for _, p := range []string{"a hun", "ter22 b\nhunter2", "2"} {
		for _, w := range []io.Writer{text, raw} {
			if _, err := io.WriteString(w, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := io.WriteString(datagrams, "\x09xhunter22\x03abc"); err != nil {
		t.Fatal(err)
	}
	// A value that a program adds counts from then on.
	if _, err := io.WriteString(plain, "token-1 "); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Add("token-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(plain, "token-1\n"); err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.Closer{text, raw, plain, datagrams} {
		_ = w.Close()
	}
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"text": "a *** b\n***", "raw": "a ******** b\n********"} {
		s := out.Stream(types.StreamName(name))
		if string(s.Data) != want || s.Ended.GetTags()[RedactedTag] != "2" {
			t.Errorf("%s: %q, %v", name, s.Data, s.Ended)
		}
	}
	if s := out.Stream("datagrams"); string(bytes.Join(s.Datagrams, []byte("|"))) != "x********|abc" {
		t.Errorf("%q", s.Datagrams)
	}
	if s := out.Stream("plain"); string(s.Data) != "token-1 ***\n" {
		t.Errorf("%q", s.Data)
	}
}
