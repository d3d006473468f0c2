// Package envelope is the message that carries a bundle of log entries from a Butler to a Collector (spec butler 2):
//
//	frame 1: logpb.ButlerMetadata, serialized
//	frame 2: logpb.ButlerLogBundle, serialized, and compressed as frame 1 says
//
// with frames as in package frame: a varint length and that many bytes. Compression is none, zlib, or zstd; the last is an
// extension that is sent only to servers that offered it.
//
// A Writer or Reader is used by one goroutine at a time; functions are safe for concurrent use. Encoders and decoders are
// shared below, so that Writers and Readers are cheap.
//
// The format's page is docs/formats/envelope.md.
package envelope

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
)

const (
	// ProtoVersion is the version of the messages in a bundle. It changes with an incompatible change only.
	ProtoVersion = "1"
	// MaxSize is the largest serialized bundle, and the largest frame, in bytes. Exactly this size is still readable here;
	// existing readers refuse it, so a writer for them stays below.
	MaxSize = 10 << 20
	// DefaultThreshold is the least size of a serialized bundle that is worth compressing.
	DefaultThreshold = 860
)

// The ways to compress a bundle.
const (
	None = logpb.ButlerMetadata_NONE
	Zlib = logpb.ButlerMetadata_ZLIB
	Zstd = logpb.ButlerMetadata_ZSTD
)

// ErrTooLarge is returned, wrapped, when a frame or a bundle exceeds MaxSize, announced or after decompression.
var ErrTooLarge = frame.ErrTooLarge

// Open checks msg's frames and decodes its metadata. body is the second frame as sent, without copying it; it is nil, without
// an error, when the bundle is of another version and must not be looked at. What follows the second frame is ignored.
func Open(msg []byte) (meta *logpb.ButlerMetadata, body []byte, err error) {
	head, rest, err := frame.Cut(msg, MaxSize)
	if err != nil {
		return nil, nil, fmt.Errorf("metadata frame: %w", unexpected(err))
	}
	meta = new(logpb.ButlerMetadata)
	if err := proto.Unmarshal(head, meta); err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", err)
	}
	if meta.GetType() != logpb.ButlerMetadata_ButlerLogBundle {
		return nil, nil, fmt.Errorf("metadata: unknown type %d of content", meta.GetType())
	}
	if meta.GetProtoVersion() != ProtoVersion {
		return meta, nil, nil
	}
	body, _, err = frame.Cut(rest, MaxSize)
	if err != nil {
		return nil, nil, fmt.Errorf("body frame: %w", unexpected(err))
	}
	return meta, body, nil
}

// unexpected turns the end of a message, where a frame has to be, into an error that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("is missing")
	}
	return err
}

// Reader reads messages, and reuses its memory from one to the next. The zero value is ready for use.
type Reader struct{ buf []byte }

// Read decodes a message. The bundle is nil, without an error, when its version is not ProtoVersion. Neither result refers
// to msg.
func (r *Reader) Read(msg []byte) (*logpb.ButlerMetadata, *logpb.ButlerLogBundle, error) {
	meta, body, err := Open(msg)
	if err != nil || meta.GetProtoVersion() != ProtoVersion {
		return meta, nil, err
	}
	if meta.GetCompression() != None {
		if body, err = Inflate(r.buf[:0], meta.GetCompression(), body); err != nil {
			return nil, nil, err
		}
		r.buf = body
	}
	bundle := new(logpb.ButlerLogBundle)
	if err := proto.Unmarshal(body, bundle); err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	return meta, bundle, nil
}

// Read decodes one message, as Reader.Read.
func Read(msg []byte) (*logpb.ButlerMetadata, *logpb.ButlerLogBundle, error) {
	return new(Reader).Read(msg)
}

// Writer makes messages, and reuses its memory from one to the next. The zero value does not compress.
type Writer struct {
	// Compression is how bundles of at least Threshold bytes are compressed. A bundle that would not become smaller is left
	// as it is.
	Compression logpb.ButlerMetadata_Compression
	// Threshold is the least size worth compressing; zero is DefaultThreshold.
	Threshold int

	enc logpb.Encoder
}

// Append appends a message with the bundle to dst. On an error, such as ErrTooLarge, dst is returned as it was.
func (w *Writer) Append(dst []byte, bundle *logpb.ButlerLogBundle) ([]byte, error) {
	body, err := w.enc.Encode(bundle)
	if err != nil {
		return dst, fmt.Errorf("bundle: %w", err)
	}
	return w.AppendSerialized(dst, body)
}

// AppendSerialized is Append for a bundle that has been serialized already.
func (w *Writer) AppendSerialized(dst, bundle []byte) ([]byte, error) {
	if len(bundle) > MaxSize {
		return dst, tooLarge(len(bundle))
	}
	if w.compresses(len(bundle)) {
		out, err := appendCompressed(dst, w.Compression, bundle)
		if err != nil {
			return dst, err
		}
		if out != nil {
			return out, nil
		}
	}
	return append(appendHead(dst, None, len(bundle)), bundle...), nil
}

func (w *Writer) compresses(size int) bool {
	threshold := w.Threshold
	if threshold == 0 {
		threshold = DefaultThreshold
	}
	return w.Compression != None && size >= threshold
}

func tooLarge(size int) error {
	return fmt.Errorf("bundle: %w: %d bytes; at most %d are allowed", ErrTooLarge, size, MaxSize)
}
