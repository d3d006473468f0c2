package fragment

import (
	"crypto/sha1"
	"errors"
	"hash"
	"io"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Verify returns a reader of the content, which must be that of the fragment from its beginning. At the end of the content
// it returns an error of the kind fault.DataLoss instead of io.EOF unless length and sum are the fragment's. A sum of zeros is
// not known, and not compared.
func Verify(content io.Reader, f *pb.Fragment) io.Reader {
	return &verifier{r: content, fragment: f, sum: NewSum(f)}
}

type verifier struct {
	r        io.Reader
	fragment *pb.Fragment
	sum      *Sum
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	_, _ = v.sum.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if bad := v.sum.Check(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

// Sum computes what the name of a fragment says about its content. The content is written to it.
type Sum struct {
	fragment *pb.Fragment
	hash     hash.Hash
	length   int64
}

// NewSum returns the sum of no content yet.
func NewSum(f *pb.Fragment) *Sum {
	return &Sum{fragment: f, hash: sha1.New()}
}

// Write adds content. It does not fail.
func (s *Sum) Write(p []byte) (int, error) {
	s.length += int64(len(p))
	return s.hash.Write(p)
}

// Check returns an error of the kind fault.DataLoss unless what was written is the content of the fragment.
func (s *Sum) Check() error {
	want := s.fragment.ContentLength()
	if s.length != want {
		return fault.New(fault.DataLoss, "fragment %s has %d bytes of content instead of %d", s.fragment.ContentPath(), s.length, want)
	}
	if s.fragment.GetSum().IsZero() {
		return nil
	}
	digest := s.fragment.GetSum().ToDigest()
	if got := s.hash.Sum(nil); string(got) != string(digest[:]) {
		return fault.New(fault.DataLoss, "fragment %s is damaged: the sum of its content is %x", s.fragment.ContentPath(), got)
	}
	return nil
}
