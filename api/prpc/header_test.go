package prpc

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"pgregory.net/rapid"
)

func TestEncodingOf(t *testing.T) {
	for mediaType, want := range map[string]encoding{
		"":                                    binary,
		"application/prpc":                    binary,
		"application/prpc; encoding=binary":   binary,
		"Application/PRPC;encoding=binary":    binary,
		"application/grpc":                    binary,
		"*/*":                                 binary,
		"application/*":                       binary,
		"application/json":                    json,
		"application/json; charset=utf-8":     json,
		"application/prpc; encoding=json":     json,
		`application/prpc; encoding="json"`:   json,
		"application/prpc; encoding=text":     text,
		"application/prpc; encoding=xml":      -1,
		"application/prpc; encoding=":         -1,
		"application/prpc; charset=utf-8":     -1,
		"application/prpc; encoding=json;a=b": -1,
		"application/grpc-web":                -1,
		"text/html":                           -1,
		"json":                                -1,
		";":                                   -1,
	} {
		got, ok := encodingOf(mediaType)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v; want %v", mediaType, got, ok, want)
		}
	}
	for _, e := range []encoding{binary, json, text} {
		if got, ok := encodingOf(e.mediaType()); got != e || !ok {
			t.Errorf("%q is not understood", e.mediaType())
		}
	}
}

func TestAccept(t *testing.T) {
	const none, bad = -1, -2
	for _, tc := range []struct {
		header string
		want   encoding
	}{
		{"", binary},
		{" , ", binary},
		{"*/*", binary},
		{"application/json", json},
		{"application/prpc; encoding=text", text},
		{"application/json, application/prpc", binary},
		{"application/prpc; encoding=text, application/json", json},
		{"application/prpc; encoding=text, application/json, */*", binary},
		{"text/html, application/json;q=0.9, */*;q=0.8", json},
		{"application/json;q=0.1, application/prpc; q=0.2; encoding=text", text},
		{"application/json;Q=0.5,application/prpc;encoding=binary;q=.5", binary},
		{"application/json;q=0", json}, // the highest there is
		{"application/json;q=0, application/prpc;encoding=text;q=0.001", text},
		{",,application/json", json},
		{"text/html, image/png", none},
		{"application/prpc; encoding=yaml", none},
		{"application/json;q=x", bad},
		{"application/json;q=", bad},
		{"application/json;q=NaN", bad},
		{"text/html;q=high, application/json", bad},
	} {
		got, ok, err := accept([]string{tc.header})
		switch {
		case err != nil:
			got = bad
		case !ok:
			got = none
		}
		if got != tc.want {
			t.Errorf("%q: %v, %v, %v; want %v", tc.header, got, ok, err, tc.want)
		}
	}
	if got, ok, err := accept(nil); got != binary || !ok || err != nil {
		t.Error("without a header:", got, ok, err)
	}
	if got, _, _ := accept([]string{"text/html", "application/json"}); got != json {
		t.Error("two lines:", got)
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "deflate, gzip;q=0.5": true, "gzip;q=0": true, "br": false, "identity": false, "*": false,
	} {
		if got, err := acceptsGzip([]string{header}); got != want || err != nil {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	for _, header := range []string{"gzip;q=x", "br;q=", "br;q=nan,gzip"} {
		if _, err := acceptsGzip([]string{header}); err == nil {
			t.Errorf("%q was taken", header)
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0n"},
		{-time.Second, "0n"},
		{1, "1n"},
		{99999999, "99999999n"},
		{100000000, "100000u"},
		{100000001, "100001u"}, // rounded up
		{30 * time.Second, "30000000u"},
		{99999999 * time.Microsecond, "99999999u"},
		{99999999*time.Microsecond + 1, "100000m"},
		{99999999 * time.Millisecond, "99999999m"},
		{99999999*time.Millisecond + 1, "100000S"},
		{99999999 * time.Second, "99999999S"},
		{99999999*time.Second + 1, "1666667M"},
		{math.MaxInt64, "2562048H"},
	} {
		if got := encodeTimeout(tc.d); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.d, got, tc.want)
		}
	}
	for s, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"-1S": -time.Second, "0n": 0, "9223372036854775807n": math.MaxInt64,
		"9223372036854775807H": math.MaxInt64 / time.Hour * time.Hour, "-9223372036854775808H": -(math.MaxInt64 / time.Hour * time.Hour),
	} {
		if got, err := decodeTimeout(s); got != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "1", "H", "1h", "1x", "1.5S", "S1", " 1S", "1S ", "0x1S", "9223372036854775808n"} {
		if d, err := decodeTimeout(s); err == nil {
			t.Errorf("%q is %v", s, d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(0).Draw(t, "d"))
		s := encodeTimeout(d)
		got, err := decodeTimeout(s)
		// At most the eighth digit is lost, and never is a budget shortened; the longest of all cannot be rounded up.
		if err != nil || len(s) > 9 || got < d && got < math.MaxInt64/time.Hour*time.Hour || got-d > d/10000+1 {
			t.Fatalf("%v became %s, and that %v, %v", d, s, got, err)
		}
	})
}

func TestMetadata(t *testing.T) {
	h := http.Header{
		"Authorization": {"Bearer x"}, "X-Two": {"1", "2"}, "X-Some-Bin": {"AAE=, Ag==", "/w=="},
		"Accept": {"x"}, "Vary": {"x"}, "X-Prpc-Anything": {"x"}, "Access-Control-Request-Method": {"x"}, "Content-Type": {"x"},
		"X-Content-Type-Options": {"x"}, "Content-Length": {"1"}, "Content-Encoding": {"x"}, "Accept-Encoding": {"x"},
	}
	got, err := metadataOf(h)
	want := metadata.MD{"authorization": {"Bearer x"}, "x-two": {"1", "2"}, "x-some-bin": {"\x00\x01", "\x02", "\xff"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	back := http.Header{}
	setMetadata(back, got)
	wantBack := http.Header{"Authorization": {"Bearer x"}, "X-Two": {"1", "2"}, "X-Some-Bin": {"AAE=", "Ag==", "/w=="}}
	if diff := cmp.Diff(wantBack, back); diff != "" {
		t.Fatal(diff)
	}
	for _, v := range []string{"AA", "A", "_w==", "AAE=,A", "*"} {
		if _, err := metadataOf(http.Header{"X-Bin": {v}}); err == nil || !strings.Contains(err.Error(), "x-bin") {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"", "30000000u", "-1S", "text/html, application/json;q=0.9, */*;q=0.8", "application/prpc; encoding=text", "gzip;q=0", "AAE=,/w=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := decodeTimeout(s); err == nil {
			if again, err := decodeTimeout(encodeTimeout(d)); err != nil || d >= 0 && again < d && d < math.MaxInt64/time.Hour*time.Hour {
				t.Fatalf("%q is %v, and that is %v, %v", s, d, again, err)
			}
		}
		if e, ok, err := accept([]string{s}); ok && (err != nil || e < binary || e > text) {
			t.Fatalf("%q: %v, %v", s, e, err)
		}
		if e, ok := encodingOf(s); ok && (e < binary || e > text) {
			t.Fatalf("%q: %v", s, e)
		}
		_, _ = acceptsGzip([]string{s})
		if md, err := metadataOf(http.Header{"X-Bin": {s}}); err == nil {
			h := http.Header{}
			setMetadata(h, md)
			again, err := metadataOf(h)
			if diff := cmp.Diff(md, again); err != nil || diff != "" {
				t.Fatal(err, diff)
			}
		}
		_ = textOf(s)
	})
}
