package archivist

import (
	"context"
	"errors"
	"iter"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// A stream that was reopened has an archive, and in storage entries that came since, which are archived together. Entries that are in both
// places are the same.

// reopened returns the archive that the stream has, or nil if it has none.
func (a *Archivist) reopened(ctx context.Context, s *stream) (*archive.Stream, error) {
	if s.state.GetStreamUrl() == "" {
		return nil, nil
	}
	return a.open(ctx, s)
}

// withArchive gives the entries of an archive and of storage, each once.
func (a *Archivist) withArchive(ctx context.Context, s *stream, old *archive.Stream) iter.Seq2[archive.Entry, error] {
	return func(yield func(archive.Entry, error) bool) {
		next, stop := iter.Pull2(a.entries(ctx, s))
		defer stop()
		row, rowErr, ok := next()
		more := true
		// upTo gives the rows before an index.
		upTo := func(index types.MessageIndex) bool {
			for more && ok && (rowErr != nil || index < 0 || row.Index < index) {
				if more = yield(row, rowErr) && rowErr == nil; more {
					row, rowErr, ok = next()
				}
			}
			return more
		}
		err := old.Get(ctx, 0, 0, func(e archive.Entry) bool {
			if !upTo(e.Index) {
				return false
			}
			if ok && row.Index == e.Index {
				row, rowErr, ok = next()
			}
			more = yield(e, nil)
			return more
		})
		if err != nil {
			if more {
				yield(archive.Entry{}, err)
			}
			return
		}
		upTo(-1)
	}
}

// filled reports whether storage has every entry up to the end that an archive lacks, and the first that it does not have.
func (a *Archivist) filled(ctx context.Context, s *stream, old *archive.Stream) (bool, types.MessageIndex, error) {
	lacking := old.Missing()
	last := lastIndex(old)
	if n := len(lacking); n > 0 {
		last = max(last, lacking[n-1].Last)
	}
	if last < s.terminal {
		lacking = append(lacking[:len(lacking):len(lacking)], archive.Range{First: last + 1, Last: s.terminal})
	}
	for _, r := range lacking {
		next := r.First
		for more := true; more && next <= r.Last; {
			more = false
			err := a.Storage.Get(ctx, storage.GetRequest{Stream: s.name, Index: next, KeysOnly: true}, func(e storage.Entry) bool {
				if e.Index != next || next > r.Last {
					return false
				}
				more = true
				next++
				return true
			})
			if err != nil {
				return false, 0, err
			}
		}
		if next <= r.Last {
			return false, next, nil
		}
	}
	return true, 0, nil
}

// keepReasons gives ranges that were missing before for a reason, and still are, that reason.
func keepReasons(missing []*logdog.MissingRange, old *archive.Stream) {
	if old == nil {
		return
	}
	known := old.Missing()
	for _, m := range missing {
		for _, k := range known {
			if m.GetReason() == "" && k.Reason != "" && int64(k.First) <= m.GetFirst() && m.GetLast() <= int64(k.Last) {
				m.Reason = k.Reason
			}
		}
	}
}

// reopen has the Coordinator take an archived stream back, as a Collector does that gets entries of it. The task that asked to remove its
// entries from storage is not held any more.
func (a *Archivist) reopen(ctx context.Context, s *stream) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := a.Services.RegisterStream(ctx, &logdog.RegisterStreamRequest{
		Project: s.task.GetProject(), Secret: s.state.GetState().GetSecret(), ProtoVersion: protoVersion, Desc: s.state.GetDesc(),
		TerminalIndex: -1,
	})
	return fault.FromGRPC(err)
}

// remove removes all of the stream's data.
func (a *Archivist) remove(ctx context.Context, s *stream) error {
	if err := a.Storage.Expunge(ctx, s.name); err != nil {
		return err
	}
	err := a.removeReplaced(ctx, s)
	if s.state.GetStreamUrl() != "" {
		m := &archive.Manifest{StreamURL: s.state.GetStreamUrl(), IndexURL: s.state.GetIndexUrl()}
		err = errors.Join(err, a.discard(ctx, m))
	}
	return err
}

// removeReplaced removes the archives that a later one took the place of.
func (a *Archivist) removeReplaced(ctx context.Context, s *stream) error {
	for _, o := range s.state.GetReplaced() {
		if err := a.discard(ctx, &archive.Manifest{StreamURL: o.GetStreamUrl(), IndexURL: o.GetIndexUrl()}); err != nil {
			return err
		}
	}
	return nil
}
