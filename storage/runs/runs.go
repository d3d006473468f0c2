// Package runs is what engines share that keep many entries in a row: it sorts out what of a batch is new, cuts it to the size of
// rows, and packs the entries of a row as frames.
//
// The values given are never copied or changed. Functions are safe for concurrent use as far as their arguments are.
package runs

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// Run is entries in a row: Values[k] has the index First+k.
type Run struct {
	First  types.MessageIndex
	Values [][]byte
}

// Span is the indices from First up to and without End.
type Span struct{ First, End types.MessageIndex }

// Span returns the run's indices.
func (r Run) Span() Span { return Span{r.First, r.First + types.MessageIndex(len(r.Values))} }

// Stream is what a batch has for a stream: runs in order, without overlaps.
type Stream struct {
	Name storage.Stream
	Runs []Run
	// mixed says that the runs are not in order yet.
	mixed bool
}

// Collect sorts puts by stream, in the order in which the streams first come. Of an index that is put twice the first value stays.
func Collect(puts []storage.PutRequest) []*Stream {
	streams := make([]*Stream, 0, 1)
	named := make(map[storage.Stream]*Stream, 1)
	for _, p := range puts {
		if len(p.Values) == 0 {
			continue
		}
		s := named[p.Stream]
		if s == nil {
			s = &Stream{Name: p.Stream}
			named[p.Stream] = s
			streams = append(streams, s)
		}
		s.add(Run{p.Index, p.Values[:len(p.Values):len(p.Values)]})
	}
	for _, s := range streams {
		if s.mixed {
			s.sort()
		}
	}
	return streams
}

func (s *Stream) add(r Run) {
	if n := len(s.Runs); n > 0 {
		last := &s.Runs[n-1]
		switch end := last.Span().End; {
		case r.First == end:
			last.Values = append(last.Values, r.Values...)
			return
		case r.First < end:
			s.mixed = true
		}
	}
	s.Runs = append(s.Runs, r)
}

// sort brings the runs into order, and leaves out what comes again. Whoever sends many of them must not make it slow.
func (s *Stream) sort() {
	type entry struct {
		index types.MessageIndex
		value []byte
	}
	var all []entry
	for _, r := range s.Runs {
		for i, v := range r.Values {
			all = append(all, entry{r.First + types.MessageIndex(i), v})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.index, b.index) })
	s.Runs, s.mixed = nil, false
	var last *Run
	for _, e := range all {
		switch {
		case last == nil || e.index > last.Span().End:
			s.Runs = append(s.Runs, Run{First: e.index, Values: [][]byte{e.value}})
			last = &s.Runs[len(s.Runs)-1]
		case e.index == last.Span().End:
			last.Values = append(last.Values, e.value)
		}
	}
}

// Missing returns the parts of the runs that lie in none of the spans. The runs are in order and without overlaps; the spans are in the
// order of their beginnings and may overlap.
func Missing(runs []Run, have []Span) []Run {
	var missing []Run
	for _, r := range runs {
		next, all := r.First, r.Span()
		until := func(end types.MessageIndex) {
			if end > next {
				missing = append(missing, Run{next, r.Values[next-r.First : end-r.First : end-r.First]})
			}
		}
		for len(have) > 0 && have[0].End <= r.First { // they lie before the runs that follow, too
			have = have[1:]
		}
		for _, h := range have {
			if h.First >= all.End {
				break
			}
			until(h.First)
			next = min(max(next, h.End), all.End)
		}
		until(all.End)
	}
	return missing
}

// framed is the bytes of a frame with a payload of that many.
func framed(payload int) int { return max(1, (bits.Len(uint(payload))+6)/7) + payload }

// Size is the bytes of the run when it is packed.
func (r Run) Size() int {
	size := 0
	for _, v := range r.Values {
		size += framed(len(v))
	}
	return size
}

// Cut cuts the run into parts that have at most that many bytes when they are packed, or one entry.
func (r Run) Cut(size int) []Run {
	var parts []Run
	begin, sum := 0, 0
	for i, v := range r.Values {
		n := framed(len(v))
		if i > begin && sum+n > size {
			parts = append(parts, Run{r.First + types.MessageIndex(begin), r.Values[begin:i:i]})
			begin, sum = i, 0
		}
		sum += n
	}
	if begin < len(r.Values) {
		parts = append(parts, Run{r.First + types.MessageIndex(begin), r.Values[begin:]})
	}
	return parts
}

// AppendPacked appends the run's entries to dst, each as a frame.
func (r Run) AppendPacked(dst []byte) []byte {
	for _, v := range r.Values {
		dst = frame.Append(dst, v)
	}
	return dst
}

// Unpack returns the entries in a row, of which there have to be that many. They share the memory of packed.
func Unpack(packed []byte, first types.MessageIndex, count int) (Run, error) {
	// A frame has at least one byte, so what is allocated is bounded by what is there.
	if count > len(packed) {
		return Run{}, fault.New(fault.DataLoss, "a row of %d entries has %d bytes", count, len(packed))
	}
	r := Run{first, make([][]byte, 0, count)}
	for len(packed) > 0 {
		v, rest, err := frame.Cut(packed, storage.MaxEntrySize)
		if err != nil {
			return Run{}, fault.Wrap(fault.DataLoss, fmt.Errorf("entry %d: %w", r.Span().End, err))
		}
		if len(r.Values) == count {
			return Run{}, fault.New(fault.DataLoss, "a row has more than its %d entries", count)
		}
		r.Values, packed = append(r.Values, v), rest
	}
	if len(r.Values) != count {
		return Run{}, fault.New(fault.DataLoss, "a row has %d of its %d entries", len(r.Values), count)
	}
	return r, nil
}
