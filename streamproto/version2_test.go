package streamproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func handshake2(header string) io.Reader {
	return strings.NewReader(Magic2 + string([]byte{byte(len(header)) | 0x80, byte(len(header) >> 7)}) + header)
}

func TestVersion2(t *testing.T) {
	want := Flags{
		Name: "ns/out", Type: Binary, ContentType: "x/y", Tags: TagMap{"k": "<v>"},
		Timestamp: time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	b, err := AppendOpen(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	in := iotest.OneByteReader(bytes.NewReader(append(b, "data"...)))
	h, err := ReadHandshake(in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Handshake{Version: 2, Op: Open, Flags: want}, h); diff != "" {
		t.Errorf("handshake (-want +got):\n%s", diff)
	}
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "data" {
		t.Errorf("%q is left, %v", rest, err)
	}
}

func TestVersion2Headers(t *testing.T) {
	for header, want := range map[string]Code{
		`{"name":"a"}`: "",
		`{"op":"open","name":"a","future":{"x":[1]}}`: "",
		`{"op":"future"}`:               "", // the reader of it says that it is not supported
		`{"op":"redact","count":1000}`:  "",
		`{"op":"redact"}`:               Invalid,
		`{"op":"redact","count":1001}`:  Invalid,
		`{"op":"redact","count":-1}`:    Invalid,
		`{"op":"redact","count":1e9}`:   Malformed,
		`{"op":"redact","count":"1"}`:   Malformed,
		`{}`:                            Invalid,
		`null`:                          Invalid,
		`{"name":"a//b"}`:               Invalid,
		`{"name":"a","type":"TEXT"}`:    Invalid,
		`{"name":"a","tags":{"!":"x"}}`: Invalid,
		`{"name":"a","timestamp":"0001-01-01T00:00:00+02:00"}`: Invalid,
		`{"name":"a"}x`: Malformed,
		`{"name":1}`:    Malformed,
		`[]`:            Malformed,
		``:              Malformed,
		"{\"name\":\"a\",\"contentType\":\"\xff\"}": Malformed,
	} {
		h, err := ReadHandshake(handshake2(header))
		var e *HandshakeError
		switch {
		case want == "" && (err != nil || h.Version != 2 || h.Op == ""):
			t.Errorf("%s: %+v, %v", header, h, err)
		case want != "" && (!errors.As(err, &e) || e.Version != 2 || e.Code != want):
			t.Errorf("%s: %v, want %s", header, err, want)
		}
	}
	_, err := ReadHandshake(strings.NewReader("BTLR3\x1e\x0c" + `{"name":"a"}`))
	if e := new(HandshakeError); !errors.As(err, &e) || e.Version != 0 {
		t.Errorf("version 3: %v", err)
	}
}

func TestRedactValues(t *testing.T) {
	long := strings.Repeat("x", MaxValueSize)
	for name, c := range map[string]struct {
		values []string
		ok     bool
	}{
		"one":        {[]string{"1234"}, true},
		"any bytes":  {[]string{"\xff\x00\n\r"}, true},
		"longest":    {[]string{long, long}, true},
		"all":        {slicesRepeat(long, 16), true},
		"none":       {nil, false},
		"short":      {[]string{"fine", "123"}, false},
		"too long":   {[]string{long + "x"}, false},
		"too many":   {slicesRepeat("1234", MaxValues+1), false},
		"as many":    {slicesRepeat("1234", MaxValues), true},
		"too much":   {slicesRepeat(long, 17), false},
		"empty text": {[]string{""}, false},
	} {
		b, err := AppendRedact(nil, c.values)
		if ok := err == nil; ok != c.ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			continue
		}
		r := bufio.NewReader(bytes.NewReader(b))
		h, err := ReadHandshake(r)
		if err != nil || h.Op != Redact || h.Count != len(c.values) {
			t.Fatalf("%s: %+v, %v", name, h, err)
		}
		got, err := ReadValues(r, h.Count)
		if diff := cmp.Diff(c.values, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for in, limit := range map[string]bool{
		"":                     false,
		"\x04123":              false,
		"\x03123":              true,
		"\x80\x80\x05":         true,  // 80 KiB
		"\xff\xff\xff\xff\x0f": false, // 4 GiB: no value of anybody
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f": false,
	} {
		_, err := ReadValues(bufio.NewReader(strings.NewReader(in)), 1)
		if e := new(ValuesError); err == nil || errors.As(err, &e) != limit {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestReply(t *testing.T) {
	url := "http://127.0.0.1:1/logs/p/a/+/b?x=1&y=2"
	for _, c := range []struct {
		in   Reply
		line string
	}{
		{Reply{Accepted: true}, `{"accepted":true}`},
		{Reply{Accepted: true, URL: url}, `{"accepted":true,"url":"` + url + `"}`},
		{Reply{Code: Exists, Reason: "two\nlines"}, `{"accepted":false,"code":"exists","reason":"two\nlines"}`},
	} {
		line := AppendReply(nil, &c.in)
		if string(line) != c.line+"\n" {
			t.Errorf("%q, want %q", line, c.line)
		}
		got, err := ReadReply(iotest.OneByteReader(bytes.NewReader(line)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&c.in, got); diff != "" {
			t.Error(diff)
		}
		var e *RefusedError
		if refused := errors.As(got.Err(), &e); refused == c.in.Accepted || refused && e.Code != c.in.Code {
			t.Errorf("%v", got.Err())
		}
	}
	long := Reply{URL: strings.Repeat("u", MaxReplySize), Reason: strings.Repeat("ä\x00", MaxReasonSize) + "\xff", Code: Internal}
	line := AppendReply(nil, &long)
	got, err := ReadReply(bytes.NewReader(line))
	if err != nil || len(line) > MaxReplySize || got.URL != "" || len(got.Reason) > MaxReasonSize || len(got.Reason) < MaxReasonSize-2 {
		t.Errorf("%d bytes, %+v, %v", len(line), got, err)
	}
}

func TestNoReply(t *testing.T) {
	for in, want := range map[string]error{"": io.EOF, "{": io.ErrUnexpectedEOF, `{"accepted":true}`: io.ErrUnexpectedEOF} {
		if _, err := ReadReply(strings.NewReader(in)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
	for _, in := range []string{"\n", "[]\n", "{}x\n", strings.Repeat(" ", MaxReplySize) + "{}\n"} {
		if r, err := ReadReply(strings.NewReader(in)); err == nil {
			t.Errorf("%.10q: %+v", in, r)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte(`{"accepted":true,"url":"u"}` + "\n"))
	f.Add([]byte(`{"accepted":false,"code":"invalid","reason":"r"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadReply(bytes.NewReader(b))
		if err != nil {
			return
		}
		line := AppendReply(nil, r)
		if _, err := ReadReply(bytes.NewReader(line)); err != nil || len(line) > MaxReplySize {
			t.Fatalf("%q: %v", line, err)
		}
	})
}

func FuzzReadValues(f *testing.F) {
	f.Add([]byte("\x04pass\x05words"), 2)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		values, err := ReadValues(bufio.NewReader(bytes.NewReader(b)), min(count, MaxValues))
		if err != nil || len(values) == 0 {
			return
		}
		if _, err := AppendRedact(nil, values); err != nil {
			t.Fatal(fmt.Errorf("%q: %w", values, err))
		}
	})
}
