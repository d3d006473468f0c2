// Package archive is the format of archived streams, and writes, reads and verifies them. An archived stream is two objects in
// a bucket (docs/formats/archive.md):
//
//   - entries: the descriptor and all entries as frames, cut into blocks that are zstd frames of their own. Decompressed
//     with any zstd, it is LogDog's logstream.entries.
//   - index: a logpb.LogIndex that tells where the blocks lie and what is missing. It only accelerates: when it is lost or
//     damaged, the reader rebuilds it from the entries.
//
// Write streams entries into a new archive; Verify reads it back and compares it with what was written. Open gives a Stream to
// read from. Every read checks the checksums of the blocks it touches; damage is fault.DataLoss and names the block.
//
// Objects are never changed once written, and have unique names, so writers never meet. All functions and methods are safe
// for concurrent use. Memory is bounded by a block (512 KiB, or one larger entry) and the index: about 100 bytes a block, and as
// much for each entry that Density lists.
package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// blockSize is the uncompressed size at which a block ends. One frame may exceed it.
	blockSize = 512 << 10
	// MaxFrame is the largest frame, in bytes (spec archive 5).
	MaxFrame = 20 << 20
	// maxBlock bounds a block uncompressed: less than blockSize before its last frame.
	maxBlock = blockSize + MaxFrame + binary.MaxVarintLen64
	// maxStored bounds a block compressed, incompressible data included.
	maxStored = maxBlock + maxBlock/128 + 1024
	// maxIndex is the largest index that is read; a larger one is rebuilt in its sparsest form.
	maxIndex = 256 << 20
	// MaxMissing is the most ranges of missing indices that are recorded. If there are more, the last one reaches from
	// the first of the rest to the end of the last, over entries that are there.
	MaxMissing = 4096
)

// ReasonUnreadable is the reason of missing ranges of entries that were stored and could not be parsed.
const ReasonUnreadable = "unreadable"

// ReasonUnordered is the reason of missing ranges of entries that normalization left out.
const ReasonUnordered = "unordered"

// Entry is an entry of a stream.
type Entry struct {
	Index types.MessageIndex
	// Data is the serialized logpb.LogEntry.
	Data []byte
}

// Range is a range of stream indices, both included, that an archive does not hold.
type Range struct {
	First, Last types.MessageIndex
	// Reason is empty for entries that never arrived.
	Reason string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// compressor and decompressor are shared: their stateless methods may be used by any number of goroutines, and each
// holds megabytes.
var compressor = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true), zstd.WithWindowSize(blockSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constant
	}
	return e
})

var decompressor = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBlock))
	if err != nil {
		panic(err) // the options are constant
	}
	return d
})

// keySegments is how many segments a key has.
const keySegments = 4

// keys returns the keys of a stream's objects. Paths can have 4 KiB and characters that no file name has, so they are hashed.
func keys(project types.Project, path types.StreamPath, unique string) (entries, index string) {
	sum := sha256.Sum256([]byte(path))
	id := hex.EncodeToString(sum[:])
	base := fmt.Sprintf("%s/%s/%s/%s", project, id[:2], id, unique)
	return base + ".entries.zst", base + ".index"
}

// decodeBlock decompresses a block that is known to be stored whole.
func decodeBlock(stored []byte, size uint64) ([]byte, error) {
	if size > maxBlock {
		return nil, fmt.Errorf("%d bytes uncompressed; at most %d are allowed", size, maxBlock)
	}
	plain, err := decompressor().DecodeAll(stored, make([]byte, 0, size))
	if err != nil {
		return nil, err
	}
	if uint64(len(plain)) != size {
		return nil, fmt.Errorf("%d bytes uncompressed; want %d", len(plain), size)
	}
	return plain, nil
}

// cutFrame splits the first frame off a block.
func cutFrame(b []byte) (payload, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, nil, fmt.Errorf("a frame has a malformed size")
	}
	if size > MaxFrame {
		return nil, nil, fmt.Errorf("a frame has %d bytes; at most %d are allowed", size, MaxFrame)
	}
	if size > uint64(len(b)-n) {
		return nil, nil, fmt.Errorf("a frame of %d bytes is cut off after %d", size, len(b)-n)
	}
	return b[n : n+int(size) : n+int(size)], b[n+int(size):], nil
}

// streamIndex finds the stream index in a serialized entry, without the cost of parsing its content.
func streamIndex(data []byte) (uint64, error) {
	const field = 3
	var index uint64
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		data = data[n:]
		if num == field && typ == protowire.VarintType {
			index, n = protowire.ConsumeVarint(data)
		} else {
			n = protowire.ConsumeFieldValue(num, typ, data)
		}
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		data = data[n:]
	}
	return index, nil
}

// marshalIndex serializes an index and closes it with its checksum.
func marshalIndex(x *logpb.LogIndex) ([]byte, error) {
	x.Checksum = 0
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(x)
	if err != nil {
		return nil, err
	}
	x.Checksum = crc32.Checksum(b, castagnoli)
	return appendChecksum(b, x.Checksum), nil
}

const checksumField = 1004

func appendChecksum(b []byte, sum uint32) []byte {
	b = protowire.AppendTag(b, checksumField, protowire.Fixed32Type)
	return protowire.AppendFixed32(b, sum)
}

// unmarshalIndex is the inverse of marshalIndex. An index without a valid checksum or without blocks is DataLoss.
func unmarshalIndex(b []byte) (*logpb.LogIndex, error) {
	closing := len(appendChecksum(nil, 0))
	if len(b) < closing {
		return nil, fault.New(fault.DataLoss, "the index has %d bytes", len(b))
	}
	body := b[:len(b)-closing]
	if want := appendChecksum(body[:len(body):len(body)], crc32.Checksum(body, castagnoli)); string(want) != string(b) {
		return nil, fault.New(fault.DataLoss, "the index does not match its checksum")
	}
	x := new(logpb.LogIndex)
	if err := proto.Unmarshal(b, x); err != nil {
		return nil, fault.Wrap(fault.DataLoss, err)
	}
	if len(x.GetBlocks()) == 0 {
		return nil, fault.New(fault.DataLoss, "the index tells of no blocks")
	}
	return x, nil
}

// Remove deletes an archive that nobody was told of, also when ctx was canceled.
func Remove(ctx context.Context, b bucket.Bucket, m *Manifest) error {
	entries, err := b.KeyOf(m.StreamURL)
	if err != nil {
		return err
	}
	index, err := b.KeyOf(m.IndexURL)
	if err != nil {
		return err
	}
	return remove(ctx, b, entries, index)
}

func remove(ctx context.Context, b bucket.Bucket, keys ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	for _, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return fmt.Errorf("archive: delete %s: %w", key, err)
		}
	}
	return nil
}
