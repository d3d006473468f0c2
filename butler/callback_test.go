package butler

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// recorder is a chunk callback that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	entries []*logpb.LogEntry
	nils    int
	late    int
}

func (r *recorder) chunk(e *logpb.LogEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.nils > 0:
		r.late++
	case e == nil:
		r.nils++
	default:
		r.entries = append(r.entries, e)
	}
}

func (r *recorder) content() string {
	var s strings.Builder
	for _, e := range r.entries {
		for _, l := range e.GetText().GetLines() {
			fmt.Fprintf(&s, "%s%s", l.GetValue(), l.GetDelimiter())
		}
		s.Write(e.GetBinary().GetData())
	}
	return s.String()
}

// only returns a registration callback for one stream.
func only(name string, cb StreamChunkCallback) StreamRegistrationCallback {
	return func(d *logpb.LogStreamDescriptor) StreamChunkCallback {
		if d.GetName() == name {
			return cb
		}
		return nil
	}
}

func TestCallbacks(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		b := newButler(t, t.Context(), &testOutput{plain: true})
		var with, empty, second, datagram recorder
		b.AddStreamRegistrationCallback(only("with", with.chunk), wrapped)
		b.AddStreamRegistrationCallback(only("with", second.chunk), wrapped)
		b.AddStreamRegistrationCallback(only("empty", empty.chunk), wrapped)
		b.AddStreamRegistrationCallback(only("datagram", datagram.chunk), wrapped)
		b.AddStreamRegistrationCallback(func(*logpb.LogStreamDescriptor) StreamChunkCallback { panic("registration") }, wrapped)
		r, w := io.Pipe()
		add(t, b, "with", r)
		// A duplicate does not disturb.
		if err := b.AddStream(text("thief"), desc("with", 0)); err == nil {
			t.Error("duplicate accepted")
		}
		add(t, b, "empty", text(""))
		add(t, b, "unwatched", text("x"))
		if err := b.AddStream(text("\x05ab"), desc("datagram", logpb.StreamType_DATAGRAM)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "one\ntwo\nand the last"); err != nil {
			t.Fatal(err)
		}
		w.Close()
		finish(t, b)
		if got := with.content(); got != "one\ntwo\nand the last" {
			t.Errorf("%q", got)
		}
		for name, r := range map[string]*recorder{"with": &with, "empty": &empty, "datagram": &datagram} {
			if r.nils != 1 || r.late != 0 {
				t.Errorf("%s: %d ends, %d entries after it", name, r.nils, r.late)
			}
		}
		if second.nils+len(second.entries)+len(empty.entries) != 0 {
			t.Error("somebody got what was not his")
		}
		if got := len(datagram.entries); wrapped != (got == 0) {
			t.Errorf("%d entries of an incomplete datagram", got)
		}
	}
}

// TestSlowCallback has a callback that does not return, which holds up its own stream alone and within bounds.
func TestSlowCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(testOutput)
		b := newButler(t, t.Context(), out)
		stuck := make(chan struct{})
		var r recorder
		b.AddStreamRegistrationCallback(only("slow", func(e *logpb.LogEntry) {
			<-stuck
			r.chunk(e)
		}), true)
		data := strings.Repeat("a rather long line of the slow stream, of which there are many\n", 1<<17)
		slow := text(data)
		add(t, b, "slow", slow)
		synctest.Wait()
		add(t, b, "other", text("hello\n"))
		if open := b.DrainNamespace(t.Context(), "x"); open != nil {
			t.Error(open)
		}
		synctest.Wait()
		if slow.closes() != 0 {
			t.Error("the slow stream was not held up")
		}
		close(stuck)
		finish(t, b)
		if s := out.Stream("other"); string(s.Data) != "hello\n" {
			t.Errorf("%q", s.Data)
		}
		if r.content() != data || r.nils != 1 {
			t.Errorf("%d bytes, %d ends", len(r.content()), r.nils)
		}
	})
}

func TestPanickingCallback(t *testing.T) {
	out := new(testOutput)
	b := newButler(t, t.Context(), out)
	calls := 0
	b.AddStreamRegistrationCallback(only("bad", func(*logpb.LogEntry) {
		calls++
		panic("callback")
	}), false)
	add(t, b, "bad", text("1\n2\n"))
	finish(t, b)
	if calls != 1 || string(out.Stream("bad").Data) != "1\n2\n" {
		t.Errorf("%d calls, %q", calls, out.Stream("bad").Data)
	}
}

