package archivist

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// archive writes, verifies and reports the archive of a stream.
func (a *Archivist) archive(ctx context.Context, s *stream) error {
	m, err := archive.Write(ctx, a.Bucket, archive.Params{
		Project:       s.name.Project,
		Desc:          s.desc,
		TerminalIndex: s.terminal,
		Density:       a.Density,
		KeepUnordered: true,
	}, a.entries(ctx, s))
	if err != nil {
		return err
	}
	if err := archive.Verify(ctx, a.Bucket, m); err != nil {
		return errors.Join(err, archive.Remove(ctx, a.Bucket, m))
	}
	r := &logdog.ArchiveStreamRequest{
		Project:       s.task.GetProject(),
		Id:            s.task.GetId(),
		LogEntryCount: m.EntryCount,
		TerminalIndex: int64(max(s.terminal, m.LastIndex)),
		StreamUrl:     m.StreamURL,
		StreamSize:    m.StreamSize,
		IndexUrl:      m.IndexURL,
		IndexSize:     m.IndexSize,
		ContentSize:   m.ContentSize,
		Lines:         m.Lines,
	}
	for _, g := range m.Missing {
		r.Missing = append(r.Missing, &logdog.MissingRange{First: int64(g.First), Last: int64(g.Last), Reason: g.Reason})
	}
	recorded, err := a.record(ctx, s, r)
	if !recorded {
		return err
	}
	a.metrics.archived(s, m)
	if m.Unreadable+m.Unordered > 0 || len(m.Missing) > 0 {
		a.Logger.Warn("archivist: stream archived with faults", "path", s.name, "entries", m.EntryCount,
			"missing_ranges", len(m.Missing), "unreadable", m.Unreadable, "unordered", m.Unordered)
	} else {
		a.Logger.Debug("archivist: stream archived", "path", s.name, "entries", m.EntryCount, "bytes", m.StreamSize)
	}
	return nil
}

// record reports an archive and finds out whether it is the one that counts. An archive that certainly does not is deleted;
// one that may yet be recorded is left where it is.
func (a *Archivist) record(ctx context.Context, s *stream, r *logdog.ArchiveStreamRequest) (recorded bool, err error) {
	reportErr := a.report(ctx, r)
	now, err := a.load(ctx, s.task, false)
	if err != nil {
		if reportErr == nil {
			return true, nil
		}
		return false, errors.Join(reportErr, err)
	}
	ours := &archive.Manifest{StreamURL: r.GetStreamUrl(), IndexURL: r.GetIndexUrl()}
	switch url := now.GetStreamUrl(); {
	case now.GetState().GetArchived() && (url == r.GetStreamUrl() || url == "" && reportErr == nil):
		return true, nil
	case now.GetState().GetArchived() && url != "":
		a.Logger.Info("archivist: another archivist was first", "path", s.name)
		return false, archive.Remove(ctx, a.Bucket, ours)
	case reportErr == nil:
		return false, fault.New(fault.Transient, "the coordinator took the archive of %s and does not show it", s.name)
	case fault.IsTransient(reportErr):
		return false, reportErr
	default:
		return false, errors.Join(reportErr, archive.Remove(ctx, a.Bucket, ours))
	}
}

// entries gives the stream's entries in storage, up to its end. Data is valid during the step.
func (a *Archivist) entries(ctx context.Context, s *stream) iter.Seq2[archive.Entry, error] {
	return func(yield func(archive.Entry, error) bool) {
		next, more := types.MessageIndex(0), true
		for more {
			before := next
			err := a.Storage.Get(ctx, storage.GetRequest{Stream: s.name, Index: next}, func(e storage.Entry) bool {
				more = (s.terminal < 0 || e.Index <= s.terminal) && yield(archive.Entry(e), nil)
				next = e.Index + 1
				return more
			})
			if err != nil {
				yield(archive.Entry{}, err)
				return
			}
			// A Get may stop early; only one that gives nothing is the end.
			more = more && next > before
		}
	}
}

