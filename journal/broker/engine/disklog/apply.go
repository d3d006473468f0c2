package disklog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Specs returns the specs of all journals.
func (l *Log) Specs() *engine.Specs {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.specs
}

// AwaitSpecs returns the specs once their revision is greater than after.
func (l *Log) AwaitSpecs(ctx context.Context, after int64) (*engine.Specs, error) {
	changed, stop := l.specsHub.Watch(struct{}{})
	defer stop()
	for {
		if specs := l.Specs(); specs.Revision > after {
			return specs, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// apply is a change of specs on its way into the log.
type apply struct {
	log     *Log
	specs   *engine.Specs
	created []*journal
	deleted []*journal
	seq     uint64
}

func (a *apply) ordered(seq uint64) {
	a.seq = seq
	for _, j := range a.created {
		j.next.seq = seq
		j.durable.Store(j.next)
	}
}

func (a *apply) publish() {
	l := a.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.specs, l.specsSeq = a.specs, a.seq
	for _, j := range a.deleted {
		delete(l.journals, j.name)
		delete(l.dirty, j)
	}
	for _, j := range a.created {
		l.journals[j.name] = j
	}
}

// Apply changes specs. Journals that are deleted take no appends until it is known whether they are.
func (l *Log) Apply(ctx context.Context, changes []*protocol.ApplyRequest_Change) (int64, error) {
	l.applyMu.Lock()
	defer l.applyMu.Unlock()
	if err := l.writer.failure(); err != nil {
		return 0, fmt.Errorf("apply specs: %w", err)
	}
	// The specs are kept; the messages are the caller's.
	changes = slices.Clone(changes)
	for i, c := range changes {
		changes[i] = proto.Clone(c).(*protocol.ApplyRequest_Change)
	}
	old := l.Specs()
	specs, err := old.Apply(changes)
	if err != nil {
		return 0, err
	}
	if specs == old {
		return old.Revision, nil
	}
	a := &apply{log: l, specs: specs}
	record := l.resolve(a, changes)
	for _, j := range a.deleted {
		j.mu.Lock()
		defer j.mu.Unlock()
	}
	b, err := l.writer.enqueue(l.writer.current(), recordApply, encodeApply(specs.Revision, record), nil, a)
	if err != nil {
		return 0, fmt.Errorf("apply specs: %w", err)
	}
	// Not given up with the caller's context, since the locks must be held until the outcome is known.
	if err := l.writer.await(context.WithoutCancel(ctx), b); err != nil {
		return 0, fmt.Errorf("apply specs: %w", err)
	}
	var names []protocol.Journal
	var errs []error
	for _, j := range a.deleted {
		j.gone = true
		names = append(names, j.name)
		errs = append(errs, l.removeJournal(j))
	}
	if err := errors.Join(errs...); err != nil {
		// The deletion is durable; the next start removes what is left.
		l.opts.Logger.Warn("journal log: cannot remove the files of a deleted journal", "error", err)
	}
	l.hub.Wake(names...)
	l.specsHub.Wake(struct{}{})
	return specs.Revision, nil
}

// resolve turns requested changes into those of the record, and finds the journals that begin and end with them. Deleted ones
// are ascending by name, which is the order in which they are locked.
func (l *Log) resolve(a *apply, changes []*protocol.ApplyRequest_Change) []specChange {
	var record []specChange
	for _, c := range changes {
		if c.GetUpsert() == nil {
			if j, err := l.journal(protocol.Journal(c.GetDelete())); err == nil {
				a.deleted = append(a.deleted, j)
				record = append(record, specChange{journal: j.id, created: j.created})
			}
			continue
		}
		name := protocol.Journal(c.GetUpsert().GetName())
		j, err := l.journal(name)
		if err != nil {
			j = l.newJournal(l.nextID, name, a.specs.Revision)
			l.nextID++
			a.created = append(a.created, j)
		}
		record = append(record, specChange{journal: j.id, created: j.created, spec: c.GetUpsert()})
	}
	slices.SortFunc(a.deleted, func(x, y *journal) int { return strings.Compare(string(x.name), string(y.name)) })
	return record
}

func (l *Log) newJournal(id uint64, name protocol.Journal, created int64) *journal {
	return &journal{
		id: id, name: name, created: created,
		dir:   journalDir(l.dir, id),
		next:  new(state),
		files: make(map[protocol.Offset]*content),
	}
}

// removeJournal removes the files of a deleted journal, as soon as nobody reads them. The directory stays if there are
// readers, until the next start.
func (l *Log) removeJournal(j *journal) error {
	var errs []error
	for _, c := range j.allContents() {
		errs = append(errs, j.dropContent(c.begin))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := l.opts.FS.Remove(j.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.opts.Logger.Debug("journal log: directory of a deleted journal stays until the next start", "journal", j.name, "error", err)
	}
	return nil
}
