package main

import (
	"testing"
	"time"
)

func TestCommandName(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"go", "vet", "./..."}, "go-vet"},
		{[]string{"/usr/bin/make", "-j8"}, "make"},
		{[]string{"seq", "1", "5"}, "seq"},
		{[]string{"sh", "-c", "exit 1"}, "sh"},
		{[]string{"setup.exe"}, "setup"},
	} {
		if got := commandName(tc.args); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.args, got, tc.want)
		}
	}
}

func TestGeneratedPrefixIsValid(t *testing.T) {
	for _, args := range [][]string{{"go", "test"}, {"./_x y/ü-ñ"}, {"."}, {"/"}} {
		p, err := generatePrefix(args, time.Unix(0, 0))
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if err := p.Validate(); err != nil || p.SegmentCount() != 4 {
			t.Errorf("%q: %q: %v", args, p, err)
		}
	}
}

func TestCutLines(t *testing.T) {
	for _, tc := range []struct {
		text   string
		n      int
		want   string
		enough bool
	}{
		{"a\nb\nc\n", 2, "b\nc\n", true},
		{"a\nb\nc", 2, "b\nc", true},
		{"a\nb\nc\n", 3, "a\nb\nc\n", false},
		{"\n\n\n", 1, "\n", true},
		{"", 5, "", false},
	} {
		got, enough := cutLines([]byte(tc.text), tc.n)
		if string(got) != tc.want || enough != tc.enough {
			t.Errorf("%q, %d: %q, %v; want %q, %v", tc.text, tc.n, got, enough, tc.want, tc.enough)
		}
	}
}

func TestText(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Minute: "1h", 47 * time.Hour: "47h", 72 * time.Hour: "3d"} {
		if got := age(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 1234567: "1.23 MB", 999600: "1 MB", 5e9: "5 GB", 7e13: "70 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
