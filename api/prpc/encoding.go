package prpc

import (
	"fmt"
	"mime"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/wire"
)

// encoding is how messages are written. Between equally welcome encodings the smaller value wins.
type encoding int

const (
	binary encoding = iota
	json
	text
)

// jsonPrefix keeps a JSON response from being run as a script of a page.
const jsonPrefix = ")]}'\n"

// mediaType returns the media type that is sent.
func (e encoding) mediaType() string {
	switch e {
	case json:
		return "application/json"
	case text:
		return "application/prpc; encoding=text"
	}
	return "application/prpc; encoding=binary"
}

// encodingOf returns the encoding that a media type stands for, or false if it stands for none. Nothing stands for binary.
func encodingOf(mediaType string) (encoding, bool) {
	if mediaType == "" {
		return binary, true
	}
	name, params, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return binary, false
	}
	switch name {
	case "application/json":
		return json, true
	case "application/grpc", "application/*", "*/*":
		return binary, len(params) == 0
	case "application/prpc":
		name, named := params["encoding"]
		if len(params) > 1 || len(params) == 1 && !named {
			return binary, false
		}
		switch name {
		case "":
			return binary, !named
		case "binary":
			return binary, true
		case "json":
			return json, true
		case "text":
			return text, true
		}
	}
	return binary, false
}

// marshal returns the bytes of a message, without what the body of a response has around them.
func (e encoding) marshal(m proto.Message) ([]byte, error) {
	switch e {
	case json:
		return protojson.Marshal(m)
	case text:
		return prototext.Marshal(m)
	}
	return proto.Marshal(m)
}

// body returns the body of a response that is m.
func (e encoding) body(m proto.Message) ([]byte, error) {
	if e != json {
		return e.marshal(m)
	}
	b, err := protojson.MarshalOptions{}.MarshalAppend([]byte(jsonPrefix), m)
	return append(b, '\n'), err
}

// unmarshal reads a message. Fields that are not known are ignored. m keeps no part of b.
func (e encoding) unmarshal(b []byte, m proto.Message) error {
	if e == binary && wire.TooMany(b, m.ProtoReflect().Descriptor()) || e != binary && tooMany(b) {
		return fmt.Errorf("it has more than %d fields", wire.MaxFields)
	}
	switch e {
	case json:
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	case text:
		if tooDeep(b) {
			return fmt.Errorf("messages are nested more than %d deep", maxDepth)
		}
		return prototext.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	return proto.Unmarshal(b, m)
}

// tooMany tells whether a message has, as far as can be told from its text, more fields and elements of lists than one may have.
func tooMany(b []byte) bool {
	if !wire.Long(len(b)) {
		return false
	}
	n := 0
	for _, c := range b {
		switch c {
		case ',', ':', '{', '<':
			n++
		}
	}
	return n > wire.MaxFields
}

// maxDepth is how deep messages may be nested, as in the other encodings.
const maxDepth = 10000

// tooDeep tells whether messages in text form are nested too deep. The decoder skips fields that it does not know by recursion,
// without a limit, and the end of the stack is the end of the process. Of text that is no message in text form, it need be right
// only up to where the decoder gives up.
func tooDeep(b []byte) bool {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '{', '<':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', '>':
			depth--
		case '#':
			for i < len(b) && b[i] != '\n' {
				i++
			}
		case '"', '\'':
			for i++; i < len(b) && b[i] != c; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
	}
	return false
}