// release removes the entries of an archived stream from storage, after it made sure that the archive can be read from end
// to end and has them all.
func (a *Archivist) release(ctx context.Context, s *stream) error {
	rows := rows{storage: a.Storage, stream: s.name}
	if err := rows.fill(ctx); err != nil {
		return err
	}
	if rows.end {
		return nil
	}
	if s.state.GetStreamUrl() == "" {
		a.Logger.Warn("archivist: the stream counts as archived without an archive; its entries stay in storage", "path", s.name)
		return nil
	}
	archived, err := archive.Open(ctx, a.Bucket, s.state.GetStreamUrl(), s.state.GetIndexUrl())
	if err != nil {
		return err
	}
	if err := archived.Rebuilt(); err != nil {
		a.Logger.Error("archivist: the archive's index is damaged", "path", s.name, "index", s.state.GetIndexUrl(), "error", err)
	} else if err := countsAgree(s, archived); err != nil {
		return err
	}
	var failed error
	err = archived.Get(ctx, 0, 0, func(e archive.Entry) bool {
		failed = rows.skip(ctx, e.Index)
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if err := rows.skip(ctx, -1); err != nil {
		return err
	}
	if rows.lacking > 0 {
		return fault.New(fault.Precondition, "storage holds %d entries of %s that its archive lacks, the first is %d: they stay", rows.lacking, s.name, rows.first)
	}
	return a.Storage.Expunge(ctx, s.name)
}

// countsAgree compares the archive with the stream's end. A damaged index that was rebuilt does not know of all that is missing.
func countsAgree(s *stream, archived *archive.Stream) error {
	missing := archived.Missing()
	if s.terminal < 0 || len(missing) >= archive.MaxMissing {
		return nil
	}
	total := int64(archived.Index().GetLogEntryCount())
	for _, r := range missing {
		total += int64(r.Last-r.First) + 1
	}
	if total != int64(s.terminal)+1 {
		return fault.New(fault.DataLoss, "the archive of %s accounts for %d entries; the stream has %d", s.name, total, s.terminal+1)
	}
	return nil
}

// rows walks through the indices of a stream in storage.
type rows struct {
	storage storage.Storage
	stream  storage.Stream

	page    []types.MessageIndex // not looked at yet
	next    types.MessageIndex   // behind the page
	end     bool                 // nothing is left
	lacking int                  // rows that skip passed over
	first   types.MessageIndex   // the first of them
}

// fill gets the next page if there is none.
func (r *rows) fill(ctx context.Context) error {
	if len(r.page) > 0 || r.end {
		return nil
	}
	const pageSize = 4096
	err := r.storage.Get(ctx, storage.GetRequest{Stream: r.stream, Index: r.next, Limit: pageSize, KeysOnly: true}, func(e storage.Entry) bool {
		r.page = append(r.page, e.Index)
		r.next = e.Index + 1
		return true
	})
	r.end = err == nil && len(r.page) == 0
	return err
}

// skip goes behind index, or to the end if it is negative, and counts the rows before it, which the archive lacks. Rows that
// cannot be parsed do not count: the archive tells of them.
func (r *rows) skip(ctx context.Context, index types.MessageIndex) error {
	for {
		if err := r.fill(ctx); err != nil || r.end {
			return err
		}
		row := r.page[0]
		if index >= 0 && row > index {
			return nil
		}
		r.page = r.page[1:]
		if row == index {
			return nil
		}
		readable, err := r.readable(ctx, row)
		if err != nil {
			return err
		}
		if readable {
			if r.lacking == 0 {
				r.first = row
			}
			r.lacking++
		}
	}
}

func (r *rows) readable(ctx context.Context, index types.MessageIndex) (readable bool, err error) {
	err = r.storage.Get(ctx, storage.GetRequest{Stream: r.stream, Index: index, Limit: 1}, func(e storage.Entry) bool {
		parsed := new(logpb.LogEntry)
		readable = e.Index == index && proto.Unmarshal(e.Data, parsed) == nil && parsed.GetStreamIndex() == uint64(index)
		return false
	})
	if err != nil {
		return false, fmt.Errorf("look at entry %d: %w", index, err)
	}
	return readable, nil
}
