// Package streamproto is what a program and a Butler say to each other on a stream's connection (spec butler 3). One
// connection carries one stream:
//
//	"BTLR1" 0x1e     magic; the digit is the version of the protocol
//	uvarint N        length of the header, at most 1 MiB
//	N bytes          header: one JSON object, see Flags
//	…                the stream's bytes; those of a datagram stream are frames of uvarint length and data
//
// Nothing flows back; the end of the connection is the end of the stream.
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

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// Magic begins a handshake of version 1.
	Magic = "BTLR1\x1e"
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

// Handshake is what opens a connection.
type Handshake struct {
	// Version of the protocol, 1.
	Version int
	Flags   Flags
}

// AppendHandshake appends a handshake of version 1 with the flags to dst.
func AppendHandshake(dst []byte, f *Flags) ([]byte, error) {
	utc := *f
	utc.Timestamp = f.Timestamp.UTC()
	header, err := json.Marshal(&utc)
	if err != nil {
		return dst, fmt.Errorf("handshake: %w", err)
	}
	if len(header) > MaxHeaderSize {
		return dst, fmt.Errorf("handshake: header has %d bytes; at most %d are allowed", len(header), MaxHeaderSize)
	}
	return frame.Append(append(dst, Magic...), header), nil
}

// ReadHandshake reads a handshake, and not one byte of what follows it.
func ReadHandshake(r io.Reader) (*Handshake, error) {
	h, err := readHandshake(r)
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return h, nil
}

func readHandshake(r io.Reader) (*Handshake, error) {
	var magic [len(Magic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, fmt.Errorf("magic: %w", err)
	}
	if string(magic[:]) != Magic {
		return nil, fmt.Errorf("magic: %q is not %q", magic[:], Magic)
	}
	size, err := frame.ReadLength(byteReader{r}, MaxHeaderSize)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("length of the header: %w", err)
	}
	header, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(header) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("header, %d of %d bytes: %w", len(header), size, err)
	}
	h := &Handshake{Version: 1}
	if err := json.Unmarshal(header, &h.Flags); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	h.Flags.Timestamp = h.Flags.Timestamp.UTC()
	if err := timestamppb.New(h.Flags.Timestamp).CheckValid(); err != nil {
		return nil, fmt.Errorf("header: timestamp %v is out of range", h.Flags.Timestamp)
	}
	return h, nil
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
