package protocol

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Validate returns an error unless the codec is known.
func (x CompressionCodec) Validate() error {
	if _, ok := CompressionCodec_name[int32(x)]; !ok || x == CompressionCodec_INVALID {
		return violation(InvalidCodec, "compression codec %d is not valid", int32(x))
	}
	return nil
}

// Extension returns the extension of files of the codec. It is empty for GZIP_OFFLOAD_DECOMPRESSION.
func (x CompressionCodec) Extension() string {
	switch x {
	case CompressionCodec_NONE:
		return ".raw"
	case CompressionCodec_GZIP:
		return ".gz"
	case CompressionCodec_ZSTANDARD:
		return ".zst"
	case CompressionCodec_SNAPPY:
		return ".sz"
	}
	return ""
}

// CodecOfExtension returns the codec of a file's extension, in either case.
func CodecOfExtension(ext string) (CompressionCodec, error) {
	switch strings.ToLower(ext) {
	case ".raw":
		return CompressionCodec_NONE, nil
	case ".gz", ".gzip":
		return CompressionCodec_GZIP, nil
	case ".zst", ".zstandard":
		return CompressionCodec_ZSTANDARD, nil
	case ".sz", ".snappy":
		return CompressionCodec_SNAPPY, nil
	case "", ".gzod":
		return CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION, nil
	}
	return CompressionCodec_INVALID, violation(UnknownExtension, "no compression codec has the extension %s", quote(ext))
}

// SHA1SumFromDigest returns the message of a digest.
func SHA1SumFromDigest(d [sha1.Size]byte) *SHA1Sum {
	return &SHA1Sum{
		Part1: binary.BigEndian.Uint64(d[0:8]),
		Part2: binary.BigEndian.Uint64(d[8:16]),
		Part3: binary.BigEndian.Uint32(d[16:20]),
	}
}

// SHA1SumOf returns the sum of b.
func SHA1SumOf(b []byte) *SHA1Sum {
	return SHA1SumFromDigest(sha1.Sum(b))
}

// ToDigest returns the digest that the message carries; all zeros for nil.
func (x *SHA1Sum) ToDigest() (d [sha1.Size]byte) {
	binary.BigEndian.PutUint64(d[0:8], x.GetPart1())
	binary.BigEndian.PutUint64(d[8:16], x.GetPart2())
	binary.BigEndian.PutUint32(d[16:20], x.GetPart3())
	return d
}

// IsZero reports whether all bytes of the digest are zero, as they are for an empty fragment.
func (x *SHA1Sum) IsZero() bool {
	return x.GetPart1() == 0 && x.GetPart2() == 0 && x.GetPart3() == 0
}

// Validate returns an error unless the fragment is a span of a valid journal.
func (x *Fragment) Validate() error {
	if err := Journal(x.GetJournal()).Validate(); err != nil {
		return at("Journal", err)
	}
	switch {
	case x.GetBegin() < 0:
		return violation(OffsetOutOfRange, "begin %d is negative", x.GetBegin())
	case x.GetBegin() > x.GetEnd():
		return violation(BeginAfterEnd, "begin %d is after end %d", x.GetBegin(), x.GetEnd())
	}
	if err := x.GetCompressionCodec().Validate(); err != nil {
		return at("CompressionCodec", err)
	}
	return at("PathPostfix", validatePath(x.GetPathPostfix(), 0, 512))
}

// ContentLength returns the number of uncompressed bytes.
func (x *Fragment) ContentLength() int64 { return x.GetEnd() - x.GetBegin() }

// ContentName returns the name of the fragment's file: its offsets, the sum of its content, and the codec's extension.
func (x *Fragment) ContentName() string {
	return fmt.Sprintf("%016x-%016x-%x%s", uint64(x.GetBegin()), uint64(x.GetEnd()), x.GetSum().ToDigest(), x.GetCompressionCodec().Extension())
}

// ContentPath returns the path of the fragment's file below the path of its store.
func (x *Fragment) ContentPath() string {
	dir := x.GetJournal() + "/"
	if x.GetPathPostfix() != "" {
		dir += x.GetPathPostfix() + "/"
	}
	return dir + x.ContentName()
}

// ParseFragmentFromRelativePath returns the fragment of a file, given its path below "<store>/<journal>/". The result has
// neither a store nor a modification time.
func ParseFragmentFromRelativePath(journal Journal, name string) (*Fragment, error) {
	f := &Fragment{Journal: string(journal)}
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if i == 0 {
			return nil, at("PathPostfix", violation(LeadingSlash, "path %s must not begin with a slash", quote(name)))
		}
		f.PathPostfix, name = name[:i], name[i+1:]
	}
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		base, ext = name[:i], name[i:]
	}
	fields := strings.Split(base, "-")
	if len(fields) != 3 {
		return nil, violation(FragmentName, "fragment name %s is not begin-end-sum", quote(base))
	}
	var err error
	if f.CompressionCodec, err = CodecOfExtension(ext); err != nil {
		return nil, err
	}
	if f.Begin, err = parseHexOffset(fields[0]); err != nil {
		return nil, at("Begin", err)
	}
	if f.End, err = parseHexOffset(fields[1]); err != nil {
		return nil, at("End", err)
	}
	sum, err := hex.DecodeString(fields[2])
	if err != nil {
		return nil, at("Sum", violation(FragmentSumNotHex, "%s is not hexadecimal", quote(fields[2])))
	}
	var d [sha1.Size]byte
	if copy(d[:], sum) != len(d) || len(sum) != len(d) {
		return nil, violation(FragmentSumLength, "sum %s does not have 40 digits", quote(fields[2]))
	}
	f.Sum = SHA1SumFromDigest(d)
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return f, nil
}

// parseHexOffset takes any number of digits in either case.
func parseHexOffset(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 16, 64)
	if err != nil {
		return 0, violation(FragmentOffset, "%s is not a hexadecimal offset", quote(s))
	}
	return n, nil
}
