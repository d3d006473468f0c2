package disklog

import (
	"hash/crc32"
	"slices"
)

// blockSize is how much of a fragment's file one sum covers.
const blockSize = 64 << 10

// blockSums are the CRC-32C of a growing fragment's blocks. The arrays of sums before and after are shared.
type blockSums struct {
	// full has the sums of full blocks; nil says that no sums are known.
	full []uint32
	// tail is the sum of the bytes after them.
	tail uint32
	// size is how many bytes all sums cover.
	size int64
}

func newBlockSums() blockSums { return blockSums{full: []uint32{}} }

// extend returns the sums with p behind what they cover.
func (b blockSums) extend(p []byte) blockSums {
	if b.full == nil {
		return b
	}
	for len(p) > 0 {
		n := min(int(blockSize-b.size%blockSize), len(p))
		b.tail = crc32.Update(b.tail, castagnoli, p[:n])
		b.size += int64(n)
		p = p[n:]
		if b.size%blockSize == 0 {
			b.full, b.tail = append(b.full, b.tail), 0
		}
	}
	return b
}

// all returns the sums of all blocks, the last of which may be short; nil if they are not known.
func (b blockSums) all() []uint32 {
	if b.full == nil || b.size%blockSize == 0 {
		return b.full
	}
	// Not into the array that others share: whoever goes on from the same state appends there.
	return append(slices.Clip(b.full), b.tail)
}
