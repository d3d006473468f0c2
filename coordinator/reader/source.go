package reader

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// A read that fails transiently is tried again this often in a row, after pauses that double from the first to the last.
const (
	maxRetries = 8
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// recent is a stream in storage, read as if it were an archive.
type recent struct {
	storage storage.Storage
	stream  storage.Stream
}

func (s recent) Get(ctx context.Context, index types.MessageIndex, limit int, cb storage.GetCallback) error {
	return s.storage.Get(ctx, storage.GetRequest{Stream: s.stream, Index: index, Limit: limit}, cb)
}

func (s recent) Tail(ctx context.Context) (storage.Entry, error) {
	return s.storage.Tail(ctx, s.stream)
}

// open opens the stream where it is by its state.
func (r *Reader) open(ctx context.Context, s *state.Stream) (Archive, error) {
	rows := recent{r.storage, storageKey(s)}
	if !s.Archived() && !s.Reopened() {
		return rows, nil
	}
	a, err := r.archives.Open(ctx, s.Archive.StreamURL, s.Archive.IndexURL)
	if err != nil {
		return nil, readError(s, err)
	}
	if s.Reopened() || s.Phase == state.Incomplete {
		// Collectors that have not heard yet that the stream was archived may store some of what it lacks.
		return merged{a, rows}, nil
	}
	return a, nil
}

// look calls fn with the stream's entries. If the stream has moved meanwhile, from storage to the archive or from one archive to
// another, what fn saw and its error mean nothing, and it is called again. The state returned is the one that fn saw.
func (r *Reader) look(ctx context.Context, s *state.Stream, fn func(s *state.Stream, entries Archive) error) (*state.Stream, error) {
	for {
		err := r.lookOnce(ctx, s, fn)
		now, lerr := r.store.Stream(ctx, s.Prefix.Project, s.ID)
		if lerr != nil {
			return nil, lerr
		}
		if now.Archived() == s.Archived() && now.Archive.StreamURL == s.Archive.StreamURL {
			return s, err
		}
		s = now
	}
}

func (r *Reader) lookOnce(ctx context.Context, s *state.Stream, fn func(s *state.Stream, entries Archive) error) error {
	entries, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	return fn(s, entries)
}

// wanted selects entries.
type wanted struct {
	// index is the first wanted.
	index types.MessageIndex
	// bytes bounds the sizes of the entries together; the first one is taken whatever its size.
	bytes int
	// count is the most entries wanted; zero or less is no limit.
	count int
	// gaps goes on behind missing entries.
	gaps bool
}

// stop is why a read stopped.
type stop int

const (
	// atEnd: there is nothing more.
	atEnd stop = iota
	// atLimit: what was found fills the bounds, and there may be more.
	atLimit
	// atGap: the next entry is missing, and there is one behind it.
	atGap
)

// read returns entries in order.
func read(ctx context.Context, s *state.Stream, entries Archive, w wanted) (logs []*logpb.LogEntry, why stop, err error) {
	next, size, failures := w.index, 0, 0
	for {
		begin := len(logs)
		var bad error
		why = atEnd
		err := entries.Get(ctx, next, max(w.count-len(logs), 0), func(e storage.Entry) bool {
			switch {
			case e.Index < next:
				return true
			case e.Index > next && !w.gaps:
				why = atGap
				return false
			case len(logs) > 0 && size+len(e.Data) > w.bytes:
				why = atLimit
				return false
			}
			entry := new(logpb.LogEntry)
			if bad = proto.Unmarshal(e.Data, entry); bad != nil {
				return false
			}
			logpb.FitDuration(entry.GetTimeOffset())
			logs = append(logs, entry)
			size += len(e.Data)
			next = e.Index + 1
			if len(logs) == w.count {
				why = atLimit
			}
			return why == atEnd
		})
		if bad != nil {
			return nil, atEnd, fault.New(fault.DataLoss, "entry %d of %s is damaged: %w", next, s.Path(), bad)
		}
		progress := len(logs) > begin
		if err != nil && why != atLimit {
			if progress {
				failures = 0
			}
			if failures++; !fault.Is(err, fault.Transient) || failures > maxRetries || pause(ctx, failures) != nil {
				return nil, atEnd, readError(s, err)
			}
			continue
		}
		// Storage may stop early for its own reasons, so only a read that gives nothing tells the end.
		if why != atEnd || !progress {
			return logs, why, nil
		}
	}
}

// pause waits before the next attempt after that many failures.
func pause(ctx context.Context, failures int) error {
	t := time.NewTimer(min(firstPause<<(failures-1), lastPause))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tail returns the last entry, or nil if there is none.
func tail(ctx context.Context, s *state.Stream, entries Archive) (*logpb.LogEntry, error) {
	for failures := 1; ; failures++ {
		e, err := entries.Tail(ctx)
		switch {
		case err == nil:
			entry := new(logpb.LogEntry)
			if err := proto.Unmarshal(e.Data, entry); err != nil {
				return nil, fault.New(fault.DataLoss, "entry %d of %s is damaged: %w", e.Index, s.Path(), err)
			}
			logpb.FitDuration(entry.GetTimeOffset())
			return entry, nil
		case fault.Is(err, fault.NotFound):
			return nil, nil
		case !fault.Is(err, fault.Transient) || failures > maxRetries || pause(ctx, failures) != nil:
			return nil, readError(s, err)
		}
	}
}

// readError says which stream could not be read. An archive that is gone is no stream that does not exist, and an address that is none
// is not the caller's mistake.
func readError(s *state.Stream, err error) error {
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		return fault.New(fault.DataLoss, "read %s: %w", s.Path(), err)
	}
	return fmt.Errorf("read %s: %w", s.Path(), err)
}

func storageKey(s *state.Stream) storage.Stream {
	return storage.Stream{Project: s.Prefix.Project, Path: s.Path()}
}
