// Package streamproto is what a program and a Butler say to each other on a connection (spec butler 3). One connection
// carries one stream:
//
//	"BTLR1" 0x1e     magic; the digit is the version of the protocol
//	uvarint N        length of the header, at most 1 MiB
//	N bytes          header: one JSON object, see Flags
//	…                the stream's bytes; those of a datagram stream are frames of uvarint length and data
//
// In version 1 nothing flows back. In version 2 a Reply does, and a connection may be a request instead of a stream; see Op. The end
// of the connection is the end of the stream. The format's page is docs/formats/handshake.md.
//
// Functions are safe for concurrent use; values are not.
package streamproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// Magic begins a handshake of version 1.
	Magic = "BTLR1\x1e"
	// Magic2 begins one of version 2.
	Magic2 = "BTLR2\x1e"
	// MaxHeaderSize is the largest header in bytes.
	MaxHeaderSize = 1 << 20
	// MaxDatagramSize is the largest datagram in bytes.
	MaxDatagramSize = 10 << 20
)

// Flags is what a program says of the stream that it opens: the header of a handshake. The zero values of all fields but Name
// stand for defaults.
type Flags struct {
	Name types.StreamName `json:"name,omitempty"`
	// ContentType is by default that of the type.
	ContentType string     `json:"contentType,omitempty"`
	Type        StreamType `json:"type,omitempty"`
	// Timestamp is the base time of the stream, by default the Butler's time.
	Timestamp time.Time `json:"timestamp"`
	Tags      TagMap    `json:"tags,omitempty"`
}

// Descriptor returns the stream's descriptor, without prefix, and without timestamp when there is none. It shares the tags.
// It is not necessarily valid.
func (f *Flags) Descriptor() *logpb.LogStreamDescriptor {
	d := &logpb.LogStreamDescriptor{
		Name:        string(f.Name),
		StreamType:  logpb.StreamType(f.Type),
		ContentType: f.ContentType,
		Tags:        f.Tags,
	}
	if d.ContentType == "" {
		d.ContentType = f.Type.DefaultContentType()
	}
	if !f.Timestamp.IsZero() {
		d.Timestamp = timestamppb.New(f.Timestamp)
	}
	return d
}

// Op is what a program wants.
type Op string

// The operations. Version 1 knows Open alone.
const (
	// Open opens a stream.
	Open Op = "open"
	// Redact adds values that have to be replaced in all streams.
	Redact Op = "redact"
)

// Handshake is what opens a connection.
type Handshake struct {
	// Version of the protocol, 1 or 2. A Reply is sent in version 2 alone.
	Version int
	// Op is Open in version 1. In version 2 it may be one that this package does not know.
	Op Op
	// Flags are of the stream that is opened.
	Flags Flags
	// Count is how many values of a Redact follow, by ReadValue.
	Count int
}

// HandshakeError says why a handshake cannot be understood.
type HandshakeError struct {
	// Version is that of the handshake, zero if it did not come so far. In version 2 a Reply with Code is due.
	Version int
	Code    Code
	Err     error
}

