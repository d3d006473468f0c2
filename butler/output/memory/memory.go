// Package memory is an output that keeps the contents of all streams in memory, for tests.
package memory

import (
	"context"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Output keeps streams. The zero value is ready for use; it is safe for concurrent use.
type Output struct {
	mu      sync.Mutex
	streams map[types.StreamName]*Stream
	stats   output.Stats
}

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// Stream is what arrived of one stream.
type Stream struct {
	Desc *logpb.LogStreamDescriptor
	// Entries in the order of arrival.
	Entries []*logpb.LogEntry
	// Data is all text, with its delimiters, or all binary data.
	Data []byte
	// Datagrams are the complete ones.
	Datagrams [][]byte
	// Terminal is the number of mentions that said that the stream has ended, with TerminalIndex or TerminalEmpty.
	Terminal      int
	TerminalIndex types.MessageIndex
	TerminalEmpty bool
	// Ended is what the last such mention said of the end.
	Ended *logpb.StreamEnd

	// pending has the fragments so far of a datagram.
	pending []byte
}

// SendBundle implements output.Output.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.SentMessages++
	o.stats.SentBytes += int64(proto.Size(bundle))
	for _, e := range bundle.GetEntries() {
		name := types.StreamName(e.GetDesc().GetName())
		s := o.streams[name]
		if s == nil {
			if o.streams == nil {
				o.streams = make(map[types.StreamName]*Stream)
			}
			s = &Stream{Desc: proto.CloneOf(e.GetDesc()), TerminalIndex: -1}
			o.streams[name] = s
		}
		s.add(e)
	}
	return nil
}

func (s *Stream) add(e *logpb.ButlerLogBundle_Entry) {
	for _, le := range e.GetLogs() {
		s.Entries = append(s.Entries, proto.CloneOf(le))
		for _, l := range le.GetText().GetLines() {
			s.Data = append(append(s.Data, l.GetValue()...), l.GetDelimiter()...)
		}
		s.Data = append(s.Data, le.GetBinary().GetData()...)
		if dg := le.GetDatagram(); dg != nil {
			s.pending = append(s.pending, dg.GetData()...)
			if p := dg.GetPartial(); p == nil || p.GetLast() {
				s.Datagrams = append(s.Datagrams, slices.Clone(s.pending))
				s.pending = s.pending[:0]
			}
		}
	}
	if e.GetTerminal() {
		s.Terminal++
		s.TerminalEmpty = e.GetTerminalEmpty()
		s.Ended = proto.CloneOf(e.GetEnded())
		if !s.TerminalEmpty {
			s.TerminalIndex = types.MessageIndex(e.GetTerminalIndex())
		}
	}
}

// Stream returns a copy of what is there of a stream, or nil. Its entries must not be changed.
func (o *Output) Stream(name types.StreamName) *Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.streams[name]
	if s == nil {
		return nil
	}
	c := *s
	c.Entries, c.Data, c.Datagrams = slices.Clone(s.Entries), slices.Clone(s.Data), slices.Clone(s.Datagrams)
	return &c
}

// Streams returns the names of all streams, sorted.
func (o *Output) Streams() []types.StreamName {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.streams))
}

// MaxSendBundles implements output.Output.
func (*Output) MaxSendBundles() int { return 1 }

// MaxSize implements output.Output.
func (*Output) MaxSize() int { return 1 << 30 }

// URLConstructionEnv implements output.Output.
func (*Output) URLConstructionEnv() output.Environment {
	return output.Environment{Project: "memory", Prefix: "memory"}
}

// Stats implements output.Output. Messages are bundles.
func (o *Output) Stats() output.Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// Extensions implements output.Extender.
func (*Output) Extensions() bool { return true }

// Close implements output.Output. The contents stay readable.
func (*Output) Close(context.Context) error { return nil }
