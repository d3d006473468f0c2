package archive

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/render"
	"github.com/daybook-dev/daybook/logs/types"
)

// maxCached is the largest index, in blocks and listed entries, that a Reader remembers: about 1 MiB.
const maxCached = 10_000

// Reader opens archives and remembers the indexes of those opened last.
type Reader struct {
	places  *Places
	streams *lru.Cache[string, *Stream]
}

// NewReader returns a reader that remembers up to n indexes, which must be positive.
func NewReader(places *Places, n int) (*Reader, error) {
	streams, err := lru.New[string, *Stream](n)
	if err != nil {
		return nil, fault.New(fault.Invalid, "archive: remember %d indexes: %w", n, err)
	}
	return &Reader{places, streams}, nil
}

// Open opens an archive by the URLs that its Manifest gave.
func (r *Reader) Open(ctx context.Context, streamURL, indexURL string) (*Stream, error) {
	if s, ok := r.streams.Get(streamURL); ok {
		return s, nil
	}
	b, err := r.places.Of(ctx, streamURL)
	if err != nil {
		return nil, err
	}
	s, err := Open(ctx, b, streamURL, indexURL)
	if err == nil && len(s.index.GetBlocks())+len(s.index.GetEntries()) <= maxCached {
		r.streams.Add(streamURL, s)
	}
	return s, err
}

// SignedURL returns an address from which anybody can get an archive's object, as named by its Manifest, for a time. The error is of kind
// Unimplemented if the bucket has no such addresses.
func (r *Reader) SignedURL(ctx context.Context, url string, ttl time.Duration) (string, error) {
	b, err := r.places.Of(ctx, url)
	if err != nil {
		return "", err
	}
	key, err := b.KeyOf(url)
	if err != nil {
		return "", fmt.Errorf("archive: sign: %w", err)
	}
	return b.SignedURL(ctx, key, ttl)
}

// Stream reads an archived stream. It holds nothing that has to be closed.
type Stream struct {
	bucket  bucket.Bucket
	key     string // of the entries
	index   *logpb.LogIndex
	blocks  []*logpb.LogIndex_Block // those with entries
	rebuilt error
}

// Open opens an archive by the URLs that its Manifest gave. Without the index, or with a damaged one, it reads the whole
// archive once to make another.
func Open(ctx context.Context, b bucket.Bucket, streamURL, indexURL string) (*Stream, error) {
	s, err := open(ctx, b, streamURL, indexURL)
	if err != nil {
		return nil, fmt.Errorf("archive: open %s: %w", streamURL, err)
	}
	return s, nil
}

func open(ctx context.Context, b bucket.Bucket, streamURL, indexURL string) (*Stream, error) {
	key, err := b.KeyOf(streamURL)
	if err != nil {
		return nil, err
	}
	s := &Stream{bucket: b, key: key}
	s.index, _, err = loadIndex(ctx, b, indexURL)
	switch fault.KindOf(err) {
	case fault.NotFound, fault.DataLoss, fault.Invalid:
		s.rebuilt = err
		s.index, err = rebuild(ctx, b, key)
	}
	if err != nil {
		return nil, err
	}
	for _, x := range s.index.GetBlocks() {
		if x.GetEntryCount() > 0 {
			s.blocks = append(s.blocks, x)
		}
	}
	return s, nil
}