func (e *HandshakeError) Error() string { return "handshake: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *HandshakeError) Unwrap() error { return e.Err }

// AppendHandshake appends a handshake of version 1 with the flags to dst.
func AppendHandshake(dst []byte, f *Flags) ([]byte, error) {
	utc := *f
	utc.Timestamp = f.Timestamp.UTC()
	return appendHandshake(dst, Magic, &utc)
}

// AppendOpen appends a handshake of version 2 that opens a stream to dst.
func AppendOpen(dst []byte, f *Flags) ([]byte, error) {
	h := header{Op: Open, Flags: *f}
	h.Timestamp = f.Timestamp.UTC()
	return appendHandshake(dst, Magic2, &h)
}

func appendHandshake(dst []byte, magic string, header any) ([]byte, error) {
	b, err := json.Marshal(header)
	if err != nil {
		return dst, fmt.Errorf("handshake: %w", err)
	}
	if len(b) > MaxHeaderSize {
		return dst, fmt.Errorf("handshake: header has %d bytes; at most %d are allowed", len(b), MaxHeaderSize)
	}
	return frame.Append(append(dst, magic...), b), nil
}

// header is the header of version 2.
type header struct {
	Op Op `json:"op,omitempty"`
	Flags
	Count int `json:"count,omitempty"`
}

// ReadHandshake reads a handshake, and not one byte of what follows it. The error is a *HandshakeError.
func ReadHandshake(r io.Reader) (*Handshake, error) {
	h := new(Handshake)
	if code, err := h.read(r); err != nil {
		return nil, &HandshakeError{h.Version, code, err}
	}
	return h, nil
}

func (h *Handshake) read(r io.Reader) (Code, error) {
	var magic [len(Magic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return Malformed, fmt.Errorf("magic: %w", err)
	}
	switch string(magic[:]) {
	case Magic:
		h.Version = 1
	case Magic2:
		h.Version = 2
	default:
		return Malformed, fmt.Errorf("magic: %q is not %q or %q", magic[:], Magic, Magic2)
	}
	b, err := readHeader(r)
	if err != nil {
		return Malformed, err
	}
	if h.Version == 1 {
		h.Op = Open
		err = json.Unmarshal(b, &h.Flags)
	} else {
		err = h.decode2(b)
	}
	if err != nil {
		return decodeCode(err), fmt.Errorf("header: %w", err)
	}
	h.Flags.Timestamp = h.Flags.Timestamp.UTC()
	if err := timestamppb.New(h.Flags.Timestamp).CheckValid(); err != nil {
		return Invalid, fmt.Errorf("header: timestamp %v is out of range", h.Flags.Timestamp)
	}
	return "", nil
}

// decode2 decodes a header of version 2.
func (h *Handshake) decode2(b []byte) error {
	if !utf8.Valid(b) {
		return errNotUTF8
	}
	var x header
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	h.Op, h.Flags, h.Count = x.Op, x.Flags, x.Count
	switch h.Op {
	case "":
		h.Op = Open
		fallthrough
	case Open:
		if h.Flags.Name == "" {
			return errors.New("the stream has no name")
		}
	case Redact:
		if h.Count < 1 || h.Count > MaxValues {
			return fmt.Errorf("%d values to redact; between 1 and %d are allowed", h.Count, MaxValues)
		}
	}
	return nil
}

var errNotUTF8 = errors.New("not UTF-8")

// decodeCode tells JSON that makes no sense from values that break a rule.
func decodeCode(err error) Code {
	var syntax *json.SyntaxError
	var unfit *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &unfit) || errors.Is(err, errNotUTF8) {
		return Malformed
	}
	return Invalid
}

func readHeader(r io.Reader) ([]byte, error) {
	size, err := frame.ReadLength(byteReader{r}, MaxHeaderSize)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("length of the header: %w", err)
	}
	b, err := readExactly(r, size)
	if err != nil {
		return nil, fmt.Errorf("header, %d of %d bytes: %w", len(b), size, err)
	}
	return b, nil
}

// readExactly reads size bytes. What was announced takes no memory before it is there.
func readExactly(r io.Reader, size int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(b) < size {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// byteReader reads single bytes, and none ahead.
type byteReader struct{ r io.Reader }

func (b byteReader) ReadByte() (byte, error) {
	var c [1]byte
	_, err := io.ReadFull(b.r, c[:])
	return c[0], err
}

// AppendDatagramHeader appends what goes before a datagram of the given size to dst.
func AppendDatagramHeader(dst []byte, size int) ([]byte, error) {
	if size > MaxDatagramSize {
		return dst, fmt.Errorf("datagram has %d bytes; at most %d are allowed", size, MaxDatagramSize)
	}
	return binary.AppendUvarint(dst, uint64(size)), nil
}
