package disklog

import (
	"bytes"
	"crypto/sha1"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// A checkpoint is a magic, the fields that encode writes, and the CRC-32C of all that. It is named by the number of the
// segment and the offset from which on the log is to be replayed.
var checkpointMagic = []byte(checkpointKind + "3\n")

const checkpointKind = "daybook journal checkpoint "

// errVersion says that a checkpoint is intact and its version another one.
var errVersion = errors.New("it was written by another version of the program")

const checkpointTemp = ".new"

// checkpointFile is a checkpoint on disk.
type checkpointFile struct {
	name string
	from position
}

// image is what a checkpoint says.
type image struct {
	identity engine.Identity
	nextID   uint64
	from     position
	revision int64
	specsSeq uint64
	journals []journalImage
}

// journalImage is a journal in a checkpoint. Its state may include records after the checkpoint's position; the state's
// sequence number tells which.
type journalImage struct {
	id    uint64
	spec  engine.Spec
	state *state
}

func (im *image) encode() []byte {
	b := bytes.Clone(checkpointMagic)
	for _, v := range []uint64{
		im.identity.Cluster, im.identity.Member, im.identity.Term, im.nextID,
		im.from.segment, uint64(im.from.offset), uint64(im.revision), im.specsSeq, uint64(len(im.journals)),
	} {
		b = binary.AppendUvarint(b, v)
	}
	for i := range im.journals {
		b = im.journals[i].append(b)
	}
	return sealImage(b)
}

func sealImage(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (j *journalImage) append(b []byte) []byte {
	b = binary.AppendUvarint(b, j.id)
	b = binary.AppendUvarint(b, uint64(j.spec.Created))
	b = binary.AppendUvarint(b, uint64(j.spec.Modified))
	b = appendMessage(b, j.spec.JournalSpec)
	s := j.state
	b = binary.AppendUvarint(b, s.seq)
	b = binary.AppendUvarint(b, uint64(s.head))
	b = appendMessage(b, s.registers)
	b = binary.AppendUvarint(b, uint64(len(s.finished)))
	for i, f := range s.finished {
		b = appendSums(appendFragment(b, f), s.sums[i])
	}
	b = binary.AppendUvarint(b, uint64(len(s.stored)))
	for _, f := range s.stored {
		b = appendStored(b, f)
	}
	b = binary.AppendUvarint(b, uint64(s.trimmed))
	b = binary.AppendUvarint(b, uint64(len(s.damaged)))
	for _, d := range s.damaged {
		b = binary.AppendUvarint(b, uint64(d.begin))
		b = binary.AppendUvarint(b, uint64(d.end))
	}
	if s.open == nil {
		return append(b, 0)
	}
	b = appendSums(appendFragment(append(b, 1), *s.open), s.blocks.all())
	if s.hash == nil {
		return appendBytes(b, nil)
	}
	h, err := s.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("disklog: the state of SHA-1 cannot be marshalled: " + err.Error())
	}
	return appendBytes(b, h)
}

func decodeImage(b []byte) (*image, error) {
	body := len(b) - crc32.Size
	if body < 0 || crc32.Checksum(b[:body], castagnoli) != binary.LittleEndian.Uint32(b[body:]) {
		return nil, errors.New("the checksum does not match")
	}
	rest, ok := bytes.CutPrefix(b[:body], checkpointMagic)
	if !ok && bytes.HasPrefix(b, []byte(checkpointKind)) {
		return nil, errVersion
	}
	if !ok {
		return nil, errors.New("this is no checkpoint")
	}
	d := decoder{b: rest}
	im := &image{
		identity: engine.Identity{Cluster: d.uint(), Member: d.uint(), Term: d.uint()},
		nextID:   d.uint(),
		from:     position{d.uint(), d.int()},
		revision: d.int(),
		specsSeq: d.uint(),
	}
	const least = 12 // bytes of a journal
	for range d.count(least) {
		im.journals = append(im.journals, d.journal())
	}
	return im, d.end()
}

// journal takes a journal.
func (d *decoder) journal() (j journalImage) {
	j.id = d.uint()
	j.spec = engine.Spec{Created: d.int(), Modified: d.int(), JournalSpec: new(protocol.JournalSpec)}
	d.message(j.spec.JournalSpec)
	s := &state{seq: d.uint(), head: d.offset()}
	j.state = s
	registers := new(protocol.LabelSet)
	if d.message(registers); len(registers.GetLabels()) != 0 {
		s.registers = registers
	}
	const least = sha1.Size + 6 // bytes of a fragment
	for range d.count(least + 1) {
		f := d.fragment()
		s.finished, s.sums = append(s.finished, f), append(s.sums, d.sums(f.Len()))
	}
	for range d.count(least + 2) {
		s.stored = append(s.stored, d.storedFragment())
	}
	s.trimmed = d.offset()
	for range d.count(2) {
		s.damaged = append(s.damaged, span{d.offset(), d.offset()})
	}
	if d.uint() == 0 {
		return j
	}
	open := d.fragment()
	s.open = &open
	s.blocks = openSums(d.sums(open.Len()), open.Len())
	if h := d.bytes(); len(h) != 0 {
		s.hash = sha1.New()
		if s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(h) != nil {
			d.fail()
		}
	}
	return j
}

// openSums returns the sums of a fragment that grows from those of all its blocks.
func openSums(sums []uint32, size int64) blockSums {
	if sums == nil {
		return blockSums{}
	}
	b := blockSums{full: sums, size: size}
	if size%blockSize != 0 {
		b.full, b.tail = sums[:len(sums)-1:len(sums)-1], sums[len(sums)-1]
	}
	return b
}

// checkpointer writes checkpoints when asked, and from time to time when something has changed. It runs in its own goroutine.
func (l *Log) checkpointer() {
	defer close(l.stopped)
	ticker := time.NewTicker(l.opts.CheckpointInterval)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.checkpoints:
		case <-ticker.C:
		}
		if !l.changed() || l.writer.failure() != nil {
			continue
		}
		if err := l.checkpoint(); err != nil {
			// The log keeps its segments, and the next attempt makes up for this one.
			l.opts.Logger.Error("journal log: cannot write a checkpoint", "error", err)
		}
	}
}

