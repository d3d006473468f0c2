// Package frame is the record framing that Daybook's formats share: an unsigned LEB128 varint length, followed by that many
// bytes (spec butler 2.1). A frame may be empty. Varints longer than necessary are accepted; one that does not fit 64 bits is
// an error. Whoever reads says how long a payload may be, and a longer one fails before anything is allocated for it.
//
// All functions are safe for concurrent use as far as their arguments are.
package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge is returned, wrapped, for a frame whose announced length exceeds the reader's limit.
var ErrTooLarge = errors.New("frame is too large")

var errOverlong = errors.New("frame length does not fit 64 bits")

// Append appends a frame with the payload to dst.
func Append(dst, payload []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// Cut takes the first frame off b, without copying. The error is io.EOF when b is empty, and io.ErrUnexpectedEOF, wrapped,
// when it ends inside the frame.
func Cut(b []byte, limit int) (payload, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, io.EOF
	}
	size, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return nil, nil, fmt.Errorf("frame length: %w", io.ErrUnexpectedEOF)
	case n < 0:
		return nil, nil, errOverlong
	case size > uint64(limit):
		return nil, nil, tooLarge(size, limit)
	case size > uint64(len(b)-n):
		return nil, nil, fmt.Errorf("frame has %d of its %d bytes: %w", len(b)-n, size, io.ErrUnexpectedEOF)
	}
	end := n + int(size)
	return b[n:end:end], b[end:], nil
}

// ReadLength reads the length of the next frame of r and leaves r at its payload. The error is io.EOF when r is at its end.
func ReadLength(r io.ByteReader, limit int) (int, error) {
	var size uint64
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			if shift > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if shift == 63 && c > 1 {
			return 0, errOverlong
		}
		size |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	if size > uint64(limit) {
		return 0, tooLarge(size, limit)
	}
	return int(size), nil
}

// growth bounds what a frame that has not arrived yet may make Read allocate.
const growth = 1 << 20

// Read appends the payload of the next frame of r to dst. The error is io.EOF when r is at its end, and io.ErrUnexpectedEOF
// when it ends inside the frame.
func Read(r *bufio.Reader, dst []byte, limit int) ([]byte, error) {
	size, err := ReadLength(r, limit)
	if err != nil {
		return dst, err
	}
	for size > 0 {
		step := min(size, growth)
		at := len(dst)
		dst = append(dst, make([]byte, step)...)
		if _, err := io.ReadFull(r, dst[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return dst[:at], err
		}
		size -= step
	}
	return dst, nil
}

// Write writes a frame with the payload to w.
func Write(w io.Writer, payload []byte) error {
	var head [binary.MaxVarintLen64]byte
	if _, err := w.Write(head[:binary.PutUvarint(head[:], uint64(len(payload)))]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func tooLarge(size uint64, limit int) error {
	return fmt.Errorf("%w: %d bytes; at most %d are allowed", ErrTooLarge, size, limit)
}
