package archivist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// archive writes, verifies and reports the archive of a stream. old is the archive that it has, or nil.
func (a *Archivist) archive(ctx context.Context, s *stream, old *archive.Stream) error {
	source := a.entries(ctx, s)
	if old != nil {
		source = a.withArchive(ctx, s, old)
	}
	b, err := a.Places.For(ctx, s.name.Project)
	if err != nil {
		return err
	}
	m, err := archive.Write(ctx, b, archive.Params{
		Project:       s.name.Project,
		Desc:          s.desc,
		TerminalIndex: s.terminal,
		Density:       a.density(s.name.Project),
		KeepUnordered: true,
	}, source)
	if err != nil {
		return err
	}
	if err := archive.Verify(ctx, b, m); err != nil {
		return errors.Join(err, archive.Remove(ctx, b, m))
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
		ReplacesUrl:   s.state.GetStreamUrl(),
	}
	for _, g := range m.Missing {
		r.Missing = append(r.Missing, &logdog.MissingRange{First: int64(g.First), Last: int64(g.Last), Reason: g.Reason})
	}
	keepReasons(r.Missing, old)
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

// density returns that of the indexes of a project's archives.
func (a *Archivist) density(project types.Project) archive.Density {
	d := a.ProjectDensity(project)
	d.StreamRange = cmp.Or(d.StreamRange, a.Density.StreamRange)
	d.PrefixRange = cmp.Or(d.PrefixRange, a.Density.PrefixRange)
	d.ByteRange = cmp.Or(d.ByteRange, a.Density.ByteRange)
	return d
}

// open opens the archive that the stream has.
func (a *Archivist) open(ctx context.Context, s *stream) (*archive.Stream, error) {
	b, err := a.Places.Of(ctx, s.state.GetStreamUrl())
	if err != nil {
		return nil, err
	}
	return archive.Open(ctx, b, s.state.GetStreamUrl(), s.state.GetIndexUrl())
}

// discard removes an archive.
func (a *Archivist) discard(ctx context.Context, m *archive.Manifest) error {
	b, err := a.Places.Of(ctx, m.StreamURL)
	if err != nil {
		return err
	}
	return archive.Remove(ctx, b, m)
}

// record reports an archive and finds out whether it is the one that counts. An archive that certainly does not is deleted;
// one that may yet be recorded is left where it is.
func (a *Archivist) record(ctx context.Context, s *stream, r *logdog.ArchiveStreamRequest) (recorded bool, err error) {
	reportErr := a.report(ctx, r)
	ours := &archive.Manifest{StreamURL: r.GetStreamUrl(), IndexURL: r.GetIndexUrl()}
	now, err := a.load(ctx, s.task, false)
	switch {
	case fault.Is(err, fault.NotFound):
		a.Logger.Info("archivist: the stream was removed meanwhile", "path", s.name)
		return false, a.discard(ctx, ours)
	case err != nil && reportErr == nil:
		return true, nil
	case err != nil:
		return false, errors.Join(reportErr, err)
	}
	switch url := now.GetStreamUrl(); {
	case url == r.GetStreamUrl() || url == "" && reportErr == nil && now.GetState().GetArchived():
		return true, nil
	case url != s.state.GetStreamUrl():
		a.Logger.Info("archivist: another archivist was first", "path", s.name)
		return false, a.discard(ctx, ours)
	case reportErr == nil:
		return false, fault.New(fault.Transient, "the coordinator took the archive of %s and does not show it", s.name)
	case fault.IsTransient(reportErr):
		return false, reportErr
	default:
		return false, errors.Join(reportErr, a.discard(ctx, ours))
	}
}

// entries gives the stream's entries in storage, up to its end. Data is valid during the step.
func (a *Archivist) entries(ctx context.Context, s *stream) iter.Seq2[archive.Entry, error] {
	return func(yield func(archive.Entry, error) bool) {
		next, more := types.MessageIndex(0), !s.state.GetState().GetTerminalEmpty()
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
// to end and has them all, and the archives that this one replaced. If storage has more, the stream is to be reopened.
func (a *Archivist) release(ctx context.Context, s *stream) (outcome, error) {
	rows := rows{storage: a.Storage, stream: s.name, last: s.terminal}
	if s.state.GetEndUnknown() {
		rows.last = math.MaxInt64
	}
	if err := rows.fill(ctx); err != nil {
		return outcome{}, err
	}
	if rows.end {
		return outcome{removed: true}, a.removeReplaced(ctx, s)
	}
	if s.state.GetStreamUrl() == "" {
		a.Logger.Warn("archivist: the stream counts as archived without an archive; its entries stay in storage", "path", s.name)
		return outcome{}, nil
	}
	archived, err := a.open(ctx, s)
	if err != nil {
		return outcome{}, err
	}
	if err := archived.Rebuilt(); err != nil {
		a.Logger.Error("archivist: the archive's index is damaged", "path", s.name, "index", s.state.GetIndexUrl(), "error", err)
	} else if err := countsAgree(s, archived); err != nil {
		return outcome{}, err
	}
	if err := a.compare(ctx, s, archived, &rows); err != nil {
		return outcome{}, err
	}
	if rows.lacking > 0 {
		reason := fmt.Sprintf("storage holds %d entries that the archive lacks, the first is %d: they are archived, too", rows.lacking, rows.first)
		a.Logger.Info("archivist: "+reason, "path", s.name)
		return outcome{retryAfter: reopenRetry, reason: reason, failed: true, reopen: s}, nil
	}
	if time.Since(s.begun) > a.LeaseTime/2 {
		// When the lease has ended the stream may be reopened, and what came since would go, too.
		return outcome{retryAfter: time.Millisecond, reason: "the archive was verified; its entries are removed from storage"}, nil
	}
	if err := a.Storage.Expunge(ctx, s.name); err != nil {
		return outcome{}, err
	}
	if rows.beyond > 0 { // no reader has ever shown them
		a.metrics.beyond.Add(float64(rows.beyond))
		a.Logger.Warn("archivist: entries behind the end of their stream are removed; whoever sent them had said that there are none",
			"path", s.name, "entries", rows.beyond, "end", s.terminal)
	}
	return outcome{removed: true}, a.removeReplaced(ctx, s)
}

// compare goes through the archive and the rows. An archive that took long to be read is not read a second time: its index tells what it has.
func (a *Archivist) compare(ctx context.Context, s *stream, archived *archive.Stream, rows *rows) error {
	if a.wasVerified(s.state.GetStreamUrl()) {
		for _, r := range archived.Missing() {
			if err := rows.within(ctx, r.First, r.Last); err != nil {
				return err
			}
		}
		return rows.within(ctx, lastIndex(archived)+1, math.MaxInt64)
	}
	var failed error
	err := archived.Get(ctx, 0, 0, func(e archive.Entry) bool {
		failed = rows.skip(ctx, e.Index)
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	a.setVerified(s.state.GetStreamUrl())
	return rows.skip(ctx, -1)
}

// lastIndex returns the index of the last entry of an archive; -1 if there is none.
func lastIndex(s *archive.Stream) types.MessageIndex {
	if s.Index().GetLogEntryCount() == 0 {
		return -1
	}
	return types.MessageIndex(s.Index().GetLastStreamIndex())
}

// reopenRetry is when a task is tried again that found entries which the archive lacks. Usually the stream is reopened before, which makes
// another task of it.
const reopenRetry = time.Minute

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
	last    types.MessageIndex // of the stream; -1 if it has none, and the highest of all if its end is not known

	page    []types.MessageIndex // not looked at yet
	next    types.MessageIndex   // behind the page
	end     bool                 // nothing is left
	lacking int                  // rows that skip passed over
	first   types.MessageIndex   // the first of them
	beyond  int                  // rows behind the end of the stream, which are none of its entries
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
		if err := r.lacks(ctx, row); err != nil {
			return err
		}
	}
}

// within counts the rows of a range that the archive lacks.
func (r *rows) within(ctx context.Context, first, last types.MessageIndex) error {
	for r.page, r.next, r.end = nil, first, false; ; {
		if err := r.fill(ctx); err != nil || r.end || r.page[0] > last {
			return err
		}
		row := r.page[0]
		r.page = r.page[1:]
		if err := r.lacks(ctx, row); err != nil {
			return err
		}
	}
}

// lacks counts a row that the archive lacks.
func (r *rows) lacks(ctx context.Context, row types.MessageIndex) error {
	if row > r.last {
		r.beyond++
		return nil
	}
	readable, err := r.readable(ctx, row)
	if err != nil || !readable {
		return err
	}
	if r.lacking == 0 {
		r.first = row
	}
	r.lacking++
	return nil
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
