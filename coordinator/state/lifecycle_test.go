package state

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func known(i types.MessageIndex) End { return End{Known: true, Index: i} }

func TestTerminate(t *testing.T) {
	s := new(Stream)
	for _, bad := range []End{{}, known(-2), known(math.MaxInt64)} {
		if changed, err := s.Terminate(t0, bad, Note{}); changed || !fault.Is(err, fault.Invalid) {
			t.Errorf("Terminate(%v) = %v, %v", bad, changed, err)
		}
	}
	if changed, err := s.Terminate(t0, known(4), Note{}); !changed || err != nil || s.Phase != Terminated || !s.Ended.Equal(t0) {
		t.Errorf("Terminate: %v, %v, %+v", changed, err, s)
	}
	if changed, err := s.Terminate(t0.Add(time.Hour), known(4), Note{}); changed || err != nil || !s.Ended.Equal(t0) {
		t.Errorf("the same end again: %v, %v, %+v", changed, err, s)
	}
	if changed, err := s.Terminate(t0, known(5), Note{}); changed || !fault.Is(err, fault.Precondition) {
		t.Errorf("another end: %v, %v", changed, err)
	}
}

func TestTerminateWithNote(t *testing.T) {
	raw := func(tags map[string]string) []byte {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&logpb.LogStreamDescriptor{Name: "a", Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := &Stream{Descriptor: raw(map[string]string{"there": "stays"})}
	tags := map[string]string{"there": "goes", "new": "1", "not a tag": "2"}
	if _, err := s.Terminate(t0, known(4), Note{Reason: strings.Repeat("é", maxReason), Tags: tags}); err != nil {
		t.Fatal(err)
	}
	if want := raw(map[string]string{"there": "stays", "new": "1"}); !bytes.Equal(s.Descriptor, want) {
		t.Errorf("descriptor %q, want %q", s.Descriptor, want)
	}
	if len(s.EndReason) != maxReason || !utf8.ValidString(s.EndReason) {
		t.Errorf("reason of %d bytes", len(s.EndReason))
	}
	many := &Stream{}
	tags = make(map[string]string)
	for i := range 100 {
		tags[fmt.Sprint("t", i)] = ""
	}
	if _, err := many.Terminate(t0, known(4), Note{Tags: tags}); err != nil {
		t.Fatal(err)
	}
	var d logpb.LogStreamDescriptor
	if err := proto.Unmarshal(many.Descriptor, &d); err != nil || len(d.GetTags()) != maxEndTags {
		t.Errorf("%d tags, %v", len(d.GetTags()), err)
	}
}

// The rows are those of spec archive 6.6, with the reported end kept.
func TestSetArchive(t *testing.T) {
	for _, test := range []struct {
		name    string
		end     End
		last    types.MessageIndex
		count   int64
		missing []Range
		phase   Phase
		want    []Range
	}{
		{"all", known(2), 2, 3, nil, Complete, nil},
		{"gap at the end", known(9), 2, 3, nil, Incomplete, []Range{{3, 9, ""}}},
		{"gap in the middle", known(4), 4, 4, []Range{{2, 2, "unreadable"}}, Incomplete, []Range{{2, 2, "unreadable"}}},
		{"both", known(9), 4, 4, []Range{{2, 2, ""}}, Incomplete, []Range{{2, 2, ""}, {5, 9, ""}}},
		{"both, all reported", known(9), 4, 4, []Range{{2, 2, ""}, {5, 9, ""}}, Incomplete, []Range{{2, 2, ""}, {5, 9, ""}}},
		{"unexplained", known(4), 4, 4, nil, Incomplete, nil},
		{"nothing came", known(5), -1, 0, nil, Incomplete, []Range{{0, 5, ""}}},
		{"empty", known(-1), -1, 0, nil, Complete, nil},
		{"end unknown, all", End{}, 5, 6, nil, Incomplete, nil},
		{"end unknown, gap", End{}, 5, 3, []Range{{2, 4, ""}}, Incomplete, []Range{{2, 4, ""}}},
		{"end unknown, empty", End{}, -1, 0, nil, Incomplete, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Stream{End: test.end}
			a := Archive{LastIndex: test.last, EntryCount: test.count}
			if changed, err := s.SetArchive(t0, a, test.missing, ""); !changed || err != nil {
				t.Fatal(changed, err)
			}
			if s.Phase != test.phase {
				t.Errorf("phase %v", s.Phase)
			}
			if diff := cmp.Diff(test.want, s.Missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
			if s.End != test.end {
				t.Errorf("the reported end became %v", s.End)
			}
			before := *s
			if changed, err := s.SetArchive(t0.Add(time.Hour), Archive{LastIndex: 99, EntryCount: 100}, nil, ""); changed || err != nil {
				t.Errorf("again: %v, %v", changed, err)
			}
			if diff := cmp.Diff(&before, s); diff != "" {
				t.Errorf("a second report changed it:\n%s", diff)
			}
		})
	}
	for _, test := range []struct {
		last    types.MessageIndex
		count   int64
		missing []Range
	}{
		{-2, 0, nil},
		{1, 3, nil},
		{1, -1, nil},
		{math.MaxInt64, 1, nil},
		{5, 1, []Range{{3, 2, ""}}},
		{5, 1, []Range{{3, 4, ""}, {4, 4, ""}}},
		{5, 1, []Range{{3, 6, ""}}},
		{5, 1, []Range{{-1, 3, ""}}},
	} {
		s := new(Stream)
		if changed, err := s.SetArchive(t0, Archive{LastIndex: test.last, EntryCount: test.count}, test.missing, ""); changed || !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v, %v", test, changed, err)
		}
	}
}

// An end that is reported after the archive counts all the same.
func TestLateEnd(t *testing.T) {
	for _, test := range []struct {
		end   types.MessageIndex
		phase Phase
		want  []Range
	}{
		{3, Complete, nil},
		{6, Incomplete, []Range{{4, 6, ""}}},
	} {
		s := new(Stream)
		if _, err := s.SetArchive(t0, Archive{LastIndex: 3, EntryCount: 4}, nil, ""); err != nil {
			t.Fatal(err)
		}
		if s.LastIndex() != 3 {
			t.Errorf("LastIndex = %d", s.LastIndex())
		}
		if changed, err := s.Terminate(t0, known(test.end), Note{}); !changed || err != nil {
			t.Fatal(changed, err)
		}
		if s.Phase != test.phase || s.LastIndex() != test.end || !cmp.Equal(s.Missing, test.want) {
			t.Errorf("end %d: %+v", test.end, s)
		}
	}
}

func TestPattern(t *testing.T) {
	names := []types.StreamName{"foo", "foobar", "foo/bar", "foo/bar/baz", "cat/dog", "catfish/dog", "cat/bird/dog", "xfoo", "a/foo", "a/b/foo", "a/xfoo", "f-o"}
	// The table of spec coordinator 7.5, with the segment meaning of two stars.
	for _, test := range []struct {
		pattern string
		want    []types.StreamName
	}{
		{"*", []types.StreamName{"foo", "foobar", "xfoo", "f-o"}},
		{"foo/*", []types.StreamName{"foo/bar"}},
		{"foo/**", []types.StreamName{"foo", "foo/bar", "foo/bar/baz"}},
		{"**/foo", []types.StreamName{"foo", "a/foo", "a/b/foo"}},
		{"cat/**/dog", []types.StreamName{"cat/dog", "cat/bird/dog"}},
		{"cat/**/**/dog", []types.StreamName{"cat/dog", "cat/bird/dog"}},
		{"cat/*/dog", []types.StreamName{"cat/bird/dog"}},
		{"*/foo", []types.StreamName{"a/foo"}},
		{"foo*", []types.StreamName{"foobar"}},
		{"f*o", []types.StreamName{"foo", "f-o"}},
		{"*o*", []types.StreamName{"foo", "foobar", "xfoo"}},
		{"foo/*/baz", []types.StreamName{"foo/bar/baz"}},
		{"**/**", names},
		{"**", names},
		{"", names},
		{"***", names},
		{"**foo", []types.StreamName{"foo", "xfoo", "a/foo", "a/b/foo", "a/xfoo"}},
		{"**/b/**", []types.StreamName{"a/b/foo"}},
		{"foo", []types.StreamName{"foo"}},
		{"f.o", nil},
	} {
		p, err := ParsePattern(test.pattern)
		if err != nil {
			t.Errorf("%q: %v", test.pattern, err)
			continue
		}
		var got []types.StreamName
		for _, n := range names {
			if p.Match(n) {
				got = append(got, n)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.pattern, diff)
		}
	}
	for _, bad := range []string{"/", "a//b", "a/", "+", "a b", "a/-*", "a?", "[a]", strings.Repeat("*a", 101)} {
		if _, err := ParsePattern(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Whatever a pattern matches, the database's simpler form of it does too.
func FuzzPattern(f *testing.F) {
	f.Add("a/**/b", "a/x/y/b")
	f.Add("**/a*", "ab")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := ParsePattern(pattern)
		if err != nil || len(pattern) > 40 || len(name) > 40 || strings.Count(p.Coarse(), "*") > 6 {
			return // coarseMatch takes too long
		}
		if _, literal := p.Literal(); !literal && p.Match(types.StreamName(name)) && !coarseMatch(p.Coarse(), name) {
			t.Errorf("%q matches %q, and %q does not", pattern, name, p.Coarse())
		}
	})
}

// coarseMatch lets a star match anything.
func coarseMatch(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] != '*' {
		return s != "" && pattern[0] == s[0] && coarseMatch(pattern[1:], s[1:])
	}
	for i := range len(s) + 1 {
		if coarseMatch(pattern[1:], s[i:]) {
			return true
		}
	}
	return false
}

func TestReopen(t *testing.T) {
	later := t0.Add(time.Hour)
	archive := func(s *Stream, url, replaces string, last types.MessageIndex, count int64, missing ...Range) error {
		_, err := s.SetArchive(t0, Archive{StreamURL: url, IndexURL: url + ".index", LastIndex: last, EntryCount: count}, missing, replaces)
		return err
	}
	ended := &Stream{Prefix: new(Prefix)}
	if _, err := ended.Terminate(t0, known(3), Note{Reason: "killed"}); err != nil {
		t.Fatal(err)
	}
	if ended.Reopen(later) {
		t.Error("a stream was reopened that is not archived")
	}
	if err := archive(ended, "first", "", 1, 2); err != nil || ended.Phase != Incomplete {
		t.Fatalf("%+v, %v", ended, err)
	}
	if !ended.Reopen(later) || ended.Phase != Terminated || !ended.Reopened() || ended.Archived() || ended.Missing != nil || ended.EndReason != "killed" ||
		!ended.Updated.Equal(later) || !ended.Ended.Equal(t0) {
		t.Errorf("reopened: %+v", ended)
	}
	if err := archive(ended, "second", "", 3, 2); !fault.Is(err, fault.Precondition) {
		t.Errorf("an archive that does not have the entries of the first: %v", err)
	}
	if err := archive(ended, "second", "first", 3, 3, Range{First: 2, Last: 2}); err != nil || ended.Phase != Incomplete {
		t.Fatalf("%+v, %v", ended, err)
	}
	ended.Reopen(later)
	if err := archive(ended, "third", "second", 3, 4); err != nil || ended.Phase != Complete {
		t.Fatalf("%+v, %v", ended, err)
	}
	if diff := cmp.Diff([]Objects{{"first", "first.index"}, {"second", "second.index"}}, ended.Replaced); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if ended.Reopen(later) {
		t.Error("a complete stream was reopened")
	}

	silent := &Stream{Prefix: new(Prefix)}
	if err := archive(silent, "first", "", 1, 2); err != nil || silent.Phase != Incomplete || silent.EndReason == "" {
		t.Fatalf("%+v, %v", silent, err)
	}
	if !silent.Reopen(later) || silent.Phase != Open || !silent.Ended.IsZero() || silent.EndReason != "" || silent.LastIndex() != -1 {
		t.Errorf("reopened: %+v", silent)
	}
	if err := archive(silent, "second", "first", 2, 3); err != nil {
		t.Fatal(err)
	}
	silent.Purge(later)
	if silent.Reopen(later) {
		t.Error("a purged stream was reopened")
	}
}

func TestPurge(t *testing.T) {
	s := &Stream{Prefix: new(Prefix)}
	if changed, err := s.Undelete(t0, nil); changed || err != nil {
		t.Errorf("undelete of what is there: %v, %v", changed, err)
	}
	if !s.Purge(t0) || !s.Hidden() || s.Purge(t0.Add(time.Hour)) || !s.Purged.Equal(t0) {
		t.Errorf("purged: %+v", s)
	}
	removal := &Task{Kind: RemoveTask}
	if changed, err := s.Undelete(t0, removal); !changed || err != nil || s.Hidden() {
		t.Errorf("undelete: %v, %v, %+v", changed, err, s)
	}
	s.Purge(t0)
	removal.Lease(t0.Add(time.Minute))
	removal.HandBack(t0.Add(time.Hour), "", false)
	if changed, err := s.Undelete(t0, removal); changed || !fault.Is(err, fault.Precondition) {
		t.Errorf("undelete of what is being removed: %v, %v", changed, err)
	}
	s.Prefix.Expires = t0.Add(time.Hour)
	if !s.Prefix.Delete(t0) || s.Prefix.Delete(t0) || !s.Prefix.Expires.Equal(t0) {
		t.Errorf("deleted: %+v", s.Prefix)
	}
	if changed, err := s.Undelete(t0, nil); changed || !fault.Is(err, fault.Precondition) {
		t.Errorf("undelete below a deleted prefix: %v, %v", changed, err)
	}
	expired := &Prefix{Expires: t0.Add(-time.Hour)}
	if expired.Delete(t0); !expired.Expires.Equal(t0.Add(-time.Hour)) {
		t.Errorf("deletion put off the end of registration to %s", expired.Expires)
	}
}

func TestRetryTask(t *testing.T) {
	k := new(Task)
	k.Lease(t0.Add(time.Minute))
	if err := k.Retry(t0); !fault.Is(err, fault.Precondition) {
		t.Errorf("of a task that is worked on: %v", err)
	}
	if err := k.Retry(t0.Add(time.Minute)); err != nil || k.Failures != 0 || !k.LeaseEnd.IsZero() {
		t.Errorf("of a task whose lease has ended: %v, %+v", err, k)
	}
	k.Bury(t0, "hopeless")
	if err := k.Retry(t0.Add(time.Hour)); err != nil || !k.Dead.IsZero() || !k.Available.Equal(t0.Add(time.Hour)) || k.LastError != "hopeless" {
		t.Errorf("of a dead task: %v, %+v", err, k)
	}
}
