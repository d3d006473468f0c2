package archive

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// summary is what an archive has to know of an entry.
type summary struct {
	prefix, stream, sequence uint64
	// The time offset, if it is present.
	timed          bool
	seconds, nanos int64

	contentSize uint64
	// lines are those that end in the entry, or the datagrams that do.
	lines uint64
	// begins says that the content tells whether its last line goes on, and open that it does.
	begins, open bool
}

// summarize returns the summary of a serialized entry, or an error if it cannot be parsed. Entries as our own programs and LogDog's write them
// are not decoded: that costs more than everything else that is done for them.
func summarize(data []byte) (summary, error) {
	if s, ok := scanEntry(data); ok {
		return s, nil
	}
	e := new(logpb.LogEntry)
	if err := proto.Unmarshal(data, e); err != nil {
		return summary{}, err
	}
	return summaryOf(e), nil
}

func summaryOf(e *logpb.LogEntry) summary {
	s := summary{prefix: e.GetPrefixIndex(), stream: e.GetStreamIndex(), sequence: e.GetSequence()}
	if at := e.GetTimeOffset(); at != nil {
		s.timed, s.seconds, s.nanos = true, at.GetSeconds(), int64(at.GetNanos())
	}
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		for _, l := range c.Text.GetLines() {
			s.line(len(l.GetValue()), len(l.GetDelimiter()))
		}
	case *logpb.LogEntry_Binary:
		s.contentSize = uint64(len(c.Binary.GetData()))
	case *logpb.LogEntry_Datagram:
		s.contentSize = uint64(len(c.Datagram.GetData()))
		if p := c.Datagram.GetPartial(); p == nil || p.GetLast() {
			s.lines = 1
		}
	}
	return s
}

func (s *summary) line(value, delimiter int) {
	s.contentSize += uint64(value + delimiter)
	switch {
	case delimiter > 0:
		s.lines++
		s.begins, s.open = true, false
	case value > 0:
		s.begins, s.open = true, true
	}
}

// timeOffset returns the time offset as a message; nil if there is none.
func (s *summary) timeOffset() *durationpb.Duration {
	if !s.timed {
		return nil
	}
	return &durationpb.Duration{Seconds: s.seconds, Nanos: int32(s.nanos)}
}

// listed returns the entry of an index for an entry whose frame lies at an offset.
func (s *summary) listed(offset uint64) *logpb.LogIndex_Entry {
	return &logpb.LogIndex_Entry{
		Offset: offset, Sequence: s.sequence, PrefixIndex: s.prefix, StreamIndex: s.stream, TimeOffset: s.timeOffset(),
	}
}

// applyTo returns a serialized entry with the summary's numbers and time.
func (s *summary) applyTo(data []byte) ([]byte, error) {
	e := new(logpb.LogEntry)
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, err
	}
	e.PrefixIndex, e.Sequence, e.TimeOffset = s.prefix, s.sequence, s.timeOffset()
	return proto.Marshal(e)
}

// at returns the time offset.
func (s *summary) at() time.Duration { return s.timeOffset().AsDuration() }

// scanEntry summarizes an entry of the usual form: known fields, each at most once. It returns false for others, and for those that are damaged.
func scanEntry(data []byte) (s summary, ok bool) {
	var seen uint32
	for len(data) > 0 {
		f, rest, ok := cutField(data, &seen)
		if !ok {
			return s, false
		}
		data = rest
		switch {
		case f.num == 1 && f.bytes != nil:
			s.timed = true
			if !s.scanDuration(f.bytes) {
				return s, false
			}
		case f.num == 2 && f.bytes == nil:
			s.prefix = f.value
		case f.num == 3 && f.bytes == nil:
			s.stream = f.value
		case f.num == 4 && f.bytes == nil:
			s.sequence = f.value
		case f.num == 10 && f.bytes != nil && seen&(1<<11|1<<12) == 0:
			if !s.scanText(f.bytes) {
				return s, false
			}
		case f.num == 11 && f.bytes != nil && seen&(1<<10|1<<12) == 0:
			if !s.scanData(f.bytes, 2) {
				return s, false
			}
		case f.num == 1000 && f.bytes == nil:
		default: // datagrams are few
			return s, false
		}
	}
	return s, true
}

// field is a field of a message: a varint, or, if bytes is not nil, something with a length.
type field struct {
	num   protowire.Number
	value uint64
	bytes []byte
}

// cutField cuts the first field off a message. It refuses what is not usual, and fields below 32 that were seen before.
func cutField(data []byte, seen *uint32) (f field, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(data)
	if n < 0 {
		return f, nil, false
	}
	f.num, data = num, data[n:]
	if num < 32 {
		if *seen&(1<<num) != 0 {
			return f, nil, false
		}
		*seen |= 1 << num
	}
	switch typ {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(data)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(data)
		if f.bytes == nil {
			f.bytes = []byte{}
		}
	default:
		return f, nil, false
	}
	if n < 0 {
		return f, nil, false
	}
	return f, data[n:], true
}

func (s *summary) scanDuration(data []byte) bool {
	var seen uint32
	for len(data) > 0 {
		f, rest, ok := cutField(data, &seen)
		if !ok || f.bytes != nil {
			return false
		}
		data = rest
		switch f.num {
		case 1:
			s.seconds = int64(f.value) // this is how negative numbers are written
		case 2:
			s.nanos = int64(int32(f.value))
		default:
			return false
		}
	}
	return true
}

// scanText scans lines, of which there are any number.
func (s *summary) scanText(data []byte) bool {
	for len(data) > 0 {
		var seen uint32
		f, rest, ok := cutField(data, &seen)
		if !ok || f.num != 1 || f.bytes == nil {
			return false
		}
		data = rest
		var value, delimiter int
		seen = 0
		for line := f.bytes; len(line) > 0; {
			g, rest, ok := cutField(line, &seen)
			if !ok || g.bytes == nil {
				return false
			}
			line = rest
			switch {
			case g.num == 1:
				value = len(g.bytes)
			case g.num == 2 && utf8.Valid(g.bytes):
				delimiter = len(g.bytes)
			default:
				return false
			}
		}
		s.line(value, delimiter)
	}
	return true
}

// scanData scans a message whose one field is the content.
func (s *summary) scanData(data []byte, num protowire.Number) bool {
	var seen uint32
	for len(data) > 0 {
		f, rest, ok := cutField(data, &seen)
		if !ok || f.num != num || f.bytes == nil {
			return false
		}
		data = rest
		s.contentSize = uint64(len(f.bytes))
	}
	return true
}
