package postgres

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

const (
	// blockSize is the most bytes of entries in a block, unless it has but one. A larger one compresses little better, and has to be
	// read as a whole.
	blockSize = 128 << 10
	// maxPacked is the most bytes of a block's entries, as frames.
	maxPacked = storage.MaxEntrySize + 8
)

// The first byte of a block's data says how the rest is to be read.
const (
	formatPlain = 0
	formatZstd  = 1
)

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(blockSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxPacked), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		panic(err)
	}
	return d
})

// block is a row of the table blocks.
type block struct {
	first, last types.MessageIndex
	size        int // of the packed entries
	data        []byte

	// decoding is done once for all who read the block.
	decoding sync.Once
	decoded  runs.Run
	err      error
}

// values returns the entries of a block.
func (b *block) values() ([][]byte, error) {
	b.decoding.Do(func() {
		b.decoded, b.err = b.decode()
		b.data = nil
	})
	return b.decoded.Values, b.err
}

// encode makes blocks of a run.
func encode(r runs.Run) []*block {
	parts := r.Cut(blockSize)
	blocks := make([]*block, 0, len(parts))
	var packed []byte
	for _, part := range parts {
		packed = part.AppendPacked(packed[:0])
		data := make([]byte, 1, 64+len(packed)/4)
		data[0] = formatZstd
		if data = encoder().EncodeAll(packed, data); len(data) > len(packed) {
			data = append(append(data[:0], formatPlain), packed...)
		}
		span := part.Span()
		blocks = append(blocks, &block{first: span.First, last: span.End - 1, size: len(packed), data: data})
	}
	return blocks
}

func (b *block) decode() (runs.Run, error) {
	if b.first < 0 || b.last < b.first || b.size < 0 || b.size > maxPacked || len(b.data) == 0 {
		return runs.Run{}, damaged("block %d..%d has %d bytes in %d", b.first, b.last, b.size, len(b.data))
	}
	packed := b.data[1:]
	switch b.data[0] {
	case formatPlain:
	case formatZstd:
		var err error
		if packed, err = decoder().DecodeAll(packed, make([]byte, 0, b.size)); err != nil {
			return runs.Run{}, damaged("block %d..%d: %w", b.first, b.last, err)
		}
	default:
		return runs.Run{}, damaged("block %d..%d has the format %d; this program reads up to %d: use a newer program", b.first, b.last, b.data[0], formatZstd)
	}
	count := b.last - b.first + 1
	if count > types.MessageIndex(len(packed)) {
		return runs.Run{}, damaged("block %d..%d has %d bytes", b.first, b.last, len(packed))
	}
	r, err := runs.Unpack(packed, b.first, int(count))
	if err != nil {
		return runs.Run{}, damaged("block %d..%d: %w", b.first, b.last, err)
	}
	return r, nil
}
