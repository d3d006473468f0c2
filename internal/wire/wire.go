// Package wire bounds what a message in binary form takes when it is decoded. A field that takes two bytes on the wire may take more than a
// hundred in memory, and whoever may call has not been asked by then.
package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// MaxFields is the most fields that a message may have, with those of the messages in it.
const MaxFields = 1 << 20

// maxDepth is how deep messages are decoded at all.
const maxDepth = 10000

// TooMany tells whether b, which is a message of that type, has more than MaxFields. Of what is no message it need be right only up to where
// a decoder gives up. It allocates nothing, and short messages are not looked at.
func TooMany(b []byte, d protoreflect.MessageDescriptor) bool {
	if !Long(len(b)) {
		return false
	}
	left := MaxFields
	count(b, d, &left, maxDepth)
	return left < 0
}

// Long tells whether so many bytes can be too many fields: none takes less than two.
func Long(bytes int) bool { return bytes > 2*MaxFields }

// count takes the number of fields in b from left, until that is negative.
func count(b []byte, d protoreflect.MessageDescriptor, left *int, depth int) {
	for len(b) > 0 && *left >= 0 && depth > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return
		}
		*left--
		if f := d.Fields().ByNumber(number); kind == protowire.BytesType && f != nil && f.Message() != nil {
			v, _ := protowire.ConsumeBytes(b)
			count(v, f.Message(), left, depth-1)
		}
		b = b[n:]
	}
}