// changed reports whether there is something in the log that the last checkpoint does not have.
func (l *Log) changed() bool {
	l.checkMu.Lock()
	defer l.checkMu.Unlock()
	n := len(l.kept)
	return n == 0 || l.kept[n-1].from != l.writer.position()
}

// checkpoint writes a checkpoint and retires the segments that neither it nor the one before needs. The order matters: first
// the position is taken, then the states, then their content is synced, and then the checkpoint is written.
func (l *Log) checkpoint() error {
	l.checkMu.Lock()
	defer l.checkMu.Unlock()
	im, dirty := l.image()
	for _, j := range dirty {
		if err := l.settle(j); err != nil {
			if !passes(err) {
				// What could not be synced cannot be told from what was: the error is as final as one of the log.
				l.writer.kill(err)
				err = l.writer.failure()
			}
			l.remain(dirty)
			return err
		}
	}
	err := l.writer.failure() // which may be that of a file that is not among these
	if err == nil {
		err = l.writeCheckpoint(im)
	}
	if err != nil {
		l.remain(dirty)
		return err
	}
	l.metrics.checkpoints.Inc()
	return l.retire()
}

// remain leaves journals to the next checkpoint.
func (l *Log) remain(dirty []*journal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range dirty {
		l.dirty[j] = struct{}{}
	}
}

// image returns what the checkpoint will say, and the journals that changed since the last one.
func (l *Log) image() (*image, []*journal) {
	from := l.writer.position()
	l.applyMu.Lock()
	nextID := l.nextID
	l.applyMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	im := &image{identity: l.identity, nextID: nextID, from: from, revision: l.specs.Revision, specsSeq: l.specsSeq}
	for _, spec := range l.specs.All {
		j := l.journals[protocol.Journal(spec.GetName())]
		im.journals = append(im.journals, journalImage{id: j.id, spec: *spec, state: j.durable.Load()})
	}
	dirty := make([]*journal, 0, len(l.dirty))
	for j := range l.dirty {
		dirty = append(dirty, j)
	}
	clear(l.dirty)
	return im, dirty
}

