package state

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// maxIndex keeps the arithmetic of ranges from overflowing.
const maxIndex = math.MaxInt64 - 2

const (
	// maxReason is the most bytes of an end's reason that are kept.
	maxReason = 1 << 10
	// maxEndTags is how many tags an end may bring.
	maxEndTags = 16
)

// Terminate records the reported end of the stream. It reports whether that changed anything: the same end may be reported again,
// another one is refused.
//
// A stream that was archived before its end was known takes the end too, and is judged anew.
func (s *Stream) Terminate(now time.Time, end End, note Note) (changed bool, err error) {
	if !end.Known || end.Index < -1 || end.Index > maxIndex {
		return false, fault.New(fault.Invalid, "terminal index %d is not an index", end.Index)
	}
	if s.End.Known {
		if s.End != end {
			return false, fault.New(fault.Precondition, "stream has already ended, with index %d; %d is refused", s.End.Index, end.Index)
		}
		return false, nil
	}
	if err := s.addTags(note.Tags); err != nil {
		return false, err
	}
	s.End, s.EndReason = end, clip(note.Reason)
	s.Updated = now
	if s.Archived() {
		s.judge()
		return true, nil
	}
	s.Phase = Terminated
	s.Ended = now
	return true, nil
}

// addTags adds tags to the descriptor. What is no tag, or more than a stream takes, is left out: it is no reason to refuse the end.
func (s *Stream) addTags(tags map[string]string) error {
	if len(tags) == 0 {
		return nil
	}
	d := new(logpb.LogStreamDescriptor)
	if err := proto.Unmarshal(s.Descriptor, d); err != nil {
		return fault.New(fault.Internal, "descriptor of stream %s: %w", s.ID, err)
	}
	if d.Tags == nil {
		d.Tags = make(map[string]string, len(tags))
	}
	added := 0
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if _, ok := d.Tags[k]; ok || types.ValidateTag(k, tags[k]) != nil || added == maxEndTags {
			continue
		}
		d.Tags[k] = tags[k]
		added++
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	s.Descriptor = raw
	return err
}

// clip makes a reason a short text: it ends at the end of a character, and holds no NUL, which is none to PostgreSQL.
func clip(reason string) string {
	reason = strings.ReplaceAll(reason[:min(len(reason), maxReason)], "\x00", "")
	return strings.ToValidUTF8(reason, "")
}

// noEnd is why a stream ended whose end nobody reported.
const noEnd = "no end was reported, and nothing came any more"

// SetArchive records that the stream is archived. Whether it is complete is decided here, by the reported end and by what the
// archive holds. It reports whether that changed anything: a second report is ignored.
//
// The archive of a stream that was reopened has the entries of the archive that the stream had before, whose URL is replaces: one that
// was made without them is refused.
func (s *Stream) SetArchive(now time.Time, a Archive, missing []Range, replaces string) (changed bool, err error) {
	if s.Archived() {
		return false, nil
	}
	if replaces != s.Archive.StreamURL {
		return false, fault.New(fault.Precondition, "the archive does not have the entries of the one that the stream has already")
	}
	if a.LastIndex < -1 || a.LastIndex > maxIndex || a.EntryCount < 0 || a.EntryCount > int64(a.LastIndex)+1 {
		return false, fault.New(fault.Invalid, "an archive with last index %d cannot hold %d entries", a.LastIndex, a.EntryCount)
	}
	last := a.LastIndex
	if s.End.Known {
		last = s.End.Index
	}
	if err := checkRanges(missing, last); err != nil {
		return false, err
	}
	if old := s.Archive; old.StreamURL != "" && old.StreamURL != a.StreamURL {
		s.Replaced = append(s.Replaced, Objects{StreamURL: old.StreamURL, IndexURL: old.IndexURL})
	}
	a.At = now
	s.Archive, s.Missing, s.Updated = a, missing, now
	if s.Ended.IsZero() {
		s.Ended = now
	}
	if !s.End.Known {
		s.EndReason = noEnd
	}
	s.judge()
	return true, nil
}

// judge decides between Complete and Incomplete, and notes the entries that are missing at the end.
func (s *Stream) judge() {
	end := s.LastIndex()
	from := s.Archive.LastIndex + 1
	if n := len(s.Missing); n > 0 {
		from = max(from, s.Missing[n-1].Last+1)
	}
	if from <= end {
		s.Missing = append(s.Missing, Range{First: from, Last: end})
	}
	// Of a stream whose end was never reported nobody knows whether it is whole.
	if s.End.Known && len(s.Missing) == 0 && s.Archive.EntryCount > int64(end) {
		s.Phase = Complete
	} else {
		s.Phase = Incomplete
	}
}

