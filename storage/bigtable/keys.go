package bigtable

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"math/bits"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

// sep separates the parts of a key. It sorts behind everything in them.
const sep = "~"

// streamID is the first part of the keys of a stream's rows.
type streamID string

func idOf(s storage.Stream) streamID {
	sum := sha256.Sum256([]byte(s.String()))
	return streamID(base64.URLEncoding.EncodeToString(sum[:]))
}

// idSize is the length of a streamID.
var idSize = base64.URLEncoding.EncodedLen(sha256.Size)

// key returns the key of a row with those entries.
func (id streamID) key(s runs.Span) string {
	return string(id) + sep + encodeInt(int64(s.End-1)) + sep + encodeInt(int64(s.End-s.First))
}

// from returns a key that sorts before all rows of the stream with an entry at the index or behind it, and behind most of the others.
func (id streamID) from(index types.MessageIndex) string {
	return string(id) + sep + encodeInt(int64(index))
}

// behind returns the index that lies n behind another one, or the last one there is.
func behind(index, n types.MessageIndex) types.MessageIndex {
	return index + min(n, math.MaxInt64-index)
}

// end returns a key that sorts behind all rows of the stream.
func (id streamID) end() string { return string(id) + sep + sep }

// parseKey takes a row's key apart.
func parseKey(key []byte) (streamID, runs.Span, error) {
	bad := func(why string) (streamID, runs.Span, error) {
		return "", runs.Span{}, fault.New(fault.DataLoss, "row key %q: %s", key, why)
	}
	parts := bytes.Split(key, []byte(sep))
	if len(parts) != 3 {
		return bad("it has not three parts")
	}
	if _, err := base64.URLEncoding.DecodeString(string(parts[0])); err != nil || len(parts[0]) != idSize {
		return bad("it begins with no hash")
	}
	last, err := decodeInt(parts[1])
	if err != nil {
		return bad(err.Error())
	}
	count, err := decodeInt(parts[2])
	if err != nil {
		return bad(err.Error())
	}
	if count < 1 || last < count-1 || last == math.MaxInt64 {
		return bad("there are no such entries")
	}
	return streamID(parts[0]), runs.Span{First: types.MessageIndex(last - count + 1), End: types.MessageIndex(last + 1)}, nil
}

// encodeInt encodes a number so that the codes sort as the numbers do: the first byte says how many bits follow, and these are moved to
// the left. Codes of negative numbers are complemented. The code is returned in hexadecimal digits.
func encodeInt(v int64) string {
	magnitude := uint64(v)
	if v < 0 {
		magnitude = -magnitude
	}
	n := max(1, bits.Len64(magnitude))
	var code [9]byte
	code[0] = 0x80 | byte(n-1)
	magnitude <<= 64 - n
	size := 1
	for left := n; left > 0; left -= 8 {
		code[size] = byte(magnitude >> 56)
		magnitude <<= 8
		size++
	}
	if v < 0 {
		for i := range code[:size] {
			code[i] = ^code[i]
		}
	}
	return hex.EncodeToString(code[:size])
}

var errNumber = fault.New(fault.DataLoss, "a number in it is malformed")

// decodeInt reads what encodeInt writes, and nothing else.
func decodeInt(digits []byte) (int64, error) {
	var code [9]byte
	size := hex.DecodedLen(len(digits))
	if size < 2 || size > len(code) {
		return 0, errNumber
	}
	if _, err := hex.Decode(code[:], digits); err != nil {
		return 0, errNumber
	}
	negative := code[0]&0x80 == 0
	if negative {
		for i := range code[:size] {
			code[i] = ^code[i]
		}
	}
	n := int(code[0]&0x7f) + 1
	if n > 64 || size != 1+(n+7)/8 {
		return 0, errNumber
	}
	var magnitude uint64
	for i, b := range code[1:] {
		magnitude |= uint64(b) << (56 - 8*i)
	}
	magnitude >>= 64 - n
	v := int64(magnitude)
	if negative {
		v = -v
	}
	if encodeInt(v) != string(bytes.ToLower(digits)) {
		return 0, errNumber
	}
	return v, nil
}
