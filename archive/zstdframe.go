package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// readZstdFrame reads one whole zstd frame into buf, without decompressing it (RFC 8878, 3.1.1). It returns io.EOF only at
// the end of the data.
func readZstdFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	buf = buf[:0]
	// need appends the next n bytes, and returns them.
	need := func(n int) ([]byte, error) {
		if len(buf)+n > maxStored {
			return nil, fmt.Errorf("more than %d bytes", maxStored)
		}
		start := len(buf)
		buf = append(buf, make([]byte, n)...)
		got, err := io.ReadFull(r, buf[start:])
		if err == nil {
			return buf[start:], nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if start+got == 0 {
				return nil, io.EOF
			}
			err = fmt.Errorf("cut off after %d bytes", start+got)
		}
		return nil, err
	}

	head, err := need(5)
	if err != nil {
		return nil, err
	}
	if string(head[:4]) != "\x28\xb5\x2f\xfd" {
		return nil, fmt.Errorf("%x is not the beginning of a zstd frame", head[:4])
	}
	descriptor := head[4]
	singleSegment := descriptor&(1<<5) != 0
	rest := [...]int{0, 1, 2, 4}[descriptor&3] // dictionary id
	if !singleSegment {
		rest++ // window descriptor
	}
	switch flag := descriptor >> 6; {
	case flag > 0:
		rest += 1 << flag // content size
	case singleSegment:
		rest++
	}
	if _, err := need(rest); err != nil {
		return nil, err
	}
	for {
		b, err := need(3)
		if err != nil {
			return nil, err
		}
		header := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		size := int(header >> 3)
		const rle = 1
		if header>>1&3 == rle {
			size = 1
		}
		if _, err := need(size); err != nil {
			return nil, err
		}
		if header&1 != 0 {
			break
		}
	}
	if hasChecksum := descriptor&(1<<2) != 0; hasChecksum {
		if _, err := need(4); err != nil {
			return nil, err
		}
	}
	return buf, nil
}
