package disklog

import (
	"encoding/binary"
	"hash/crc32"
)

// A record is a header, a body, and zeros up to a multiple of eight bytes. All integers are little-endian.
//
//	 0  uint32  CRC-32C of the segment's number and of the header from byte 4 on
//	 4  uint32  length of the body
//	 8  uint32  type
//	12  uint32  where in the segment the write began that this record was part of
//	16  uint64  sequence number
//	24  uint32  CRC-32C of the body
//	28  uint32  zero
//
// The checksum is seeded with the segment's number, so that what an earlier use of the file left behind is never a record of
// this one. Sequence numbers rise and are never used twice, not even after a write that failed. The beginning of the write
// tells a torn tail from damage: everything before it had been synced when the record was written.
const headerSize = 32

type recordType uint32

const (
	recordEnd    recordType = 1 + iota // the segment ends here; the next one follows
	recordStart                        // the log was opened: term
	recordAppend                       // an append, or a fragment finished, or a head moved
	recordApply                        // specs created, replaced, deleted
	recordTrim                         // fragments dropped
	recordStored                       // a store has a fragment
	recordTypes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	typ  recordType
	seq  uint64
	base uint32
	body []byte
}

// recordSize is the space that a record with a body of n bytes takes.
func recordSize(n int) int { return (headerSize + n + 7) &^ 7 }

// appendRecord appends an unsealed record to b, whose body is the concatenation of head and content.
func appendRecord(b []byte, typ recordType, seq uint64, head, content []byte) []byte {
	n := len(head) + len(content)
	var h [headerSize]byte
	binary.LittleEndian.PutUint32(h[4:], uint32(n))
	binary.LittleEndian.PutUint32(h[8:], uint32(typ))
	binary.LittleEndian.PutUint64(h[16:], seq)
	binary.LittleEndian.PutUint32(h[24:], crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, content))
	b = append(b, h[:]...)
	b = append(b, head...)
	b = append(b, content...)
	return append(b, zeros[:recordSize(n)-headerSize-n]...)
}

// seal completes the header of the record at the beginning of b, once it is known where the record goes.
func seal(b []byte, segment uint64, base uint32) {
	binary.LittleEndian.PutUint32(b[12:], base)
	binary.LittleEndian.PutUint32(b, headerSum(b, segment))
}

func headerSum(h []byte, segment uint64) uint32 {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], segment)
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, h[4:headerSize])
}

// parseRecord returns the record at the beginning of b, which belongs to a segment, and the space it takes. The body aliases b.
// It reports false if there is no intact record.
func parseRecord(b []byte, segment uint64) (r record, size int, ok bool) {
	if len(b) < headerSize {
		return record{}, 0, false
	}
	typ := recordType(binary.LittleEndian.Uint32(b[8:]))
	n := binary.LittleEndian.Uint32(b[4:])
	// The cheap checks come first, since damage makes recovery look for a record at every eighth byte.
	if typ < recordEnd || typ >= recordTypes || int64(n) > int64(len(b)-headerSize) ||
		binary.LittleEndian.Uint32(b) != headerSum(b, segment) {
		return record{}, 0, false
	}
	body := b[headerSize : headerSize+int(n)]
	if binary.LittleEndian.Uint32(b[24:]) != crc32.Checksum(body, castagnoli) {
		return record{}, 0, false
	}
	size = recordSize(int(n))
	if size > len(b) {
		return record{}, 0, false
	}
	return record{
		typ:  typ,
		seq:  binary.LittleEndian.Uint64(b[16:]),
		base: binary.LittleEndian.Uint32(b[12:]),
		body: body,
	}, size, true
}
