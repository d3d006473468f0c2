// Package ingest is what Butlers and Collectors agree on about the journals between them: their names and labels, and how
// messages lie in them.
//
// An ingest journal is a sequence of records; a record is an eight byte header and a message:
//
//	66 33 93 36   magic
//	uint32 LE     length of the message
//	message       the two frames of package envelope
//
// This is Gazette's fixed framing, so that its tools can append to and read from these journals. Appends are atomic and hold
// whole records, so a record is never torn. Should foreign bytes get into a journal, a reader finds its way back at the
// next magic and tells how many bytes it skipped; nothing stops it.
//
// The format's page is docs/formats/ingest.md.
package ingest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// DefaultJournal takes the messages of a Butler that has not been told another journal.
	DefaultJournal = "daybook/ingest/000"
	// Label marks ingest journals. Collectors read all journals that have it.
	Label = "daybook.dev/ingest"
	// HeaderSize is the number of bytes before each message.
	HeaderSize = 8
	// MaxForeign is how many of the bytes that belong to no record a Reader keeps.
	MaxForeign = 64 << 10
	// MaxMessageSize is the largest message: two frames of at most 10 MiB each, with their lengths.
	MaxMessageSize = 2*(10<<20) + 2*binary.MaxVarintLen64
)

var magic = [4]byte{0x66, 0x33, 0x93, 0x36}

// AppendHeader appends the header of a message of the given length to b. A length over MaxMessageSize is an error.
func AppendHeader(b []byte, length int) ([]byte, error) {
	if length > MaxMessageSize {
		return b, fmt.Errorf("ingest: message of %d bytes; at most %d are allowed", length, MaxMessageSize)
	}
	b = append(b, magic[:]...)
	return binary.LittleEndian.AppendUint32(b, uint32(length)), nil
}

// Reader reads records. It is used by one goroutine.
type Reader struct {
	br *bufio.Reader
	// Skipped is the number of bytes so far that belonged to no record.
	Skipped int64
	// Foreign are the first MaxForeign of those, since the caller set it to nil.
	Foreign []byte
	// consumed counts the bytes of whole records and of skipped ones.
	consumed int64
	buf      []byte
}

// NewReader returns a Reader of r, which must be positioned at the beginning of a record.
func NewReader(r io.Reader) *Reader { return &Reader{br: bufio.NewReaderSize(r, 256<<10)} }

// Consumed returns how many bytes of the source the records returned so far, and skipped bytes before them, take.
// It is the position of the next record.
func (r *Reader) Consumed() int64 { return r.consumed }

// Buffered returns how many bytes Next can take without reading from the source.
func (r *Reader) Buffered() int { return r.br.Buffered() }

// Next returns the next message. The slice is valid until the next call. At the end of the source the error is io.EOF, and
// io.ErrUnexpectedEOF within a record; other errors are the source's.
func (r *Reader) Next() ([]byte, error) {
	var head []byte
	for {
		var err error
		head, err = r.br.Peek(HeaderSize)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if [4]byte(head[:4]) == magic && binary.LittleEndian.Uint32(head[4:]) <= MaxMessageSize {
			break
		}
		r.resync()
	}
	n := int(binary.LittleEndian.Uint32(head[4:]))
	if _, err := r.br.Discard(HeaderSize); err != nil {
		return nil, err
	}
	// Grow with what arrives, not with what was announced.
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		step := min(n-len(r.buf), max(1<<20, cap(r.buf)-len(r.buf)))
		at := len(r.buf)
		r.buf = append(r.buf, make([]byte, step)...)
		if _, err := io.ReadFull(r.br, r.buf[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	r.consumed += int64(HeaderSize + n)
	return r.buf, nil
}

// resync skips at least one byte, to where the next magic may begin.
func (r *Reader) resync() {
	b, _ := r.br.Peek(r.br.Buffered())
	skip := len(b) - len(magic) + 1
	if i := bytes.Index(b[1:], magic[:]); i >= 0 {
		skip = i + 1
	}
	r.Foreign = append(r.Foreign, b[:min(skip, MaxForeign-len(r.Foreign))]...)
	_, _ = r.br.Discard(skip) // these bytes are in the buffer
	r.Skipped += int64(skip)
	r.consumed += int64(skip)
}
