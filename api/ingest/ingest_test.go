package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func record(t testing.TB, msg []byte) []byte {
	t.Helper()
	b, err := AppendHeader(nil, len(msg))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, msg...)
}

func TestHeader(t *testing.T) {
	got := record(t, []byte("abc"))
	if want := "\x66\x33\x93\x36\x03\x00\x00\x00abc"; string(got) != want {
		t.Errorf("record %q, want %q", got, want)
	}
	if _, err := AppendHeader(nil, MaxMessageSize); err != nil {
		t.Error(err)
	}
	if b, err := AppendHeader([]byte("x"), MaxMessageSize+1); err == nil || string(b) != "x" {
		t.Errorf("a message over the limit: %q, %v", b, err)
	}
}

func TestReader(t *testing.T) {
	msgs := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 300<<10), []byte("last")}
	var all []byte
	var ends []int64
	for _, m := range msgs {
		all = append(all, record(t, m)...)
		ends = append(ends, int64(len(all)))
	}
	for name, source := range map[string]io.Reader{
		"whole":     bytes.NewReader(all),
		"one byte":  iotest.OneByteReader(bytes.NewReader(all)),
		"half":      iotest.HalfReader(bytes.NewReader(all)),
		"data, EOF": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		r := NewReader(source)
		for i, want := range msgs {
			got, err := r.Next()
			if err != nil || !bytes.Equal(got, want) || r.Consumed() != ends[i] {
				t.Fatalf("%s: message %d: %d bytes, %v; %d consumed", name, i, len(got), err, r.Consumed())
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
		if r.Skipped != 0 || r.Buffered() != 0 {
			t.Errorf("%s: %d bytes skipped, %d buffered", name, r.Skipped, r.Buffered())
		}
	}
}

func TestReaderFindsItsWayBack(t *testing.T) {
	tooLong := binary.LittleEndian.AppendUint32(bytes.Clone(magic[:]), MaxMessageSize+1)
	for name, foreign := range map[string]string{
		"text":               "what somebody typed into the journal\n",
		"one byte":           "x",
		"a part of a magic":  "\x66\x33\x93",
		"a magic, too long":  string(tooLong),
		"magics, too long":   strings.Repeat(string(tooLong), 3),
		"more than a buffer": strings.Repeat("noise \x66\x33 ", 100<<10),
	} {
		good := record(t, []byte("good"))
		all := bytes.Join([][]byte{good, []byte(foreign), good}, nil)
		r := NewReader(bytes.NewReader(all))
		for range 2 {
			if got, err := r.Next(); err != nil || string(got) != "good" {
				t.Fatalf("%s: %q, %v", name, got, err)
			}
		}
		if r.Skipped != int64(len(foreign)) || r.Consumed() != int64(len(all)) {
			t.Errorf("%s: %d skipped and %d consumed, want %d and %d", name, r.Skipped, r.Consumed(), len(foreign), len(all))
		}
		if string(r.Foreign) != foreign[:min(len(foreign), MaxForeign)] {
			t.Errorf("%s: %d foreign bytes are kept, or others", name, len(r.Foreign))
		}
	}
}

// A record that was cut short takes in those that follow. Whoever sees that it is no message gets them back.
func TestReject(t *testing.T) {
	first, good := record(t, bytes.Repeat([]byte("x"), 100)), record(t, []byte("good"))
	for n := HeaderSize; n < len(first); n++ {
		all := bytes.Join([][]byte{good, first[:n], bytes.Repeat(good, 10)}, nil)
		r := NewReader(iotest.HalfReader(bytes.NewReader(all)))
		var got int
		for {
			msg, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(msg) == "good" {
				got++
			} else if !r.Reject() {
				t.Errorf("cut at %d: %q is not rejected", n, msg)
			}
		}
		if got != 11 || r.Skipped != int64(n) || r.Consumed() != int64(len(all)) || !bytes.Equal(r.Foreign, first[:n]) {
			t.Errorf("cut at %d: %d records, %d bytes skipped, %d consumed", n, got, r.Skipped, r.Consumed())
		}
	}
	r := NewReader(bytes.NewReader(append(first, good...)))
	if _, err := r.Next(); err != nil || r.Reject() {
		t.Errorf("a message without any record in it is rejected, or %v", err)
	}
	if got, err := r.Next(); err != nil || string(got) != "good" {
		t.Errorf("the next one: %q, %v", got, err)
	}
}

// However many headers there are, what they announce is not read for each of them.
func TestRejectIsBounded(t *testing.T) {
	header, err := AppendHeader(nil, MaxMessageSize)
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Repeat(header, 2*MaxMessageSize/len(header))
	r := NewReader(bytes.NewReader(all))
	rejected := 0
	for {
		if _, err := r.Next(); err != nil {
			break
		}
		if r.Reject() {
			rejected++
		}
	}
	if rejected == 0 || rejected > 10 {
		t.Errorf("%d messages were read again", rejected)
	}
}

// A header that announces more than there is, and so can be none, is not waited for.
func TestWhole(t *testing.T) {
	first, good := record(t, make([]byte, MaxMessageSize)), record(t, []byte("good"))
	all := bytes.Join([][]byte{good, first[:20], good, good}, nil)
	r := NewReader(io.MultiReader(bytes.NewReader(all), iotest.ErrReader(errors.New("it waits"))))
	r.Whole = func(end int64) (bool, error) { return end <= int64(len(all)), nil }
	for range 3 {
		if got, err := r.Next(); err != nil || string(got) != "good" {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if r.Skipped != 20 || r.Consumed() != int64(len(all)) {
		t.Errorf("%d bytes skipped, %d consumed", r.Skipped, r.Consumed())
	}
	broken := errors.New("broken")
	r = NewReader(bytes.NewReader(first[:20]))
	r.Whole = func(int64) (bool, error) { return false, broken }
	if _, err := r.Next(); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestReaderErrors(t *testing.T) {
	whole := record(t, []byte("message"))
	for n := 1; n < len(whole); n++ {
		if _, err := NewReader(bytes.NewReader(whole[:n])).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	broken := errors.New("broken")
	for n := range whole {
		r := NewReader(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken)))
		if _, err := r.Next(); !errors.Is(err, broken) {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
	}
}

func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	b := binary.LittleEndian.AppendUint32(bytes.Clone(magic[:]), MaxMessageSize)
	r := NewReader(bytes.NewReader(append(b, "short"...)))
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if cap(r.buf) > 2<<20 {
		t.Errorf("%d bytes were allocated", cap(r.buf))
	}
}

func TestAnyRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		noise := rapid.StringMatching(`[a-z]{0,20}`)
		var all []byte
		var msgs [][]byte
		for range rapid.IntRange(0, 10).Draw(rt, "records") {
			all = append(all, noise.Draw(rt, "noise")...)
			msg := rapid.SliceOf(rapid.Byte()).Draw(rt, "message")
			msgs = append(msgs, msg)
			all = append(all, record(t, msg)...)
		}
		r := NewReader(bytes.NewReader(all))
		for _, want := range msgs {
			if got, err := r.Next(); err != nil || !bytes.Equal(got, want) {
				rt.Fatalf("%q, %v; want %q", got, err, want)
			}
		}
		if r.Consumed() != int64(len(all)) {
			rt.Fatalf("%d bytes consumed, want %d", r.Consumed(), len(all))
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add(record(f, []byte("abc")))
	f.Add(append([]byte("noise"), record(f, nil)...))
	f.Add(binary.LittleEndian.AppendUint32(bytes.Clone(magic[:]), 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		var messages int64
		for {
			msg, err := r.Next()
			if err != nil {
				break
			}
			messages += int64(HeaderSize + len(msg))
			end := r.Consumed()
			if end != messages+r.Skipped || end > int64(len(b)) || !bytes.Equal(msg, b[end-int64(len(msg)):end]) {
				t.Fatalf("message %q that ends at %d, after %d skipped bytes", msg, end, r.Skipped)
			}
		}
	})
}
