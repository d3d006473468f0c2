package streamproto

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// StreamType is the type of a stream, as a word in JSON and on the command line.
type StreamType logpb.StreamType

// The types of streams.
const (
	Text     = StreamType(logpb.StreamType_TEXT)
	Binary   = StreamType(logpb.StreamType_BINARY)
	Datagram = StreamType(logpb.StreamType_DATAGRAM)
)

// Each type's word and default content type, in the order of the constants.
var streamTypes = [...]struct{ word, contentType string }{
	Text:     {"text", "text/plain; charset=utf-8"},
	Binary:   {"binary", "application/octet-stream"},
	Datagram: {"datagram", "application/x-logdog-datagram"},
}

func (t StreamType) known() bool { return t >= 0 && int(t) < len(streamTypes) }

// DefaultContentType returns the content type of a stream that does not say one.
func (t StreamType) DefaultContentType() string {
	if !t.known() {
		return ""
	}
	return streamTypes[t].contentType
}

// String returns the word for the type.
func (t StreamType) String() string {
	if !t.known() {
		return fmt.Sprintf("type %d", int32(t))
	}
	return streamTypes[t].word
}

// Set implements flag.Value.
func (t *StreamType) Set(s string) error {
	for i, known := range streamTypes {
		if s == known.word {
			*t = StreamType(i)
			return nil
		}
	}
	return fmt.Errorf("stream type %.40q is not text, binary or datagram", s)
}

// MarshalJSON encodes the word.
func (t StreamType) MarshalJSON() ([]byte, error) {
	if !t.known() {
		return nil, fmt.Errorf("unknown stream %v", t)
	}
	return json.Marshal(t.String())
}

// UnmarshalJSON decodes one of the words, and nothing else.
func (t *StreamType) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	return t.Set(s)
}

// TagMap is tags. As a flag it is given key=value, or key alone for an empty value, any number of times.
type TagMap map[string]string

// String returns the tags in the order of their keys, separated by commas.
func (m *TagMap) String() string {
	if m == nil {
		return ""
	}
	parts := make([]string, 0, len(*m))
	for _, k := range slices.Sorted(maps.Keys(*m)) {
		if v := (*m)[k]; v != "" {
			k += "=" + v
		}
		parts = append(parts, k)
	}
	return strings.Join(parts, ",")
}

// Set implements flag.Value; it adds one tag.
func (m *TagMap) Set(s string) error {
	key, value, _ := strings.Cut(s, "=")
	if err := types.ValidateTag(key, value); err != nil {
		return err
	}
	if *m == nil {
		*m = make(TagMap)
	}
	(*m)[key] = value
	return nil
}

// Validate returns an error that names the first bad tag.
func (m TagMap) Validate() error {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err := types.ValidateTag(k, m[k]); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalJSON decodes an object of strings and validates it; an empty one is nil.
func (m *TagMap) UnmarshalJSON(data []byte) error {
	var tags map[string]string
	if err := json.Unmarshal(data, &tags); err != nil {
		return err
	}
	if len(tags) == 0 {
		tags = nil
	}
	if err := TagMap(tags).Validate(); err != nil {
		return err
	}
	*m = tags
	return nil
}
