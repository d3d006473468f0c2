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
	"slices"
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
	// Whole, if not nil, is asked whether the source has so many bytes already, before a message is awaited that ends there. Appends hold
	// whole records, so when it has not, what looks like a header is none: waiting for the rest would take in records that come later.
	Whole func(end int64) (bool, error)

	br  *bufio.Reader
	src *source
	// Skipped is the number of bytes so far that belonged to no record.
	Skipped int64
	// Foreign are the first MaxForeign of those, since the caller set it to nil.
	Foreign []byte
	// consumed counts the bytes of whole records and of skipped ones.
	consumed int64
	buf      []byte
	// reread is how many bytes were read again.
	reread int64
}

// source is what a Reader reads, and what of it is read again before.
type source struct {
	again []byte
	rest  io.Reader
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.again) == 0 {
		return s.rest.Read(p)
	}
	n := copy(p, s.again)
	if s.again = s.again[n:]; len(s.again) == 0 {
		s.again = nil
	}
	return n, nil
}

// NewReader returns a Reader of r, which must be positioned at the beginning of a record.
func NewReader(r io.Reader) *Reader {
	src := &source{rest: r}
	return &Reader{br: bufio.NewReaderSize(src, 256<<10), src: src}
}

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
		if length, ok := possible(head); ok {
			whole, err := r.whole(length)
			if err != nil {
				return nil, err
			}
			if whole {
				break
			}
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

// possible returns the length in a header, if it is one.
func possible(head []byte) (length int, ok bool) {
	n := binary.LittleEndian.Uint32(head[len(magic):])
	return int(n), [4]byte(head[:4]) == magic && n <= MaxMessageSize
}

// whole reports whether a message of this length is there, behind the header that comes next.
func (r *Reader) whole(length int) (bool, error) {
	if r.Whole == nil || HeaderSize+length <= r.br.Buffered() {
		return true, nil
	}
	return r.Whole(r.consumed + int64(HeaderSize+length))
}

// Reject says of the message that Next has just returned that it is none, and reports whether there may be records in it: those behind a
// record that was cut short, which took them for its own. What follows its header is then read again.
func (r *Reader) Reject() bool {
	n := int64(len(r.buf))
	// Whoever fills a journal with such headers must not have all of it read for each of them.
	if !r.holdsHeader() || r.reread+n > r.consumed+MaxMessageSize {
		return false
	}
	buffered, _ := r.br.Peek(r.br.Buffered())
	r.src.again = slices.Concat(r.buf, buffered, r.src.again)
	r.br.Reset(r.src)
	header, _ := AppendHeader(nil, len(r.buf)) // it was read, so it can be written
	r.skip(header)
	r.reread += n
	r.consumed -= n + HeaderSize
	return true
}

// holdsHeader reports whether there is a header within the message, or one that may begin at its end.
func (r *Reader) holdsHeader() bool {
	for b := r.buf; ; b = b[1:] {
		i := bytes.IndexByte(b, magic[0])
		if i < 0 {
			return false
		}
		b = b[i:]
		if n := min(len(b), len(magic)); !bytes.Equal(b[:n], magic[:n]) {
			continue
		}
		if len(b) < HeaderSize {
			return true
		}
		if _, ok := possible(b); ok {
			return true
		}
	}
}

// skip counts bytes that belong to no record.
func (r *Reader) skip(b []byte) {
	r.Foreign = append(r.Foreign, b[:min(len(b), MaxForeign-len(r.Foreign))]...)
	r.Skipped += int64(len(b))
	r.consumed += int64(len(b))
}

// resync skips at least one byte, to where the next magic may begin.
func (r *Reader) resync() {
	b, _ := r.br.Peek(r.br.Buffered())
	skip := len(b) - len(magic) + 1
	if i := bytes.Index(b[1:], magic[:]); i >= 0 {
		skip = i + 1
	}
	r.skip(b[:skip])
	_, _ = r.br.Discard(skip) // these bytes are in the buffer
}