// settle syncs the content of a journal, and gives the files of finished fragments their final names.
func (l *Log) settle(j *journal) error {
	s := j.durable.Load()
	var unnamed []*content
	for _, c := range j.allContents() {
		if err := c.sync(); err != nil {
			if c.isRemoved() {
				continue
			}
			return fmt.Errorf("sync a fragment of %s: %w", j.name, err)
		}
		if i, ok := slices.BinarySearchFunc(s.finished, c.begin, compareBegin); ok {
			l.finish(j, c, s.finished[i])
		}
		c.mu.Lock()
		if !c.named {
			unnamed = append(unnamed, c)
		}
		c.mu.Unlock()
	}
	if len(unnamed) == 0 {
		return nil
	}
	if err := l.syncNames(j, unnamed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func compareBegin(f engine.Fragment, begin protocol.Offset) int {
	return int(min(1, max(-1, f.Begin-begin)))
}

// finish gives the file of a finished fragment its name. It is tried again with the next checkpoint, since where open
// files cannot be renamed a reader may be in the way.
func (l *Log) finish(j *journal, c *content, f engine.Fragment) {
	name := finishedName(f)
	c.mu.Lock()
	done := c.name == name
	c.mu.Unlock()
	if done {
		return
	}
	err := c.trim(f.Len())
	if err == nil {
		err = c.rename(name)
	}
	if err != nil && !c.isRemoved() {
		l.opts.Logger.Warn("journal log: cannot finish the file of a fragment yet", "journal", j.name, "fragment", name, "error", err)
		l.markDirty(j)
	}
}

func (c *content) isRemoved() bool {
	c.files.mu.Lock()
	defer c.files.mu.Unlock()
	return c.removed
}

func checkpointName(from position) string {
	return fmt.Sprintf("%016x-%08x", from.segment, from.offset)
}

func (l *Log) writeCheckpoint(im *image) error {
	name := checkpointName(im.from)
	if n := len(l.kept); n > 0 && l.kept[n-1].name == name {
		return nil
	}
	if err := writeFile(l.opts.FS, l.path(checkpointDir), name, im.encode()); err != nil {
		return fmt.Errorf("write checkpoint %s: %w", name, err)
	}
	l.kept = append(l.kept, checkpointFile{name, im.from})
	return nil
}

// writeFile makes a file appear with all of its content, durably.
func writeFile(fsys vfs.FS, dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	f, err := fsys.Create(path + checkpointTemp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(path+checkpointTemp))
	}
	if err := fsys.Rename(path+checkpointTemp, path); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// retire removes checkpoints but the last two, and gives back the segments that these do not need.
func (l *Log) retire() error {
	for len(l.kept) > 2 {
		if err := l.opts.FS.Remove(l.path(checkpointDir, l.kept[0].name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a checkpoint: %w", err)
		}
		l.kept = l.kept[1:]
	}
	if len(l.kept) < 2 {
		return nil
	}
	// The removal must not be undone by a crash once the segments are used again.
	if err := l.opts.FS.SyncDir(l.path(checkpointDir)); err != nil {
		return fmt.Errorf("remove a checkpoint: %w", err)
	}
	return l.segments.retireBefore(l.kept[0].from.segment)
}

// findCheckpoints finds the intact checkpoints, and returns the image of the last. Unfinished ones are removed.
func (l *Log) findCheckpoints() (last *image, damaged bool, err error) {
	entries, err := l.opts.FS.ReadDir(l.path(checkpointDir))
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		var at position
		if n, err := fmt.Sscanf(strings.TrimSuffix(e.Name(), checkpointTemp), "%016x-%08x", &at.segment, &at.offset); n != 2 || err != nil ||
			checkpointName(at) != strings.TrimSuffix(e.Name(), checkpointTemp) {
			continue // not ours
		}
		path := l.path(checkpointDir, e.Name())
		if strings.HasSuffix(e.Name(), checkpointTemp) {
			if err := l.opts.FS.Remove(path); err != nil {
				return nil, false, err
			}
			continue
		}
		var buf []byte
		b, err := readInto(l.opts.FS, path, &buf)
		var im *image
		if err == nil {
			im, err = decodeImage(b)
		}
		if errors.Is(err, errVersion) {
			return nil, false, fault.New(fault.Precondition, "%s: %w; use that one, or another directory", path, err)
		}
		if err != nil {
			damaged = true
			l.metrics.damages.Inc()
			l.opts.Logger.Error("journal log: a checkpoint is damaged and will not be used", "checkpoint", e.Name(), "error", err)
			continue
		}
		last = im
		l.kept = append(l.kept, checkpointFile{e.Name(), im.from})
	}
	return last, damaged, nil
}
