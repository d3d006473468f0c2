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

// position is where a reader begins: at an index, at the entry that holds a line, or so many lines before the end.
type position struct {
	index int64
	line  int64
	tail  int64
}

// parsePosition reads the parameters index, line and tail, of which one may be given, and the header by which a browser resumes, which
// wins over them.
func parsePosition(r *http.Request) (position, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || n < 0 {
			return position{}, fault.New(fault.Invalid, "Last-Event-ID is %q; it must be the id of an event of this stream", clip(id))
		}
		return position{index: n}, nil
	}
	var p position
	given := 0
	for _, param := range []struct {
		name  string
		least int64
		value *int64
	}{{"index", 0, &p.index}, {"line", 1, &p.line}, {"tail", 1, &p.tail}} {
		n, ok, err := parseNumber(r.URL.Query(), param.name, param.least)
		if err != nil {
			return position{}, err
		}
		if ok {
			*param.value = n
			given++
		}
	}
	if given > 1 {
		return position{}, fault.New(fault.Invalid, "parameters index, line and tail exclude each other; give one")
	}
	return p, nil
}

func parseNumber(q url.Values, name string, least int64) (n int64, ok bool, err error) {
	s := q.Get(name)
	if s == "" {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(s, 10, 64)
	if err != nil || n < least {
		return 0, false, fault.New(fault.Invalid, "parameter %s is %q; it must be a number, at least %d", name, clip(s), least)
	}
	return n, true, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// tailBytes is about how much content a reader who begins near the end gets at once, however long the lines are.
const tailBytes = 1 << 20

// resolve returns the index where a reader at p begins in s.
func (h *handler) resolve(ctx context.Context, s *daybookv1.Stream, p position) (int64, error) {
	end := max(s.GetNextIndex(), s.GetTerminalIndex()+1)
	switch {
	case p.line > 0:
		return h.findLine(ctx, s, end, p.line-1)
	case p.tail > 0 && end > 0:
		var first int64
		if p.tail < s.GetLines() {
			var err error
			if first, err = h.findLine(ctx, s, end, s.GetLines()-p.tail); err != nil {
				return 0, err
			}
		}
		perEntry := s.GetSize()/end + 1
		return max(first, end-max(1, tailBytes/perEntry)), nil
	}
	return p.index, nil
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
