package main

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// streamSpec says what stream something is captured as: NAME, or a list like that of logdog_butler (spec butler 9.3):
// name=N,type=text|binary|datagram,content-type=T,tag=K=V. A backslash keeps the next character from having a meaning, double
// quotes those between them. A dash alone is no stream at all.
type streamSpec struct {
	off         bool
	name        types.StreamName
	typ         streamproto.StreamType
	contentType string
	tags        streamproto.TagMap
}

// UnmarshalText implements encoding.TextUnmarshaler, for flags.
func (s *streamSpec) UnmarshalText(text []byte) error {
	*s = streamSpec{off: string(text) == "-"}
	if s.off {
		return nil
	}
	fields, err := splitOptions(string(text))
	if err != nil {
		return err
	}
	for i, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if i == 0 && !ok {
			key, value = "name", key
		}
		var err error
		switch key {
		case "name":
			s.name = types.StreamName(value)
			err = s.name.Validate()
		case "type":
			err = s.typ.Set(value)
		case "content-type":
			s.contentType = value
		case "tag":
			err = s.tags.Set(value)
		default:
			err = fault.New(fault.Invalid, "there are name, type, content-type and tag")
		}
		if err != nil {
			return fault.New(fault.Invalid, "%q: %w", f, err)
		}
	}
	return nil
}

// splitOptions splits a list at its commas.
func splitOptions(s string) ([]string, error) {
	var fields []string
	var field strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			field.WriteByte(s[i])
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			fields = append(fields, field.String())
			field.Reset()
		default:
			field.WriteByte(c)
		}
	}
	if quoted {
		return nil, fault.New(fault.Invalid, "%q has a quote that does not end", s)
	}
	return append(fields, field.String()), nil
}

// descriptor describes the stream, which has the given name unless it was given one.
func (s *streamSpec) descriptor(name types.StreamName) *logpb.LogStreamDescriptor {
	d := &logpb.LogStreamDescriptor{
		Name: string(name), StreamType: logpb.StreamType(s.typ), ContentType: s.contentType, Tags: s.tags, Timestamp: timestamppb.Now(),
	}
	if s.name != "" {
		d.Name = string(s.name)
	}
	if d.ContentType == "" {
		d.ContentType = s.typ.DefaultContentType()
	}
	return d
}