func line(value, delimiter string) *logpb.Text_Line {
	return &logpb.Text_Line{Value: []byte(value), Delimiter: delimiter}
}

func textEntry(index, sequence uint64, lines ...*logpb.Text_Line) *logpb.LogEntry {
	return &logpb.LogEntry{
		StreamIndex: index, Sequence: sequence, PrefixIndex: 99,
		Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: lines}},
	}
}

func TestTextWrapping(t *testing.T) {
	var r recorder
	cb := wrap(r.chunk, logpb.StreamType_TEXT)
	cb(textEntry(0, 0, line("a", "\n"), line("b", "")))
	cb(textEntry(1, 1, line("c", "")))
	cb(textEntry(2, 1, line("", "\r\n"), line("d", "\n")))
	cb(textEntry(3, 3, line("e", "")))
	cb(textEntry(4, 3, line("f", "")))
	cb(nil)
	want := []*logpb.LogEntry{
		textEntry(0, 0, line("a", "\n")),
		textEntry(1, 1, line("bc", "\r\n"), line("d", "\n")),
		textEntry(2, 3, line("ef", "")),
	}
	for _, e := range want {
		e.PrefixIndex = 0
	}
	if diff := cmp.Diff(want, r.entries, protocmp.Transform()); diff != "" || r.nils != 1 {
		t.Errorf("%d ends\n%s", r.nils, diff)
	}
}

func TestDatagramWrapping(t *testing.T) {
	dg := func(i uint64, data string, p *logpb.Datagram_Partial) *logpb.LogEntry {
		return &logpb.LogEntry{
			StreamIndex: i, Sequence: i,
			Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte(data), Partial: p}},
		}
	}
	var r recorder
	cb := wrap(r.chunk, logpb.StreamType_DATAGRAM)
	cb(dg(0, "whole", nil))
	cb(dg(1, "frag", &logpb.Datagram_Partial{Size: 9}))
	cb(dg(1, "ments", &logpb.Datagram_Partial{Index: 1, Size: 9, Last: true}))
	cb(dg(2, "", nil))
	cb(dg(3, "lost", &logpb.Datagram_Partial{Size: 9}))
	cb(nil)
	want := []*logpb.LogEntry{dg(0, "whole", nil), dg(1, "fragments", nil), dg(2, "", nil)}
	if diff := cmp.Diff(want, r.entries, protocmp.Transform(), cmp.Comparer(bytes.Equal)); diff != "" || r.nils != 1 {
		t.Errorf("%d ends\n%s", r.nils, diff)
	}
}

func TestWrappingPanics(t *testing.T) {
	dg := func(p *logpb.Datagram_Partial) *logpb.LogEntry {
		return &logpb.LogEntry{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Partial: p}}}
	}
	for name, c := range map[string]struct {
		t       logpb.StreamType
		entries []*logpb.LogEntry
	}{
		"datagram in text":      {logpb.StreamType_TEXT, []*logpb.LogEntry{dg(nil)}},
		"no lines":              {logpb.StreamType_TEXT, []*logpb.LogEntry{textEntry(0, 0)}},
		"unfinished not last":   {logpb.StreamType_TEXT, []*logpb.LogEntry{textEntry(0, 0, line("a", ""), line("b", "\n"))}},
		"text after the end":    {logpb.StreamType_TEXT, []*logpb.LogEntry{nil, nil}},
		"text in datagram":      {logpb.StreamType_DATAGRAM, []*logpb.LogEntry{textEntry(0, 0, line("a", "\n"))}},
		"whole after fragment":  {logpb.StreamType_DATAGRAM, []*logpb.LogEntry{dg(&logpb.Datagram_Partial{Size: 1}), dg(nil)}},
		"second fragment first": {logpb.StreamType_DATAGRAM, []*logpb.LogEntry{dg(&logpb.Datagram_Partial{Size: 1, Index: 1})}},
		"dgram after the end":   {logpb.StreamType_DATAGRAM, []*logpb.LogEntry{nil, nil}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			cb := wrap(func(*logpb.LogEntry) {}, c.t)
			for _, e := range c.entries {
				cb(proto.CloneOf(e))
			}
		}()
	}
}
