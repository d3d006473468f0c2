package client

import (
	"errors"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/fragment"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// FragmentReader reads the content of a fragment from its file.
//
// A file that was read from its beginning is checked: if its content does not have the sum that the fragment tells, the
// last Read returns an error of the kind fault.DataLoss instead of io.EOF.
type FragmentReader struct {
	// Fragment is what is read. Its codec is that of the bytes that were received.
	*pb.Fragment
	// Offset is that of the next byte in the journal.
	Offset int64

	raw     io.Closer
	content io.ReadCloser
	sum     *fragment.Sum      // nil if the beginning is missing.
	counter prometheus.Counter // of what is read now
	read    prometheus.Counter
	skipped prometheus.Counter
	err     error // Final.
}

// NewFragmentReader returns a reader of the fragment's file from an offset of the journal on, or from the fragment's
// beginning if that is later. It takes rc, and closes it also if it fails. An offset beyond the fragment is io.EOF.
func NewFragmentReader(rc io.ReadCloser, f *pb.Fragment, offset int64) (*FragmentReader, error) {
	return newFragmentReader(rc, f, f.GetBegin(), offset)
}

// newFragmentReader is NewFragmentReader for a file whose first bytes, up to those of offset first, are left out.
func newFragmentReader(rc io.ReadCloser, f *pb.Fragment, first, offset int64) (*FragmentReader, error) {
	fr := &FragmentReader{Fragment: proto.CloneOf(f), Offset: first, raw: rc}
	if first == f.GetBegin() {
		fr.sum = fragment.NewSum(fr.Fragment)
	}
	fr.read, fr.skipped = traffic.ofFragment(fr.Fragment)
	fr.counter = fr.read
	var err error
	if offset > f.GetEnd() {
		err = io.EOF
	} else {
		fr.content, err = fragment.NewReader(rc, f.GetCompressionCodec())
	}
	if err == nil && offset > first {
		err = fr.discard(offset)
	}
	if err != nil {
		_ = fr.Close()
		return nil, err
	}
	return fr, nil
}

// discard reads on to an offset of the fragment.
func (fr *FragmentReader) discard(to int64) error {
	fr.counter = fr.skipped
	defer func() { fr.counter = fr.read }()
	_, err := io.CopyN(io.Discard, struct{ io.Reader }{fr}, to-fr.Offset)
	return err
}

// Read returns the next bytes of content. It returns io.EOF at the end of the fragment only: if the file ends earlier, an error
// that wraps io.ErrUnexpectedEOF, and if it goes on, ErrDidNotReadExpectedEOF along with the last bytes. Both are of the kind
// fault.DataLoss, unless it was the connection that ended.
func (fr *FragmentReader) Read(p []byte) (int, error) {
	if fr.err != nil || len(p) == 0 {
		return 0, fr.err
	}
	if fr.Offset == fr.End {
		fr.err = fr.atEnd()
		return 0, fr.err
	}
	n, err := fr.content.Read(p)
	if rest := fr.End - fr.Offset; int64(n) > rest {
		n, err = int(rest), ErrDidNotReadExpectedEOF
	}
	fr.Offset += int64(n)
	fr.counter.Add(float64(n))
	if fr.sum != nil {
		_, _ = fr.sum.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		if fr.Offset == fr.End {
			err = fr.check()
		} else {
			err = fault.New(fault.DataLoss, "fragment %s ends at offset %d: %w", fr.ContentPath(), fr.Offset, io.ErrUnexpectedEOF)
		}
	}
	fr.err = err
	return n, err
}

// atEnd returns how a file goes on behind its content.
func (fr *FragmentReader) atEnd() error {
	var more [1]byte
	switch _, err := io.ReadFull(fr.content, more[:]); {
	case err == nil:
		return ErrDidNotReadExpectedEOF
	case !errors.Is(err, io.EOF):
		return err
	}
	return fr.check()
}

// check returns how a file that has its end where it should ends.
func (fr *FragmentReader) check() error {
	if fr.sum != nil {
		if err := fr.sum.Check(); err != nil {
			return err
		}
	}
	return io.EOF
}

// Close closes the file.
func (fr *FragmentReader) Close() error {
	var err error
	if fr.content != nil {
		err = fr.content.Close()
	}
	if closeErr := fr.raw.Close(); err == nil {
		err = closeErr
	}
	return err
}