// loadIndex reads an index object, and returns its size too.
func loadIndex(ctx context.Context, b bucket.Bucket, url string) (*logpb.LogIndex, int64, error) {
	key, err := b.KeyOf(url)
	if err != nil {
		return nil, 0, err
	}
	info, err := b.Stat(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	if info.Size > maxIndex {
		return nil, 0, fault.New(fault.Invalid, "index %s has %d bytes; at most %d are read", key, info.Size, maxIndex)
	}
	serialized := make([]byte, info.Size)
	if err := bucket.ReadFull(ctx, b, key, 0, serialized); err != nil {
		return nil, 0, err
	}
	x, err := unmarshalIndex(serialized)
	if err == nil {
		err = checkBlocks(x)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("index %s: %w", key, err)
	}
	return x, info.Size, nil
}

// checkBlocks makes sure that the blocks follow each other and have sizes that may be allocated.
func checkBlocks(x *logpb.LogIndex) error {
	var offset, uncompressed, entries uint64
	next := uint64(0)
	for i, b := range x.GetBlocks() {
		if b.GetOffset() != offset || b.GetUncompressedOffset() != uncompressed || b.GetSize() > maxStored || b.GetUncompressedSize() > maxBlock ||
			b.GetEntryCount() > 0 && b.GetFirstStreamIndex() < next {
			return fault.New(fault.DataLoss, "block %d does not follow the one before", i)
		}
		offset += b.GetSize()
		uncompressed += b.GetUncompressedSize()
		entries += b.GetEntryCount()
		if b.GetEntryCount() > 0 {
			next = b.GetFirstStreamIndex() + b.GetEntryCount()
		}
	}
	if entries != x.GetLogEntryCount() {
		return fault.New(fault.DataLoss, "the blocks hold %d entries, the archive %d", entries, x.GetLogEntryCount())
	}
	return nil
}

// Index returns the index. It must not be changed.
func (s *Stream) Index() *logpb.LogIndex { return s.index }

// Rebuilt returns why the index had to be rebuilt; nil if it had not.
func (s *Stream) Rebuilt() error { return s.rebuilt }

// Missing returns the ranges of indices that the archive does not hold.
func (s *Stream) Missing() []Range { return rangesOf(s.index) }

// Get calls cb for each entry with an index of at least index, in ascending order, until cb returns false or limit entries
// were given; a limit of zero or less is none. Data belongs to the callee. Only the blocks that are needed are read.
func (s *Stream) Get(ctx context.Context, index types.MessageIndex, limit int, cb func(Entry) bool) error {
	if err := s.get(ctx, index, limit, cb); err != nil {
		return fmt.Errorf("archive: get from index %d: %w", index, err)
	}
	return nil
}

func (s *Stream) get(ctx context.Context, index types.MessageIndex, limit int, cb func(Entry) bool) error {
	from := uint64(max(index, 0))
	if len(s.blocks) == 0 || from > s.index.GetLastStreamIndex() {
		return nil
	}
	// The last block that begins at or before the index, and as many behind it as can be needed.
	first := max(sort.Search(len(s.blocks), func(i int) bool { return s.blocks[i].GetFirstStreamIndex() > from })-1, 0)
	end := len(s.blocks)
	if limit > 0 {
		end = first + 1
		for n := uint64(0); end < len(s.blocks) && n < uint64(limit); end++ {
			n += s.blocks[end].GetEntryCount()
		}
	}
	given := 0
	return s.read(ctx, s.blocks[first:end], func(e Entry) bool {
		if uint64(e.Index) < from {
			return true
		}
		given++
		return cb(e) && given != limit
	})
}

// Tail returns the last entry. A stream without entries has none: NotFound.
func (s *Stream) Tail(ctx context.Context) (Entry, error) {
	if len(s.blocks) == 0 {
		return Entry{}, fault.New(fault.NotFound, "archive: the stream has no entries")
	}
	var last Entry
	err := s.read(ctx, s.blocks[len(s.blocks)-1:], func(e Entry) bool { last = e; return true })
	if err != nil {
		return Entry{}, fmt.Errorf("archive: tail: %w", err)
	}
	last.Data = slices.Clone(last.Data) // without its block
	return last, nil
}

// WriteContent writes the bytes of the stream as they were captured.
func (s *Stream) WriteContent(ctx context.Context, w io.Writer) error {
	var buf []byte
	var failed error
	err := s.read(ctx, s.blocks, func(e Entry) bool {
		entry := new(logpb.LogEntry)
		if failed = proto.Unmarshal(e.Data, entry); failed != nil {
			failed = fault.New(fault.DataLoss, "archive: entry %d: %w", e.Index, failed)
			return false
		}
		buf = render.Raw{}.Append(buf[:0], entry)
		_, failed = w.Write(buf)
		return failed == nil
	})
	if err != nil {
		return fmt.Errorf("archive: read the content: %w", err)
	}
	return failed
}

// read gives the entries of blocks that follow each other. They are fetched as one range, and decompressed one by one.
func (s *Stream) read(ctx context.Context, blocks []*logpb.LogIndex_Block, cb func(Entry) bool) error {
	if len(blocks) == 0 {
		return nil
	}
	begin, last := blocks[0].GetOffset(), blocks[len(blocks)-1]
	r, err := s.bucket.Get(ctx, s.key, int64(begin), int64(last.GetOffset()+last.GetSize()-begin))
	if err != nil {
		return gone(err)
	}
	defer r.Close()
	var stored []byte
	for _, x := range blocks {
		stored = slices.Grow(stored[:0], int(x.GetSize()))[:x.GetSize()]
		more, err := s.block(r, x, stored, cb)
		if err != nil {
			return damaged(err, slices.Index(s.index.GetBlocks(), x), x.GetOffset(), s.key)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// block reads, checks and takes apart one block.
func (s *Stream) block(r io.Reader, x *logpb.LogIndex_Block, stored []byte, cb func(Entry) bool) (more bool, err error) {
	if _, err := io.ReadFull(r, stored); err != nil {
		return false, err
	}
	if sum := crc32.Checksum(stored, castagnoli); sum != x.GetChecksum() {
		return false, fmt.Errorf("checksum is %08x; want %08x", sum, x.GetChecksum())
	}
	plain, err := decodeBlock(stored, x.GetUncompressedSize())
	if err != nil {
		return false, err
	}
	if x.GetUncompressedOffset() == 0 { // the descriptor
		if _, plain, err = cutFrame(plain); err != nil {
			return false, err
		}
	}
	for n := uint64(0); len(plain) > 0; n++ {
		var data []byte
		if data, plain, err = cutFrame(plain); err != nil {
			return false, err
		}
		index, err := streamIndex(data)
		if err != nil {
			return false, err
		}
		if n >= x.GetEntryCount() || n == 0 && index != x.GetFirstStreamIndex() {
			return false, fmt.Errorf("entry %d is not what the index tells", index)
		}
		if !cb(Entry{types.MessageIndex(index), data}) {
			return false, nil
		}
	}
	return true, nil
}
