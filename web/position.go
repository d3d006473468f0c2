package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// start is where a reader wants to begin: at a position, at a line, or so many lines before the end.
type start struct {
	at   position
	line int64
	tail int64
}

// parseStart reads the parameters index, line and tail, of which one may be given, and the header by which a browser resumes, which wins
// over them.
func parseStart(r *http.Request) (start, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		at, ok := parsePosition(id)
		if !ok {
			return start{}, fault.New(fault.Invalid, "Last-Event-ID is %q; it must be the id of an event of this stream", clip(id))
		}
		return start{at: at}, nil
	}
	var s start
	given := 0
	q := r.URL.Query()
	if index := q.Get("index"); index != "" {
		var ok bool
		if s.at, ok = parsePosition(index); !ok {
			return start{}, fault.New(fault.Invalid, "parameter index is %q; it must be a number of an entry, from 0, or the id of an event", clip(index))
		}
		given++
	}
	for name, value := range map[string]*int64{"line": &s.line, "tail": &s.tail} {
		n, err := parseNumber(q, name)
		if err != nil {
			return start{}, err
		}
		if n > 0 {
			*value = n
			given++
		}
	}
	if given > 1 {
		return start{}, fault.New(fault.Invalid, "parameters index, line and tail exclude each other; give one")
	}
	return s, nil
}

// parseNumber returns a parameter that counts from 1, or 0 when it is not given.
func parseNumber(q url.Values, name string) (int64, error) {
	s := q.Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, fault.New(fault.Invalid, "parameter %s is %q; it must be a number, at least 1", name, clip(s))
	}
	return n, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// tailBytes is about how much content a reader who begins near the end gets at once, however long the lines are.
const tailBytes = 1 << 20

// resolve returns the position in s where a reader begins.
func (h *handler) resolve(ctx context.Context, s *daybookv1.Stream, want start) (position, error) {
	end := max(s.GetNextIndex(), s.GetTerminalIndex()+1)
	switch {
	case want.line > 0:
		index, err := h.findLine(ctx, s, end, want.line-1)
		return position{index, min(want.line, s.GetLines()+1)}, err
	case want.tail > 0 && end > 0:
		var at position
		if want.tail < s.GetLines() {
			line := s.GetLines() - want.tail
			index, err := h.findLine(ctx, s, end, line)
			if err != nil {
				return position{}, err
			}
			at = position{index, line + 1}
		}
		perEntry := s.GetSize()/end + 1
		if near := end - max(1, tailBytes/perEntry); near > at.index {
			return h.wholeLine(ctx, s, position{near, at.line})
		}
		return at, nil
	}
	return want.at, nil
}

// wholeLine moves at, the begin of an entry, behind its first line if another follows: the entry may begin in the middle of that line,
// and a reader who asks later for what is before would never see the line's begin.
func (h *handler) wholeLine(ctx context.Context, s *daybookv1.Stream, at position) (position, error) {
	e, err := h.entryAt(ctx, s, at.index)
	if err != nil || e.GetText() == nil {
		return at, err
	}
	if next := int64(e.GetSequence()) + 2; next <= s.GetLines() {
		at.line = max(at.line, next)
	}
	return at, nil
}

// findLine returns the index of the first entry that holds a part of the line, counted from 0, or the last index when the stream is not
// that long yet. Entries know the number of their first line, so it is a search by halves, guided by the supposition that lines are
// spread evenly, which makes a handful of steps of what would else be twenty.
func (h *handler) findLine(ctx context.Context, s *daybookv1.Stream, end, line int64) (int64, error) {
	if line == 0 || end <= 1 {
		return 0, nil
	}
	// The entry at low ends before the line. The one at high does not, or is the last.
	low, high := int64(-1), end-1
	lowLine, highLine := int64(-1), max(s.GetLines(), line+1)
	for step := 0; high-low > 1; step++ {
		probe := low + (high-low)/2
		if step%2 == 0 {
			guess := low + int64(float64(high-low)*float64(line-lowLine)/float64(max(highLine-lowLine, 1)))
			probe = min(max(guess, low+1), high-1)
		}
		e, err := h.entryAt(ctx, s, probe)
		if err != nil {
			return 0, err
		}
		if e == nil || int64(e.GetStreamIndex()) >= high {
			high = probe // nothing between
			continue
		}
		if last := lastLine(e); last < line {
			low, lowLine = int64(e.GetStreamIndex()), last
		} else {
			high, highLine = probe, last
		}
	}
	return high, nil
}

// lastLine is the number of the last line that e holds a part of.
func lastLine(e *logpb.LogEntry) int64 {
	return int64(e.GetSequence()) + int64(max(len(e.GetText().GetLines()), 1)) - 1
}

// entryAt returns the first entry at index or, where that is missing, after it; nil if there is none.
func (h *handler) entryAt(ctx context.Context, s *daybookv1.Stream, index int64) (*logpb.LogEntry, error) {
	var found *logpb.LogEntry
	err := h.read(ctx, &daybookv1.FollowRequest{
		Project: s.GetProject(), Path: s.GetPath(), Index: index, BacklogOnly: true,
	}, func(res *daybookv1.FollowResponse) error {
		if len(res.GetLogs()) == 0 {
			return nil
		}
		found = res.GetLogs()[0]
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// errEnough ends read early.
var errEnough = errors.New("enough")
