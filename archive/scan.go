package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// scanner reads an entries object from its first byte to its last, without an index.
type scanner struct {
	// visit is called for each entry with the offset of its frame.
	visit func(offset uint64, e *summary) error

	desc   *logpb.LogStreamDescriptor
	blocks []*logpb.LogIndex_Block
	tally  *tally
	gaps   gaps
	size   uint64 // as stored
	offset uint64 // uncompressed
}

func scan(ctx context.Context, b bucket.Bucket, key string, visit func(offset uint64, e *summary) error) (*scanner, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, gone(err)
	}
	defer r.Close()
	s := &scanner{visit: visit, tally: newTally()}
	in := bufio.NewReaderSize(r, 256<<10)
	var stored, plain []byte
	for {
		frame, err := readZstdFrame(in, stored)
		if errors.Is(err, io.EOF) && len(s.blocks) > 0 {
			return s, nil
		}
		if err == nil {
			stored = frame
			plain, err = s.block(stored, plain)
		}
		if err != nil {
			return nil, damaged(err, len(s.blocks), s.size, key)
		}
	}
}

// gone turns a missing object, which somebody was told of, into lost data.
func gone(err error) error {
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.DataLoss, err)
	}
	return err
}

// damaged names the block that could not be read. Failures of the bucket keep their kind; all else is damage.
func damaged(err error, block int, offset uint64, key string) error {
	kind := fault.KindOf(err)
	if kind == fault.Internal {
		kind = fault.DataLoss
	}
	return fault.New(kind, "block %d at byte %d of %s: %w", block, offset, key, err)
}

// block takes the next block apart. plain is reused.
func (s *scanner) block(stored, plain []byte) ([]byte, error) {
	plain, err := decompressor().DecodeAll(stored, plain[:0])
	if err != nil {
		return nil, err
	}
	x := &logpb.LogIndex_Block{
		Offset: s.size, Size: uint64(len(stored)), Checksum: crc32.Checksum(stored, castagnoli),
		UncompressedOffset: s.offset, UncompressedSize: uint64(len(plain)),
	}
	for rest := plain; len(rest) > 0; {
		payload, next, err := cutFrame(rest)
		if err != nil {
			return nil, err
		}
		s.tally.frame(rest[:len(rest)-len(next)-len(payload)], payload)
		if err := s.frame(payload, x); err != nil {
			return nil, fmt.Errorf("frame at uncompressed byte %d: %w", s.offset, err)
		}
		s.offset += uint64(len(rest) - len(next))
		rest = next
	}
	s.size += uint64(len(stored))
	s.blocks = append(s.blocks, x)
	return plain, nil
}

func (s *scanner) frame(payload []byte, x *logpb.LogIndex_Block) error {
	if s.desc == nil {
		s.desc = new(logpb.LogStreamDescriptor)
		return proto.Unmarshal(payload, s.desc)
	}
	e, err := summarize(payload)
	if err != nil {
		return err
	}
	index := types.MessageIndex(e.stream)
	if index <= s.tally.last() {
		return fmt.Errorf("entry %d lies behind entry %d", e.stream, s.tally.last())
	}
	if x.EntryCount == 0 {
		x.FirstStreamIndex = e.stream
	}
	x.EntryCount++
	s.tally.entry(&e)
	s.gaps.present(index)
	return s.visit(s.offset, &e)
}

// rebuild makes an index from the entries alone. It lists no entries one by one, and cannot know of what is missing at
// the end.
func rebuild(ctx context.Context, b bucket.Bucket, key string) (*logpb.LogIndex, error) {
	s, err := scan(ctx, b, key, func(uint64, *summary) error { return nil })
	if err != nil {
		return nil, err
	}
	x := &logpb.LogIndex{Desc: s.desc, Blocks: s.blocks, Missing: s.gaps.proto()}
	s.tally.hints(x)
	return x, nil
}

// Rebuild makes the index of an archive from its entries object, and reads all of it to do so. The reader does that by itself
// when an index is missing or damaged.
func Rebuild(ctx context.Context, b bucket.Bucket, streamURL string) (*logpb.LogIndex, error) {
	key, err := b.KeyOf(streamURL)
	if err == nil {
		var x *logpb.LogIndex
		if x, err = rebuild(ctx, b, key); err == nil {
			return x, nil
		}
	}
	return nil, fmt.Errorf("archive: rebuild the index of %s: %w", streamURL, err)
}

// Verify reads the archive back entirely and compares everything in it with what was written: all checksums, the content's
// hash, the index, and the counts. What does not agree is DataLoss.
func Verify(ctx context.Context, b bucket.Bucket, m *Manifest) error {
	if err := verify(ctx, b, m); err != nil {
		return fmt.Errorf("archive: verify %s: %w", m.StreamURL, err)
	}
	return nil
}

func verify(ctx context.Context, b bucket.Bucket, m *Manifest) error {
	key, err := b.KeyOf(m.StreamURL)
	if err != nil {
		return err
	}
	x, size, err := loadIndex(ctx, b, m.IndexURL)
	if err != nil {
		return gone(err)
	}
	listed := x.GetEntries()
	s, err := scan(ctx, b, key, func(offset uint64, e *summary) error {
		if len(listed) == 0 || listed[0].GetOffset() != offset {
			return nil
		}
		want := e.listed(offset)
		if !proto.Equal(listed[0], want) {
			return fmt.Errorf("the index lists %v; the entry is %v", listed[0], want)
		}
		listed = listed[1:]
		return nil
	})
	if err != nil {
		return err
	}
	if len(listed) > 0 {
		return fault.New(fault.DataLoss, "the index lists an entry at %d, where none is", listed[0].GetOffset())
	}
	got := Manifest{
		StreamURL: m.StreamURL, IndexURL: m.IndexURL, StreamSize: int64(s.size), IndexSize: size,
		EntryCount: int64(s.tally.entries), LastIndex: s.tally.last(), Missing: rangesOf(x),
		ContentSize: int64(s.tally.contentSize), Lines: int64(s.tally.lineCount()), Hash: s.tally.hash(),
		Unreadable: m.Unreadable, Unordered: m.Unordered,
	}
	if !reflect.DeepEqual(*m, got) {
		return fault.New(fault.DataLoss, "read back %+v; written was %+v", got, *m)
	}
	want := &logpb.LogIndex{Desc: s.desc, Entries: x.Entries, Blocks: s.blocks, Missing: x.Missing, Checksum: x.Checksum}
	s.tally.hints(want)
	if !proto.Equal(x, want) {
		return fault.New(fault.DataLoss, "the index does not agree with the entries")
	}
	return nil
}

func rangesOf(x *logpb.LogIndex) []Range {
	var out []Range
	for _, r := range x.GetMissing() {
		out = append(out, Range{First: types.MessageIndex(r.GetFirst()), Last: types.MessageIndex(r.GetLast()), Reason: r.GetReason()})
	}
	return out
}
