// Package fragment reads and writes the files in which a journal's fragments are kept: content in one of the protocol's
// codecs, and nothing else.
//
//	NONE                        the content as it is
//	GZIP                        one gzip member, or several one after the other
//	GZIP_OFFLOAD_DECOMPRESSION  written as GZIP, for a store that takes the compression off again; read as it is
//	SNAPPY                      the snappy framing format
//	ZSTANDARD                   zstd frames
//
// A fragment's name carries the SHA-1 sum of its content. Verify checks content against it on the way.
//
// Readers and writers are used by one goroutine at a time. None of them starts a goroutine, and what a reader needs of memory
// is bounded, whatever the file holds.
package fragment

import (
	"bufio"
	"compress/flate"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// snappyBlock is the largest block of the snappy framing format.
	snappyBlock = 64 << 10
	// maxWindow is the largest window of zstd that is read, which is the largest one that the command line tool writes.
	maxWindow = 128 << 20
)

// NewReader returns a reader of the content of a file. Its Close does not close r. A file that is not of the codec is an
// error of the kind fault.DataLoss; errors of r itself are returned as they are.
func NewReader(r io.Reader, codec pb.CompressionCodec) (io.ReadCloser, error) {
	src := &source{r: r}
	var d decoder
	var err error
	switch codec {
	case pb.CompressionCodec_NONE, pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION:
		return io.NopCloser(r), nil
	case pb.CompressionCodec_GZIP:
		// gzip would put a buffer of its own around src otherwise.
		d.ReadCloser, err = gzip.NewReader(bufio.NewReaderSize(src, 32<<10))
	case pb.CompressionCodec_SNAPPY:
		d.ReadCloser = io.NopCloser(s2.NewReader(src, s2.ReaderMaxBlockSize(snappyBlock)))
	case pb.CompressionCodec_ZSTANDARD:
		var z *zstd.Decoder
		z, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			d.ReadCloser = z.IOReadCloser()
		}
	default:
		return nil, codec.Validate()
	}
	d.source, d.codec = src, codec
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // Even a file without content has a header.
	}
	if err != nil {
		return nil, d.explain(err)
	}
	return &d, nil
}

// source remembers why its reader ended, so that a file that could not be read is told from one that is damaged.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// decoder gives the errors of a codec their kind.
type decoder struct {
	io.ReadCloser
	source *source
	codec  pb.CompressionCodec
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	return n, d.explain(err)
}

func (d *decoder) explain(err error) error {
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // Only the plain one is an end; a codec may wrap it as damage.
		return err
	case d.source.err != nil:
		return d.source.err
	}
	return fault.New(fault.DataLoss, "decompress %s: %w", d.codec, err)
}

// NewWriter returns a writer of a file with the content that is written. Close ends the file; it does not close w.
func NewWriter(w io.Writer, codec pb.CompressionCodec) (io.WriteCloser, error) {
	switch codec {
	case pb.CompressionCodec_NONE:
		return nopWriteCloser{w}, nil
	case pb.CompressionCodec_GZIP, pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION:
		return gzip.NewWriterLevel(w, flate.DefaultCompression)
	case pb.CompressionCodec_SNAPPY:
		return s2.NewWriter(w, s2.WriterSnappyCompat(), s2.WriterBlockSize(snappyBlock), s2.WriterConcurrency(1)), nil
	case pb.CompressionCodec_ZSTANDARD:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	}
	return nil, codec.Validate()
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }
