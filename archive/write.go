package archive

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// removeTimeout bounds the clean-up after a failure.
const removeTimeout = 10 * time.Second

// Params say what is archived and how.
type Params struct {
	Project types.Project
	// Desc is the descriptor, with prefix and name. It is not changed.
	Desc *logpb.LogStreamDescriptor
	// TerminalIndex is the index of the last entry as it was reported; negative is none or unknown. Entries up to it that
	// the source does not give are recorded as missing.
	TerminalIndex types.MessageIndex
	Density       Density
	// KeepUnordered raises a prefix index or sequence that is lower than the one before, as it is done with times, and the
	// entry is kept. Otherwise it is left out, as the reference does (spec archive 4.3), counted, and recorded as missing.
	KeepUnordered bool
}

// Density says which entries the index lists one by one, besides the first and the last: those that lie so far behind the
// one listed before. Zero disables a rule; all zero lists every entry. Reading does not need these: it goes by blocks.
type Density struct {
	StreamRange, PrefixRange, ByteRange int64
}

// Manifest tells what was written.
type Manifest struct {
	StreamURL, IndexURL   string
	StreamSize, IndexSize int64 // as stored

	EntryCount int64
	// LastIndex is the highest index archived; -1 if there is none.
	LastIndex types.MessageIndex
	// Missing are the ranges up to the terminal or the last index that are not there.
	Missing []Range
	// ContentSize is the bytes of content; Lines the lines of text, or the datagrams.
	ContentSize, Lines int64
	// Unreadable entries could not be parsed; Unordered ones were left out or, with KeepUnordered, changed.
	Unreadable, Unordered int64
	// Hash is the SHA-256 of the uncompressed entries file, in hex.
	Hash string
}

// Write archives the entries of source, which come in ascending order of their indices. The data of an entry is not kept
// longer than the iteration step. Both objects are there when it succeeds, and none when it fails.
func Write(ctx context.Context, b bucket.Bucket, p Params, source iter.Seq2[Entry, error]) (*Manifest, error) {
	path := types.StreamPath(p.Desc.GetPrefix() + "/+/" + p.Desc.GetName())
	if err := errors.Join(p.Project.Validate(), path.Validate()); err != nil {
		return nil, fault.New(fault.Invalid, "archive: write %s/%s: %w", p.Project, path, err)
	}
	entriesKey, indexKey := keys(p.Project, path, rand.Text())
	m, err := write(ctx, b, &p, source, entriesKey, indexKey)
	if err != nil {
		err = fmt.Errorf("archive: write %s/%s: %w", p.Project, path, err)
		return nil, errors.Join(err, remove(ctx, b, entriesKey, indexKey))
	}
	m.StreamURL, m.IndexURL = b.URL(entriesKey), b.URL(indexKey)
	return m, nil
}

func write(ctx context.Context, b bucket.Bucket, p *Params, source iter.Seq2[Entry, error], entriesKey, indexKey string) (*Manifest, error) {
	out, err := b.Create(ctx, entriesKey)
	if err != nil {
		return nil, err
	}
	defer out.Abort()
	w := writer{params: p, out: out, tally: newTally(), index: &logpb.LogIndex{Desc: p.Desc}}
	if err := w.run(source); err != nil {
		return nil, err
	}
	if err := out.Commit(); err != nil {
		return nil, err
	}

	w.finish()
	serialized, err := marshalIndex(w.index)
	if err != nil {
		return nil, fmt.Errorf("serialize the index: %w", err)
	}
	indexOut, err := b.Create(ctx, indexKey)
	if err != nil {
		return nil, err
	}
	defer indexOut.Abort()
	if _, err := indexOut.Write(serialized); err != nil {
		return nil, err
	}
	if err := indexOut.Commit(); err != nil {
		return nil, err
	}
	w.manifest.IndexSize = int64(len(serialized))
	return &w.manifest, nil
}

// writer holds the state of one Write.
type writer struct {
	params   *Params
	out      bucket.Writer
	tally    *tally
	gaps     gaps
	index    *logpb.LogIndex
	manifest Manifest

	block  []byte // uncompressed, not written yet
	first  uint64 // stream index of the first entry in block
	count  uint64 // entries in block
	stored []byte // reused
	offset uint64 // of the entries file: uncompressed bytes in the blocks before
	size   uint64 // of the entries file as stored

	lastTime time.Duration

	listed   *logpb.LogIndex_Entry // the last entry that the index lists
	passed   summary               // of the last entry written, and
	passedAt uint64                // the offset of its frame
	pending  int64                 // bytes of entries since listed
}

