package reader

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// describe returns what readers are told of a stream. What it holds is asked of its last entry until it is archived. If that is damaged,
// nothing is said of it: who reads the stream is told, and a listing has others, too.
func (r *Reader) describe(ctx context.Context, s *state.Stream) (*daybookv1.Stream, error) {
	var last *logpb.LogEntry
	if !s.Archived() {
		var err error
		s, err = r.look(ctx, s, func(s *state.Stream, entries Archive) (err error) {
			if !s.Archived() {
				last, err = tail(ctx, s, entries)
			}
			return err
		})
		if err != nil && !fault.Is(err, fault.DataLoss) {
			return nil, err
		}
	}
	d, err := descriptor(s)
	if err != nil {
		return nil, err
	}
	v := &daybookv1.Stream{
		Project:       string(s.Prefix.Project),
		Path:          string(s.Path()),
		Created:       timestamppb.New(s.Created),
		TerminalIndex: int64(s.LastIndex()),
		Desc:          d,
		Missing:       indexRanges(s.Missing),
		EndReason:     endReason(s),
	}
	if !s.Purged.IsZero() {
		v.Purged = timestamppb.New(s.Purged)
	}
	if !s.Ended.IsZero() {
		v.Ended = timestamppb.New(s.Ended)
	}
	if s.Archived() {
		v.Size, v.Lines, v.NextIndex = s.Archive.ContentSize, s.Archive.Lines, int64(s.Archive.LastIndex)+1
	} else if last != nil {
		v.Size, v.Lines = extent(last)
		v.NextIndex = int64(last.GetStreamIndex()) + 1
	}
	v.State = streamState(s, types.MessageIndex(v.NextIndex))
	return v, nil
}

// streamState is the state of a stream whose entries are there up to next, without a gap unless it is archived.
func streamState(s *state.Stream, next types.MessageIndex) daybookv1.StreamState {
	switch {
	case s.Phase == state.Open:
		return daybookv1.StreamState_OPEN
	case s.Phase == state.Incomplete:
		return daybookv1.StreamState_INCOMPLETE
	case s.Phase == state.Complete || next > s.End.Index:
		return daybookv1.StreamState_COMPLETE
	}
	return daybookv1.StreamState_TERMINATED
}

// endReason says why a stream ended that did not end by itself.
func endReason(s *state.Stream) string {
	if s.EndReason != "" {
		return s.EndReason
	}
	if s.Archived() && !s.End.Known {
		return "the end was never reported"
	}
	return ""
}

// extent returns how many bytes of content and how many lines or datagrams a stream has up to and with the given entry.
func extent(e *logpb.LogEntry) (size, lines int64) {
	size = int64(e.GetContentOffset())
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		lines = int64(e.GetSequence())
		text := c.Text.GetLines()
		for i, l := range text {
			size += int64(len(l.GetValue()) + len(l.GetDelimiter()))
			// A last line that is not finished counts, too.
			if l.GetDelimiter() != "" || i == len(text)-1 && len(l.GetValue()) > 0 {
				lines++
			}
		}
	case *logpb.LogEntry_Binary:
		// The sequence of a binary stream is the offset, whoever produced it.
		size = int64(e.GetSequence()) + int64(len(c.Binary.GetData()))
	case *logpb.LogEntry_Datagram:
		size += int64(len(c.Datagram.GetData()))
		lines = int64(e.GetSequence())
		if p := c.Datagram.GetPartial(); p == nil || p.GetLast() {
			lines++
		}
	}
	return size, lines
}

func indexRanges(ranges []state.Range) []*daybookv1.IndexRange {
	var out []*daybookv1.IndexRange
	for _, r := range ranges {
		out = append(out, &daybookv1.IndexRange{First: int64(r.First), Last: int64(r.Last), Reason: r.Reason})
	}
	return out
}
