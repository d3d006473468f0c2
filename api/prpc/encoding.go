package prpc

import (
	"mime"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
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
	switch e {
	case json:
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	case text:
		return prototext.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	return proto.Unmarshal(b, m)
}