func (w *writer) run(source iter.Seq2[Entry, error]) error {
	desc, err := proto.MarshalOptions{Deterministic: true}.Marshal(w.params.Desc)
	if err != nil {
		return fault.New(fault.Invalid, "serialize the descriptor: %w", err)
	}
	if err := w.frame(desc); err != nil {
		return err
	}
	last := types.MessageIndex(-1)
	for e, err := range source {
		if err != nil {
			return fmt.Errorf("read entries behind index %d: %w", last, err)
		}
		if e.Index <= last {
			return fault.New(fault.Internal, "the source gave entry %d behind %d", e.Index, last)
		}
		last = e.Index
		if err := w.entry(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	return w.flush()
}

// entry normalizes and writes one entry, or records why not.
func (w *writer) entry(e Entry) error {
	if len(e.Data) > MaxFrame {
		return w.unreadable(e)
	}
	x, err := summarize(e.Data)
	if err != nil || x.stream != uint64(e.Index) {
		return w.unreadable(e)
	}
	data := e.Data
	changed := false
	t := w.tally
	if t.entries > 0 && (x.prefix < t.lastPrefix || x.sequence < t.lastSeq) {
		w.manifest.Unordered++
		if !w.params.KeepUnordered {
			w.gaps.lost(e.Index, ReasonUnordered)
			return nil
		}
		x.prefix, x.sequence = max(x.prefix, t.lastPrefix), max(x.sequence, t.lastSeq)
		changed = true
	}
	if at := x.at(); t.entries > 0 && at < w.lastTime {
		raised := durationpb.New(w.lastTime)
		x.timed, x.seconds, x.nanos = true, raised.GetSeconds(), int64(raised.GetNanos())
		changed = true
	} else {
		w.lastTime = at
	}
	if changed {
		if data, err = x.applyTo(data); err != nil {
			return fmt.Errorf("serialize: %w", err)
		}
	}
	if w.count == 0 {
		w.first = x.stream
	}
	w.count++
	w.list(&x, len(data))
	t.entry(&x)
	w.gaps.present(e.Index)
	return w.frame(data)
}

// unreadable records an entry that cannot be parsed.
func (w *writer) unreadable(e Entry) error {
	w.manifest.Unreadable++
	w.gaps.lost(e.Index, ReasonUnreadable)
	return nil
}

// list decides whether the index lists the entry, whose frame comes next (spec archive 4.3).
func (w *writer) list(e *summary, size int) {
	d := w.params.Density
	offset := w.offset + uint64(len(w.block))
	w.passed, w.passedAt = *e, offset
	w.pending += int64(size)
	far := func(now, before uint64, by int64) bool { return by > 0 && now-before >= uint64(by) }
	switch {
	case w.listed == nil:
		w.listed = e.listed(offset)
		w.index.Entries = append(w.index.Entries, w.listed)
		return // the first entry's size stays counted
	case d.StreamRange <= 0 && d.PrefixRange <= 0 && d.ByteRange <= 0:
	case far(e.stream, w.listed.StreamIndex, d.StreamRange):
	case far(e.prefix, w.listed.PrefixIndex, d.PrefixRange):
	case d.ByteRange > 0 && w.pending >= d.ByteRange:
	default:
		return
	}
	w.listed, w.pending = e.listed(offset), 0
	w.index.Entries = append(w.index.Entries, w.listed)
}

// frame adds a frame to the block, and writes the block when it is full.
func (w *writer) frame(payload []byte) error {
	if len(payload) > MaxFrame {
		return fault.New(fault.Invalid, "%d bytes; at most %d are allowed", len(payload), MaxFrame)
	}
	start := len(w.block)
	w.block = binary.AppendUvarint(w.block, uint64(len(payload)))
	w.tally.frame(w.block[start:], payload)
	w.block = append(w.block, payload...)
	if len(w.block) < blockSize {
		return nil
	}
	return w.flush()
}

// flush writes the block, if there is anything in it.
func (w *writer) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	w.stored = compressor().EncodeAll(w.block, w.stored[:0])
	if _, err := w.out.Write(w.stored); err != nil {
		return err
	}
	w.index.Blocks = append(w.index.Blocks, &logpb.LogIndex_Block{
		Offset:             w.size,
		Size:               uint64(len(w.stored)),
		UncompressedOffset: w.offset,
		UncompressedSize:   uint64(len(w.block)),
		FirstStreamIndex:   w.first,
		EntryCount:         w.count,
		Checksum:           crc32.Checksum(w.stored, castagnoli),
	})
	w.size += uint64(len(w.stored))
	w.offset += uint64(len(w.block))
	w.block, w.first, w.count = w.block[:0], 0, 0
	return nil
}

// finish completes index and manifest.
func (w *writer) finish() {
	if w.listed != nil && w.listed.GetOffset() != w.passedAt { // the last entry is always listed
		w.index.Entries = append(w.index.Entries, w.passed.listed(w.passedAt))
	}
	w.gaps.end(w.params.TerminalIndex)
	w.tally.hints(w.index)
	w.index.Missing = w.gaps.proto()
	w.manifest.StreamSize = int64(w.size)
	w.manifest.EntryCount = int64(w.tally.entries)
	w.manifest.LastIndex = w.tally.last()
	w.manifest.Missing = w.gaps.ranges
	w.manifest.ContentSize, w.manifest.Lines = int64(w.tally.contentSize), int64(w.tally.lineCount())
	w.manifest.Hash = w.tally.hash()
}
