package disklog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// recover brings the log to the state that its directory describes, and begins a new segment.
func (l *Log) recover(ctx context.Context) error {
	for _, dir := range []string{logDir, checkpointDir, journalsDir, stagingDir} {
		if err := l.opts.FS.MkdirAll(l.path(dir)); err != nil {
			return err
		}
	}
	if err := l.opts.FS.SyncDir(l.dir); err != nil {
		return err
	}
	if err := l.clearStaging(); err != nil {
		return err
	}
	numbers, err := listSegments(l.opts.FS, l.path(logDir))
	if err != nil {
		return err
	}
	im, damaged, err := l.findCheckpoints()
	if err != nil {
		return err
	}
	if im == nil {
		if damaged || len(numbers) > 0 {
			return fault.New(fault.DataLoss, "there is a log but no intact checkpoint; restore %s from a copy, or if there is none, move it away to begin with empty journals", l.path())
		}
		if im, err = l.create(); err != nil {
			return err
		}
	}
	r := newReplay(l, im)
	if err := r.journals(im); err != nil {
		return err
	}
	if err := r.run(ctx, numbers); err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	if err := l.begin(r); err != nil {
		return err
	}
	if r.records > 0 {
		// A process that dies again and again must not pile up segments.
		return l.checkpoint()
	}
	return nil
}

// create draws an identity, and writes the checkpoint with which everything begins.
func (l *Log) create() (*image, error) {
	im := &image{
		identity: engine.Identity{Cluster: randomID(), Member: randomID()},
		nextID:   1, revision: 1, from: position{segment: 1},
	}
	return im, l.writeCheckpoint(im)
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, binary.LittleEndian.Uint64(b[:]))
}

