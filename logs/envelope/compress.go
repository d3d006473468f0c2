package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// heads are the metadata frames of messages we write. Their bytes are those of every other writer (spec butler 2.2).
var heads = map[logpb.ButlerMetadata_Compression][]byte{None: head(None), Zlib: head(Zlib), Zstd: head(Zstd)}

func head(c logpb.ButlerMetadata_Compression) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&logpb.ButlerMetadata{
		Type: logpb.ButlerMetadata_ButlerLogBundle, Compression: c, ProtoVersion: ProtoVersion,
	})
	if err != nil {
		panic(err) // impossible: the message is constant
	}
	return frame.Append(nil, b)
}

// appendHead appends everything of a message before its body of the given size.
func appendHead(dst []byte, c logpb.ButlerMetadata_Compression, size int) []byte {
	head := heads[c]
	dst = slices.Grow(dst, len(head)+maxLength+size)
	dst = append(dst, head...)
	return binary.AppendUvarint(dst, uint64(size))
}

// maxLength is the size of the varint length of a frame of MaxSize.
const maxLength = 4

// appendCompressed appends a message with the bundle compressed, or returns nil when it would not be smaller.
func appendCompressed(dst []byte, c logpb.ButlerMetadata_Compression, bundle []byte) ([]byte, error) {
	// The length goes before the body, and its size is known only after it: leave room, and close the gap.
	out := append(dst, heads[c]...)
	at := len(out)
	out = append(out, make([]byte, maxLength)...)
	body := len(out)
	switch c {
	case Zlib:
		out = deflate(out, bundle)
	case Zstd:
		out = zstdEncoder().EncodeAll(bundle, out)
	default:
		return nil, fmt.Errorf("envelope: cannot write compression %d", c)
	}
	size := len(out) - body
	if size >= len(bundle) {
		return nil, nil
	}
	n := binary.PutUvarint(out[at:body], uint64(size))
	if n < maxLength {
		copy(out[at+n:], out[body:])
		out = out[:len(out)-(maxLength-n)]
	}
	return out, nil
}

// Inflate appends the bundle in body, the second frame of a message, to dst. It stops with ErrTooLarge when the bundle
// exceeds MaxSize.
func Inflate(dst []byte, c logpb.ButlerMetadata_Compression, body []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, body...), nil
	case Zlib:
		return inflate(dst, body)
	case Zstd:
		return unzstd(dst, body)
	}
	return dst, fmt.Errorf("unknown compression %d of the body", c)
}

var deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

func deflate(dst, src []byte) []byte {
	out := bytes.NewBuffer(dst)
	z := deflaters.Get().(*zlib.Writer)
	defer deflaters.Put(z)
	z.Reset(out)
	_, _ = z.Write(src) // a bytes.Buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// inflater is what zlib.NewReader returns.
type inflater interface {
	io.Reader
	zlib.Resetter
}

var inflaters sync.Pool

func inflate(dst, src []byte) ([]byte, error) {
	in := bytes.NewReader(src)
	z, _ := inflaters.Get().(inflater)
	if z == nil {
		r, err := zlib.NewReader(in)
		if err != nil {
			return dst, fmt.Errorf("body: %w", err)
		}
		z = r.(inflater)
	} else if err := z.Reset(in, nil); err != nil {
		inflaters.Put(z)
		return dst, fmt.Errorf("body: %w", err)
	}
	defer inflaters.Put(z)

	begin := len(dst)
	dst = slices.Grow(dst, min(4*len(src), MaxSize)+1)
	for {
		n, err := z.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-begin > MaxSize:
			return dst[:begin], inflatesTooFar()
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst[:begin], fmt.Errorf("body: %w", err)
		}
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, min(len(dst)-begin, MaxSize)+1)
		}
	}
}

func inflatesTooFar() error {
	return fmt.Errorf("body: %w: it inflates to more than %d bytes", ErrTooLarge, MaxSize)
}

// zstdWindow is how far back a match may lie. More of it makes logs 1 % smaller, and an encoder several times larger.
const zstdWindow = 256 << 10

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // impossible: the options are constant
	}
	return e
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(MaxSize))
	if err != nil {
		panic(err) // impossible: the options are constant
	}
	return d
})

func unzstd(dst, src []byte) ([]byte, error) {
	// The decoder counts what is in its destination already, so it gets an empty one in the same memory.
	begin := len(dst)
	out, err := zstdDecoder().DecodeAll(src, dst[begin:begin])
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded), len(out) > MaxSize:
		return dst, inflatesTooFar()
	case err != nil:
		return dst, fmt.Errorf("body: zstd: %w", err)
	}
	if begin == 0 {
		return out, nil
	}
	return append(dst, out...), nil
}
