package redact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// pieces is a reader that gives what it is told to, a piece a call.
type pieces struct {
	list []string
	err  error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, p.err
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
	}
	return n, nil
}

func set(t testing.TB, patterns, values []string) *Set {
	t.Helper()
	s := new(Set)
	for _, p := range patterns {
		if err := s.AddPattern(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range values {
		if err := s.Add(v); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestReader(t *testing.T) {
	const pem = "-----BEGIN KEY-----\nMIIEabcdefgh\nijklmnopqrst\n-----END KEY-----\n"
	for _, test := range []struct {
		name     string
		patterns []string
		values   []string
		in       []string
		want     string
		count    int64
	}{
		{"empty set", nil, nil, []string{"secret"}, "secret", 0},
		{"whole", nil, []string{"hunter22"}, []string{"the hunter22 is here"}, "the *** is here", 1},
		{"split by reads", nil, []string{"hunter22"}, []string{"the h", "unte", "r", "22 is here"}, "the *** is here", 1},
		{"almost", nil, []string{"hunter22"}, []string{"hunter2", "hunter2", "3"}, "hunter2hunter23", 0},
		{"twice", nil, []string{"hunter22"}, []string{"hunter22hunter22"}, "******", 2},
		{"at the end", nil, []string{"hunter22"}, []string{"x hunter22"}, "x ***", 1},
		{"cut by the end", nil, []string{"hunter22"}, []string{"x hunter2"}, "x hunter2", 0},
		{"overlapping", nil, []string{"abcdef", "defghi"}, []string{"xabcdefghix"}, "x***x", 1},
		{"one in another", nil, []string{"abcdef", "abcdefgh"}, []string{"xabcde", "fx abcdef", "ghx"}, "x***x ***x", 2},
		{"itself again", nil, []string{"aaaa"}, []string{"aaa", "aaa", "aaa", "b"}, "***b", 1},
		{"lines", nil, []string{pem}, []string{pem[:30], pem[30:]}, "***\n", 1},
		{"lines of a terminal", nil, []string{pem}, []string{strings.ReplaceAll(pem, "\n", "\r\n")}, "***\r\n", 1},
		{"lines with an indent", nil, []string{pem}, []string{strings.ReplaceAll(pem, "\n", "\n  ")}, "-----BEGIN KEY-----\n  ***\n  ***\n  -----END KEY-----\n  ", 2},
		{"pattern", []string{`tok_[a-z0-9]+`}, nil, []string{"a to", "k_ab", "c12 b"}, "a *** b", 1},
		{"pattern over lines", []string{`(?s)-----BEGIN.*?-----END KEY-----`}, nil, []string{"a\n", pem[:30], pem[30:], "b"}, "a\n***\nb", 1},
		{"pattern with context", []string{`\bkey=\S+`}, nil, []string{"monkey=1 k", "ey=2\n"}, "monkey=1 ***\n", 1},
		{"pattern and case", []string{`(?i)password:\s*\w+`}, nil, []string{"PassWord:   x7 y"}, "*** y", 1},
		{"pattern at the end", []string{`key=\S+$`}, nil, []string{"key=abc"}, "***", 1},
		{"short match", []string{`x`}, nil, []string{"axb"}, "a*b", 1},
		{"pattern and value", []string{`id-\d+`}, []string{"12345"}, []string{"id-1", "2345", "6 "}, "*** ", 1},
		{"letters of two bytes", []string{`ß\w+é`}, []string{"größer"}, []string{"gr\xc3", "\xb6\xc3", "\x9fer ", "\xc3\x9fab\xc3", "\xa9."}, "*** ***.", 2},
		{"invalid bytes", []string{`a.c`}, nil, []string{"a\xffc \xff", "\xfe"}, "*** \xff\xfe", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := set(t, test.patterns, test.values).Reader(&pieces{slices.Clone(test.in), io.EOF}, Shorten)
			got, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
			if r.Count() != test.count {
				t.Errorf("count %d, want %d", r.Count(), test.count)
			}
		})
	}
}

// What may become a secret is not given away before it is known to be none.
func TestReaderHolds(t *testing.T) {
	r := set(t, []string{`key=[a-z]+`}, []string{"hunter22"}).Reader(&pieces{[]string{"a hun", "ter22 k", "ey=a", "b", ".\n"}, io.EOF}, Shorten)
	var got []string
	for p := make([]byte, 100); ; {
		n, err := r.Read(p)
		if err != nil {
			break
		}
		got = append(got, string(p[:n]))
	}
	if diff := cmp.Diff([]string{"a ", "*** ", "***.\n"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReaderOfBrokenStream(t *testing.T) {
	broken := errors.New("broken")
	got, err := io.ReadAll(set(t, nil, []string{"hunter22"}).Reader(&pieces{[]string{"my hunter2"}, broken}, Shorten))
	if string(got) != "my ***" || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAddWhileReading(t *testing.T) {
	s := new(Set)
	in := &pieces{[]string{"hunter22 "}, nil}
	r := s.Reader(in, Shorten)
	p := make([]byte, 100)
	n, _ := r.Read(p)
	got := string(p[:n])
	if err := s.Add("hunter22"); err != nil {
		t.Fatal(err)
	}
	in.list, in.err = []string{"hunter22"}, io.EOF
	rest, err := io.ReadAll(r)
	if got += string(rest); got != "hunter22 ***" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAddRefuses(t *testing.T) {
	s := new(Set)
	for _, v := range []string{"", "abc", "abc\n", strings.Repeat("x", MaxValue+1)} {
		if err := s.Add(v); err == nil {
			t.Errorf("a value of %d bytes was taken", len(v))
		}
	}
	for i := range MaxValues {
		if err := s.Add(fmt.Sprintf("value-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add("one more"); err == nil {
		t.Error("more values were taken than allowed")
	}
	if err := s.AddPattern("("); err == nil {
		t.Error("a broken pattern was taken")
	}
}

// A match that is too long is not looked for at the cost of unbounded memory.
func TestLongMatch(t *testing.T) {
	s := set(t, []string{`(?s)begin.*end`}, nil)
	r := s.Reader(io.MultiReader(strings.NewReader("begin"), io.LimitReader(zeros{}, 10<<20), strings.NewReader("begin x end")), Shorten)
	n, most := 0, 0
	p := make([]byte, 4096)
	for {
		m, err := r.Read(p)
		n += m
		most = max(most, len(r.scanner.held))
		if err != nil {
			break
		}
	}
	if want := 5 + 10<<20 + 3; n != want || r.Count() != 1 {
		t.Errorf("%d bytes and %d masks, want %d and 1", n, r.Count(), want)
	}
	if most > 2*MaxMatch {
		t.Errorf("%d bytes were held", most)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestDatagrams(t *testing.T) {
	frame := func(parts ...string) (out []byte) {
		for _, p := range parts {
			out = append(binary.AppendUvarint(out, uint64(len(p))), p...)
		}
		return out
	}
	in := frame("the hunter22", "", "hunter", "22", "key=abc", "d", strings.Repeat("x", 300)+"hunter22")
	want := frame("the ********", "", "hunter", "22", "*******", "d", strings.Repeat("x", 300)+"********")
	s := set(t, []string{`key=\w+`}, []string{"hunter22"})
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(in), "bytes": iotest.OneByteReader(bytes.NewReader(in))} {
		got, err := io.ReadAll(s.Datagrams(r))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// After a length that is none, the rest is redacted as one.
	got, _ := io.ReadAll(s.Datagrams(strings.NewReader(strings.Repeat("\xff", 10) + "a hunter22")))
	if want := strings.Repeat("\xff", 10) + "a ********"; string(got) != want {
		t.Errorf("got %q", got)
	}
}

func TestSecrets(t *testing.T) {
	got := Secrets([]string{
		"HOME=/root/home", "GITHUB_TOKEN=ghp_123456", "db_password=hunter22", "TOKEN=abc", "AWS_SECRET_ACCESS_KEY=abcdefghij", "KEYBOARD=qwertyuiop",
		"DATABASE_URL=postgres://me:p%40ssword@host/db", "NOT_A_PAIR", "SITE=https://example.com/a:b@c",
	})
	want := []string{"ghp_123456", "hunter22", "abcdefghij", "p@ssword", "p%40ssword", "p%40ssword"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestString(t *testing.T) {
	if got := set(t, nil, []string{"hunter22"}).String("--password=hunter22"); got != "--password=***" {
		t.Error(got)
	}
	var none *Set
	if got := none.String("hunter22"); got != "hunter22" {
		t.Error(got)
	}
}

// slow redacts in the plainest way.
func slow(patterns, words []string, text []byte, mode Mode) []byte {
	var spans []span
	for _, w := range words {
		for i := range text {
			if bytes.HasPrefix(text[i:], []byte(w)) {
				spans = append(spans, span{i, i + len(w)})
			}
		}
	}
	for _, p := range patterns {
		for _, m := range regexp.MustCompile(p).FindAllIndex(text, -1) {
			spans = append(spans, span{m[0], m[1]})
		}
	}
	var out []byte
	from := 0
	for _, s := range merge(spans) {
		out = append(out, text[from:s.begin]...)
		n := s.end - s.begin
		if mode == Shorten {
			n = min(n, len(Mask))
		}
		out = append(out, bytes.Repeat([]byte{'*'}, n)...)
		from = s.end
	}
	return append(out, text[from:]...)
}

// FuzzReader compares with the plain way, however the text and the reads are cut.
func FuzzReader(f *testing.F) {
	f.Add([]byte("abcabcdabcde abcdxabca key=abc bbbb"), uint64(1))
	f.Add([]byte("aaaaaaaaaaaaaaaa\r\naaab\nbaaa\xc3\xa9\xff a-b"), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		all := []string{`a+b`, `a[^\n]*?b`, `\bab+\b`, `(?m)^b.*$`, `é|\pL{3}`, `(ab|abc)(c|cd)d?`, `(?i)K`}
		var patterns []string
		for range random.IntN(3) {
			patterns = append(patterns, all[random.IntN(len(all))])
		}
		var words []string
		for range random.IntN(4) {
			b := make([]byte, MinValue+random.IntN(4))
			for i := range b {
				b[i] = "aabc"[random.IntN(4)]
			}
			words = append(words, string(b))
			if i := random.IntN(len(text) + 1); len(text)-i >= MinValue {
				if w := strings.Trim(string(text[i:i+MinValue]), "\r\n"); len(w) >= MinValue && !strings.Contains(w, "\n") {
					words = append(words, w)
				}
			}
		}
		s := set(t, patterns, words)
		for _, mode := range []Mode{Shorten, KeepLength} {
			var in pieces
			in.err = io.EOF
			for rest := text; len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(9))
				in.list = append(in.list, string(rest[:n]))
				rest = rest[n:]
			}
			r := s.Reader(&in, mode)
			var got []byte
			for p := make([]byte, 1+random.IntN(20)); ; {
				n, err := r.Read(p)
				got = append(got, p[:n]...)
				if err != nil {
					break
				}
			}
			if want := slow(patterns, words, text, mode); !bytes.Equal(got, want) {
				t.Errorf("patterns %q, words %q, text %q:\n got %q\nwant %q", patterns, words, text, got, want)
			}
		}
	})
}

func TestReaderAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for seed := range uint64(1000) {
		text := make([]byte, random.IntN(60))
		for i := range text {
			text[i] = "aaabbc \n"[random.IntN(8)]
		}
		words := []string{"aabb", "abba", "babab", "aaaa"}[:random.IntN(5)]
		patterns := []string{`a+b`, `a[^\n]*?b`, `(ab|abc)(c|cd)d?`, `\bab+\b`}[:random.IntN(5)]
		s := set(t, patterns, words)
		r := s.Reader(iotest.OneByteReader(bytes.NewReader(text)), Shorten)
		if seed%2 == 0 {
			r = s.Reader(iotest.HalfReader(bytes.NewReader(text)), Shorten)
		}
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := slow(patterns, words, text, Shorten); !bytes.Equal(got, want) {
			t.Fatalf("patterns %q, words %q, text %q:\n got %q\nwant %q", patterns, words, text, got, want)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	line := []byte("2026-01-02T03:04:05Z INFO building package github.com/example/project/some/path in 12.5s\n")
	text := bytes.Repeat(line, 1<<20/len(line))
	for _, test := range []struct {
		name     string
		patterns []string
		values   int
	}{{"none", nil, 0}, {"1-value", nil, 1}, {"20-values", nil, 20}, {"1-pattern", []string{`gh[pousr]_[A-Za-z0-9]{36}`}, 0}, {"10-values-1-pattern", []string{`(?i)bearer [a-z0-9._-]+`}, 10}} {
		b.Run(test.name, func(b *testing.B) {
			s := set(b, test.patterns, nil)
			random := rand.New(rand.NewPCG(1, 1))
			for range test.values {
				v := make([]byte, 12+random.IntN(30))
				for i := range v {
					v[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[random.IntN(62)]
				}
				if err := s.Add(string(v)); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			p := make([]byte, 64<<10)
			for b.Loop() {
				r := s.Reader(bytes.NewReader(text), Shorten)
				for {
					if _, err := r.Read(p); err != nil {
						break
					}
				}
			}
		})
	}
}
