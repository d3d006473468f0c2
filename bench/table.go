package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// unit is how a figure is printed.
type unit func(float64) string

func seconds(v float64) string {
	d := time.Duration(v * float64(time.Second))
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", v)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", v*1e3)
	}
	return fmt.Sprintf("%.0f µs", v*1e6)
}

func mebibytes(v float64) string { return fmt.Sprintf("%.0f MiB", v/(1<<20)) }

func kibibytes(v float64) string { return fmt.Sprintf("%.1f KiB", v/(1<<10)) }

func bytesPerSecond(v float64) string { return fmt.Sprintf("%.0f MB/s", v/1e6) }

func perSecond(v float64) string { return fmt.Sprintf("%.0f /s", v) }

// tally collects the figures of a row's runs.
type tally struct {
	row     string
	order   []string
	samples map[string]*sample
}

// sample is one figure over all runs.
type sample struct {
	unit              unit
	values, baselines []float64
}

func newTally(row string) *tally { return &tally{row: row, samples: make(map[string]*sample)} }

// add takes a run's figure; a baseline of zero is none.
func (t *tally) add(name string, u unit, value, baseline float64) {
	s := t.samples[name]
	if s == nil {
		s = &sample{unit: u}
		t.samples[name] = s
		t.order = append(t.order, name)
	}
	s.values = append(s.values, value)
	if baseline != 0 {
		s.baselines = append(s.baselines, baseline)
	}
}

// result is a line of the table.
type result struct{ row, figure, median, least, most, baseline, ratio string }

func (t *tally) results() []result {
	var out []result
	for _, name := range t.order {
		s := t.samples[name]
		m := median(s.values)
		r := result{
			row: t.row, figure: name,
			median: s.unit(m), least: s.unit(slices.Min(s.values)), most: s.unit(slices.Max(s.values)),
		}
		if len(s.baselines) > 0 {
			b := median(s.baselines)
			r.baseline, r.ratio = s.unit(b), fmt.Sprintf("%.2f", m/b)
		}
		out = append(out, r)
	}
	return out
}

// median returns the middle value, or the mean of the two.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// quantile returns the value below which a part q of the sorted values lies.
func quantile(sorted []time.Duration, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds()
}

// printTable writes the results as a table that is readable as text and as Markdown.
func printTable(w io.Writer, results []result) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(cells ...string) { fmt.Fprintf(table, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	line("row", "figure", "median", "least", "most", "baseline", "ratio")
	line("---", "---", "---", "---", "---", "---", "---")
	for _, r := range results {
		line(r.row, r.figure, r.median, r.least, r.most, r.baseline, r.ratio)
	}
	return table.Flush()
}