// checkRanges demands ascending ranges up to last that do not overlap.
func checkRanges(ranges []Range, last types.MessageIndex) error {
	next := types.MessageIndex(0)
	for _, r := range ranges {
		if r.First < next || r.Last < r.First || r.Last > last {
			return fault.New(fault.Invalid, "missing range %d to %d is out of order or beyond the end %d", r.First, r.Last, last)
		}
		next = r.Last + 1
	}
	return nil
}

// Reopen takes an archived stream back to where it gets more entries, because some come. It reports whether that changed anything: nothing
// can be added to a stream that is complete, and nothing is to be added to one that is hidden. The archive stays a part of the stream, and
// readers read it together with what is in storage.
func (s *Stream) Reopen(now time.Time) bool {
	if s.Phase != Incomplete || s.Hidden() {
		return false
	}
	s.Phase = Terminated
	if !s.End.Known {
		s.Phase, s.Ended, s.EndReason = Open, time.Time{}, ""
	}
	s.Missing, s.Updated = nil, now
	return true
}

// Reopened reports whether the stream has an archive, and gets or got more entries since.
func (s *Stream) Reopened() bool { return !s.Archived() && s.Archive.StreamURL != "" }

// Purge hides the stream from everyone but administrators. It reports whether that changed anything.
func (s *Stream) Purge(now time.Time) bool {
	if !s.Purged.IsZero() {
		return false
	}
	s.Purged, s.Updated = now, now
	return true
}

// Undelete shows a purged stream again. removal is its task, if there is one: once that was given out, parts of the stream may be gone, and
// there is no way back.
func (s *Stream) Undelete(now time.Time, removal *Task) (changed bool, err error) {
	switch {
	case s.Purged.IsZero():
		return false, nil
	case !s.Prefix.Deleted.IsZero():
		return false, fault.New(fault.Precondition, "the prefix of the stream was deleted, which cannot be undone")
	case removal != nil && removal.Attempts > 0:
		return false, fault.New(fault.Precondition, "the removal of the stream has begun, which cannot be undone")
	}
	s.Purged, s.Updated = time.Time{}, now
	return true, nil
}

// Delete ends the registration of streams below the prefix, and hides those that are there. It reports whether that changed anything.
func (p *Prefix) Delete(now time.Time) bool {
	if !p.Deleted.IsZero() {
		return false
	}
	p.Deleted = now
	if now.Before(p.Expires) {
		p.Expires = now
	}
	return true
}

// Lease hands the task to someone until the given time. It counts as a failure until the holder says otherwise.
func (t *Task) Lease(until time.Time) {
	t.Available, t.LeaseEnd = until, until
	t.Attempts++
	t.Failures++
}

// HandBack returns a leased task, to be leased again at the given time. Unless the attempt failed, it is not held against the task.
func (t *Task) HandBack(at time.Time, reason string, failed bool) {
	if !t.LeaseEnd.IsZero() && !failed {
		t.Failures--
	}
	t.Available, t.LeaseEnd = at, time.Time{}
	if reason != "" {
		t.LastError = clip(reason)
	}
}

// Bury gives the task up.
func (t *Task) Bury(now time.Time, reason string) {
	t.Dead, t.LeaseEnd = now, time.Time{}
	if reason != "" {
		t.LastError = clip(reason)
	}
}

// Retry makes the task what it was when it was new. A task that somebody works on is left to them.
func (t *Task) Retry(now time.Time) error {
	if t.LeaseEnd.After(now) {
		return fault.New(fault.Precondition, "task %d is being worked on until %s", t.Seq, t.LeaseEnd.Format(time.RFC3339))
	}
	t.Available, t.LeaseEnd, t.Dead, t.Failures = now, time.Time{}, time.Time{}, 0
	return nil
}

// String names the phase.
func (p Phase) String() string {
	names := [...]string{"open", "terminated", "complete", "incomplete"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("phase %d", int(p))
	}
	return names[p]
}

// String names the kind.
func (k TaskKind) String() string {
	names := [...]string{"archive", "expunge", "remove"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}
