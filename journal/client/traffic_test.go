package client

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// counted returns the values of the metrics of a journal, by name and codec.
func counted(t *testing.T, journal string) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(Collector())
	families, err := reg.Gather()
	wantNil(t, err)
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name, of := f.GetName(), ""
			for _, l := range m.Label {
				switch l.GetName() {
				case "journal":
					of = l.GetValue()
				case "codec":
					name += " " + l.GetValue()
				}
			}
			if of == journal {
				out[name] = m.Counter.GetValue()
			}
		}
	}
	return out
}

func TestTraffic(t *testing.T) {
	b := &broker{}
	rjc := b.start(t)
	// A name that no other test uses, with metadata, which tells the readers of a process apart.
	const journal = "test/traffic;part"
	before, beforeFragment := counted(t, journal), counted(t, "test/traffic/fragments")
	s := closed(t, NewAppendService(context.Background(), rjc))
	wantNil(t, put(t, s, request(journal), "0123456789").Err())
	a := NewAppender(t.Context(), rjc, request(journal))
	_, err := io.WriteString(a, "rolled back")
	wantNil(t, err)
	a.Abort()
	_, err = io.ReadAll(NewReader(t.Context(), rjc, &pb.ReadRequest{Journal: journal, Offset: 3}))
	wantErrorIs(t, err, ErrOffsetNotYetAvailable)
	after := counted(t, journal)
	more := func(name string) float64 { return after[name] - before[name] }
	if more("gazette_append_bytes_total") != 21 || more("gazette_read_bytes_total") != 7 || len(after) != 2 {
		t.Errorf("%v, before %v", after, before)
	}

	store := fileStore(t)
	f, file := testFragment(t, pb.CompressionCodec_GZIP)
	f.Journal = "test/traffic/fragments"
	fr, err := OpenFragmentURL(t.Context(), f, f.Begin+5, store(f, file))
	wantNil(t, err)
	_, err = io.ReadAll(fr)
	wantNil(t, err)
	wantNil(t, fr.Close())
	size := float64(len(fragmentText))
	for name, want := range map[string]float64{
		"gazette_fragment_open_total GZIP": 1, "gazette_fragment_open_bytes_total GZIP": size,
		"gazette_fragment_open_content_length_total GZIP": float64(len(file)),
		"gazette_read_fragment_bytes_total GZIP":          size - 5, "gazette_discard_fragment_bytes_total GZIP": 5,
	} {
		if got := counted(t, f.Journal)[name] - beforeFragment[name]; got != want {
			t.Errorf("%s is %v instead of %v", name, got, want)
		}
	}
}

// However many journals there are, there is an end to the series.
func TestTrafficIsBounded(t *testing.T) {
	m := newTraffic()
	for i := range maxTracked + 100 {
		m.of(m.read, fmt.Sprint("test/", i)).Inc()
	}
	c := make(chan prometheus.Metric, 2*maxTracked)
	m.read.Collect(c)
	if n := len(c); n != maxTracked+1 {
		t.Errorf("%d series", n)
	}
	if l := m.label("test/5"); l != "test/5" {
		t.Errorf("a journal that was tracked counts as %q", l)
	}
}
