package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	a := newTally("capture")
	for i := range 3 {
		a.add("wall", seconds, float64(i+1), 0.5)
		a.add("memory", mebibytes, float64(int(1<<20)*(10-i)), 0)
	}
	var b strings.Builder
	if err := printTable(&b, a.results()); err != nil {
		t.Fatal(err)
	}
	want := `
| row     | figure | median | least  | most   | baseline | ratio |
| ---     | ---    | ---    | ---    | ---    | ---      | ---   |
| capture | wall   | 2.00 s | 1.00 s | 3.00 s | 500.0 ms | 4.00  |
| capture | memory | 9 MiB  | 8 MiB  | 10 MiB |          |       |
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMedianAndQuantile(t *testing.T) {
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of four is %v", m)
	}
	times := []time.Duration{1e9, 2e9, 3e9, 4e9}
	if p50, p99 := quantile(times, 0.5), quantile(times, 0.99); p50 != 3 || p99 != 4 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
}

func TestFailureEndsARun(t *testing.T) {
	cleaned := ""
	row := row{"r", func(r *run) {
		r.Cleanup(func() { cleaned += "a" })
		r.Cleanup(func() { cleaned += "b" })
		r.Fatalf("no %s", "disk")
	}}
	err := measure(t.Context(), "", row, newTally("r"))
	if err == nil || err.Error() != "no disk" || cleaned != "ba" {
		t.Errorf("error %v, cleaned %q", err, cleaned)
	}
}
