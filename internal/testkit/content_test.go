package testkit

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestContentKeepsItsPromise(t *testing.T) {
	ended := func(b []byte) bool { return bytes.HasSuffix(b, []byte("\n")) }
	promise := map[Kind]func([]byte) bool{
		Lines:       func(b []byte) bool { return ended(b) && utf8.Valid(b) && bytes.Count(b, []byte("\n")) > len(b)/40 },
		LongLines:   func(b []byte) bool { return ended(b) && bytes.Count(b, []byte("\n")) < 50 },
		CRLF:        func(b []byte) bool { return bytes.HasSuffix(b, []byte("\r\n")) },
		Unicode:     func(b []byte) bool { return ended(b) && utf8.Valid(b) },
		InvalidUTF8: func(b []byte) bool { return !utf8.Valid(b) },
		Random:      func(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 && bytes.IndexByte(b, 0xff) >= 0 },
		Partial:     func(b []byte) bool { return !ended(b) && bytes.Contains(b, []byte("\n")) },
		OneLine:     func(b []byte) bool { return bytes.IndexByte(b, '\n') == len(b)-1 },
	}
	for _, kind := range Kinds {
		for seed := range uint64(20) {
			c := Content{Kind: kind, Seed: seed, Size: 500_001}
			b, err := io.ReadAll(c.Reader())
			if err != nil || int64(len(b)) != c.Size {
				t.Fatalf("%v: %d bytes, %v", c, len(b), err)
			}
			if !promise[kind](b) {
				t.Errorf("%v is not what its kind promises", c)
			}
		}
	}
}

func TestContentReader(t *testing.T) {
	for _, kind := range Kinds {
		c := Content{Kind: kind, Seed: 3, Size: 9_999}
		want, err := io.ReadAll(c.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(c.Reader(), want); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
	if b, err := io.ReadAll(Content{}.Reader()); err != nil || len(b) != 0 {
		t.Errorf("zero content: %q, %v", b, err)
	}
}
