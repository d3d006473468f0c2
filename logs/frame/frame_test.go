package frame

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

const limit = 2 << 20

var payloads = [][]byte{{}, []byte("a"), bytes.Repeat([]byte("b"), 127), bytes.Repeat([]byte("c"), 129), bytes.Repeat([]byte("d"), 1<<20), {}}

func TestRoundTrip(t *testing.T) {
	var all []byte
	for _, p := range payloads {
		all = Append(all, p)
	}
	var written bytes.Buffer
	for _, p := range payloads {
		if err := Write(&written, p); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(written.Bytes(), all) {
		t.Fatal("Write and Append differ")
	}

	rest := all
	r := bufio.NewReader(iotest.OneByteReader(bytes.NewReader(all)))
	for i, p := range payloads {
		var cut []byte
		var err error
		if cut, rest, err = Cut(rest, limit); err != nil || !bytes.Equal(cut, p) {
			t.Fatalf("frame %d cut off: %d bytes, %v", i, len(cut), err)
		}
		read, err := Read(r, []byte("before"), limit)
		if err != nil || !bytes.Equal(read, append([]byte("before"), p...)) {
			t.Fatalf("frame %d read: %d bytes, %v", i, len(read), err)
		}
	}
	if _, _, err := Cut(rest, limit); !errors.Is(err, io.EOF) {
		t.Errorf("cutting at the end: %v", err)
	}
	if _, err := Read(r, nil, limit); !errors.Is(err, io.EOF) {
		t.Errorf("reading at the end: %v", err)
	}
}

func TestLengths(t *testing.T) {
	for n, want := range map[int]int{0: 1, 127: 1, 128: 2, 129: 2, 16383: 2, 16384: 3} {
		if got := len(Append(nil, make([]byte, n))) - n; got != want {
			t.Errorf("length of %d bytes takes %d, want %d", n, got, want)
		}
	}
}

func TestBadFrames(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     error // nil for any
	}{
		{"over the limit", "\x81\x80\x80\x01", ErrTooLarge},
		{"far over the limit", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ErrTooLarge},
		{"too long a varint", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", nil},
		{"eleven byte varint", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", nil},
		{"cut length", "\x80", io.ErrUnexpectedEOF},
		{"no payload", "\x05", io.ErrUnexpectedEOF},
		{"cut payload", "\x05abcd", io.ErrUnexpectedEOF},
	} {
		_, _, cut := Cut([]byte(c.in), limit)
		_, read := Read(bufio.NewReader(strings.NewReader(c.in)), nil, limit)
		for _, err := range []error{cut, read} {
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
	}
	if p, rest, err := Cut([]byte("\x83\x00abcd"), limit); err != nil || string(p) != "abc" || string(rest) != "d" {
		t.Errorf("longer varint than necessary: %q, %q, %v", p, rest, err)
	}
}

func TestReadErrorInPayload(t *testing.T) {
	broken := errors.New("broken")
	r := bufio.NewReader(io.MultiReader(strings.NewReader("\x05ab"), iotest.ErrReader(broken)))
	if _, err := Read(r, nil, limit); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// failing accepts n writes.
type failing struct{ n int }

func (w *failing) Write(p []byte) (int, error) {
	if w.n == 0 {
		return 0, io.ErrClosedPipe
	}
	w.n--
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	for n := range 2 {
		if err := Write(&failing{n}, []byte("abc")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("failure of write %d: %v", n, err)
		}
	}
}

func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	in := []byte{0xff, 0xff, 0xff, 0x7f} // 256 MiB announced, nothing there
	allocated := testing.AllocsPerRun(1, func() {
		b, err := Read(bufio.NewReader(bytes.NewReader(in)), nil, 1<<30)
		if err == nil || cap(b) > 2*growth {
			t.Errorf("capacity %d, error %v", cap(b), err)
		}
	})
	if allocated > 20 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestAnyPayloads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "payloads")
		var all []byte
		for _, p := range in {
			all = Append(all, p)
		}
		for _, p := range in {
			var got []byte
			var err error
			if got, all, err = Cut(all, limit); err != nil || !bytes.Equal(got, p) {
				t.Fatalf("%q: %q, %v", p, got, err)
			}
		}
		if len(all) > 0 {
			t.Fatalf("%d bytes are left", len(all))
		}
	})
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("\x03abc"))
	f.Add([]byte("\x83\x00abc"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, rest, err := Cut(b, 100)
		q, readErr := Read(bufio.NewReader(bytes.NewReader(b)), nil, 100)
		if (err == nil) != (readErr == nil) || err == nil && !bytes.Equal(p, q) {
			t.Fatalf("cut %q, %v; read %q, %v", p, err, q, readErr)
		}
		if err == nil && !bytes.HasSuffix(b, append(bytes.Clone(p), rest...)) {
			t.Fatalf("%q was cut into %q and %q", b, p, rest)
		}
	})
}