// begin ends the last segment and starts a new one with a start record.
func (l *Log) begin(r *replay) error {
	l.identity = r.identity
	l.identity.Term++
	seq := r.seq
	if r.last.segment != 0 && !r.ended {
		f, err := l.opts.FS.Open(l.path(logDir, segmentName(r.last.segment)))
		if err != nil {
			return err
		}
		seq++
		err = writeEnd(f, r.last.segment, r.last.offset, seq)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	l.segments = &segments{
		fs: l.opts.FS, dir: l.path(logDir), size: l.opts.SegmentSize,
		next: max(r.last.segment, r.from.segment-1) + 1,
	}
	// Segments that were made ahead and never used have numbers that will be used now.
	all, err := listSegments(l.opts.FS, l.path(logDir))
	if err != nil {
		return err
	}
	for _, n := range all {
		if n >= l.segments.next {
			if err := l.opts.FS.Remove(l.segments.path(n)); err != nil {
				return err
			}
		}
	}
	if len(l.kept) > 0 {
		if err := l.segments.retireBefore(l.kept[0].from.segment); err != nil {
			return err
		}
	}
	seg, err := l.segments.make()
	if err != nil {
		return err
	}
	seq++
	b := appendRecord(nil, recordStart, seq, encodeStart(l.identity.Term), nil)
	seal(b, seg.number, 0)
	if err := seg.write(b, 0, l.opts.SegmentSize); err != nil {
		return errors.Join(err, seg.file.Close())
	}
	if err := seg.file.Sync(); err != nil {
		return errors.Join(err, seg.file.Close())
	}
	l.writer = &writer{
		segments: l.segments, metrics: l.metrics,
		maxBatch:  int(min(4<<20, l.opts.SegmentSize/4)),
		published: l.published,
		rotated: func() {
			select {
			case l.checkpoints <- struct{}{}:
			default:
			}
		},
		seq: seq, segment: seg, at: int64(len(b)),
		durable: position{seg.number, int64(len(b))},
		done:    make(chan struct{}),
	}
	l.writer.work.L = &l.writer.mu
	return nil
}

// writeEnd writes the record that ends a segment. It needs a sync.
func writeEnd(f vfs.File, number uint64, at int64, seq uint64) error {
	b := appendRecord(nil, recordEnd, seq, nil, nil)
	seal(b, number, uint32(at))
	if _, err := f.WriteAt(b, at); err != nil {
		return fmt.Errorf("end segment %s of the log: %w", segmentName(number), err)
	}
	return nil
}

// clearStaging removes what was on its way.
func (l *Log) clearStaging() error {
	// The names are like those of segments.
	numbers, err := listSegments(l.opts.FS, l.path(stagingDir))
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := l.opts.FS.Remove(l.path(stagingDir, segmentName(n))); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes the files in a directory.
func removeAll(fsys vfs.FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// replay is a recovery on its way.
type replay struct {
	log      *Log
	identity engine.Identity
	byID     map[uint64]*journal
	from     position

	seq     uint64   // the greatest sequence number seen
	prev    uint64   // that of the last record
	last    position // where the log ends
	ended   bool     // there is an end record at last
	records int
	// damaged is set once a record was lost.
	damaged bool
	buf     []byte
}

func newReplay(l *Log, im *image) *replay {
	return &replay{log: l, identity: im.identity, byID: make(map[uint64]*journal), from: im.from, seq: im.specsSeq}
}

// journals takes the journals of a checkpoint.
func (r *replay) journals(im *image) error {
	l := r.log
	l.nextID = im.nextID
	l.specs, l.specsSeq = &engine.Specs{Revision: im.revision}, im.specsSeq
	for _, ji := range im.journals {
		l.specs.All = append(l.specs.All, &ji.spec)
		j, err := r.journal(ji.id, protocol.Journal(ji.spec.GetName()), ji.spec.Created)
		if err != nil {
			return err
		}
		j.next = ji.state
		r.seq = max(r.seq, ji.state.seq)
	}
	return nil
}

// journal adds a journal, and the files that are in its directory.
func (r *replay) journal(id uint64, name protocol.Journal, created int64) (*journal, error) {
	l := r.log
	j := l.newJournal(id, name, created)
	l.nextID = max(l.nextID, id+1)
	l.journals[name] = j
	r.byID[id] = j
	entries, err := l.opts.FS.ReadDir(j.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		begin, ok := parseContentName(name, e.Name())
		if !ok || j.files[begin] != nil && filepath.Ext(e.Name()) == openSuffix {
			continue
		}
		j.files[begin] = &content{files: &l.files, dir: j.dir, begin: begin, name: e.Name()}
	}
	return j, nil
}

// run replays the segments.
func (r *replay) run(ctx context.Context, numbers []uint64) error {
	expect := r.from.segment
	var todo []uint64
	for _, n := range numbers {
		if n >= expect {
			todo = append(todo, n)
		}
	}
	for _, n := range todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := readInto(r.log.opts.FS, r.log.path(logDir, segmentName(n)), &r.buf)
		if err != nil {
			// A segment that cannot be read is as good as one with damage all over.
			r.report(n, 0, "cannot be read", err)
			continue
		}
		at := int64(0)
		if n == r.from.segment {
			at = min(r.from.offset, int64(len(b)))
		}
		if at == 0 && !r.used(b, n) {
			continue
		}
		if n != expect {
			r.report(n, 0, "the segment before is missing", nil)
		}
		if r.last.segment != 0 && !r.ended && r.last.segment == n-1 {
			r.report(n-1, r.last.offset, "records before the end of the segment are missing", nil)
		}
		r.segment(b, n, at)
		expect = n + 1
	}
	if expect == r.from.segment && r.from.offset > 0 {
		r.report(expect, r.from.offset, "the segment is missing", nil)
	}
	if r.last.segment != 0 && !r.ended {
		r.torn()
	}
	return nil
}

// used reports whether a segment has a record at all.
func (r *replay) used(b []byte, number uint64) bool {
	if _, _, ok := parseRecord(b, number); ok {
		return true
	}
	// A first record that is damaged has others behind it, written later; a torn one has not.
	_, ok := findRecord(b, 0, number, r.prev, true)
	return ok
}

// segment replays the records of a segment from an offset on.
func (r *replay) segment(b []byte, number uint64, at int64) {
	r.ended = false
	for {
		rec, size, ok := parseRecord(b[at:], number)
		if !ok || rec.seq <= r.prev {
			next, found := findRecord(b, at, number, r.prev, true)
			if !found {
				r.last = position{number, at}
				return
			}
			r.report(number, at, fmt.Sprintf("%d bytes are damaged", next-at), nil)
			at = next
			continue
		}
		r.seq = max(r.seq, rec.seq)
		if rec.typ == recordEnd {
			// The records that made the segment too small had their numbers before the end got its own. They are in the next one.
			r.last, r.ended = position{number, at}, true
			return
		}
		r.prev = rec.seq
		r.records++
		r.log.metrics.replayedBytes.Add(float64(size))
		if err := r.apply(rec); err != nil {
			r.report(number, at, "the record cannot be applied", err)
		}
		at += int64(size)
	}
}

// findRecord looks for a record behind a place without one. With proof, it must prove that there was one: it was written
// after everything before it had been synced. Records without that proof belong to the same write as the place, and were
// never acknowledged.
func findRecord(b []byte, at int64, number, seq uint64, proof bool) (next int64, ok bool) {
	for next = at + 8; next+headerSize <= int64(len(b)); next += 8 {
		// What was never written is zero, and there may be a lot of it.
		if block := int64(len(zeros)); next%block == 0 && next+block <= int64(len(b)) && bytes.Equal(b[next:next+block], zeros[:]) {
			next += block - 8
			continue
		}
		if rec, _, ok := parseRecord(b[next:], number); ok && rec.seq > seq && (!proof || int64(rec.base) > at) {
			return next, true
		}
	}
	return 0, false
}

// torn tells whether there is anything behind the end of the log, which means that a write was cut short.
func (r *replay) torn() {
	path := r.log.path(logDir, segmentName(r.last.segment))
	b, err := readInto(r.log.opts.FS, path, &r.buf)
	if err != nil || int64(len(b)) < r.last.offset+headerSize {
		return
	}
	whole := nearHeader(b[r.last.offset:][:headerSize], r.last.segment)
	_, found := findRecord(b, r.last.offset, r.last.segment, r.prev, false)
	if whole || found {
		r.log.metrics.tornTails.Inc()
		r.log.opts.Logger.Warn("journal log: the last write is not whole and was dropped; a crash cut it short, and none of it had been acknowledged, unless the disk is failing",
			"segment", segmentName(r.last.segment), "offset", r.last.offset)
	}
}

// nearHeader reports whether b is a header, or would be one but for a bit that the disk has changed.
func nearHeader(b []byte, segment uint64) bool {
	h := bytes.Clone(b)
	valid := func() bool { return binary.LittleEndian.Uint32(h) == headerSum(h, segment) }
	if valid() {
		return true
	}
	for bit := range 8 * len(h) {
		h[bit/8] ^= 1 << (bit % 8)
		if valid() {
			return true
		}
		h[bit/8] ^= 1 << (bit % 8)
	}
	return false
}

func (r *replay) report(segment uint64, at int64, what string, err error) {
	r.damaged = true
	r.log.metrics.damages.Inc()
	r.log.opts.Logger.Error("journal log: damaged: "+what, "segment", segmentName(segment), "offset", at, "error", err)
}

// finish checks the files against the states, removes what nobody needs, and publishes the states.
func (r *replay) finish() error {
	for _, j := range r.log.journals {
		if err := r.check(j); err != nil {
			return err
		}
		j.durable.Store(j.next)
	}
	entries, err := r.log.opts.FS.ReadDir(r.log.path(journalsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 16, 64)
		if err != nil || r.byID[id] != nil || !e.IsDir() {
			continue
		}
		dir := r.log.path(journalsDir, e.Name())
		if err := errors.Join(removeAll(r.log.opts.FS, dir), r.log.opts.FS.Remove(dir)); err != nil {
			return err
		}
	}
	return nil
}

// readInto reads a file into buf, which grows as needed.
func readInto(fsys vfs.FS, path string, buf *[]byte) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if int64(cap(*buf)) < size {
		*buf = make([]byte, size)
	}
	b := (*buf)[:size]
	err = readFull(f, b)
	return b, errors.Join(err, f.Close())
}
