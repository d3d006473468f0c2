package types

import (
	"errors"
	"fmt"
	"strings"
)

// MakeStreamName makes a valid name of arbitrary text (spec butler 1.1.4). Each character of a segment that is not allowed,
// slashes included, becomes an underscore; a segment that then does not begin as it has to gets fill before it. fill needs to
// be valid only when it is used.
func MakeStreamName(fill string, segments ...string) (StreamName, error) {
	if len(segments) == 0 {
		return "", errors.New("a name needs at least one segment")
	}
	var b strings.Builder
	for i, segment := range segments {
		if i > 0 {
			b.WriteByte(StreamNameSep)
		}
		if segment == "" || !isAlnum(segment[0]) {
			if err := StreamName(fill).Validate(); err != nil {
				return "", fmt.Errorf("fill %q: %w", clip(fill), err)
			}
			b.WriteString(fill)
		}
		for _, r := range segment {
			if r >= 0x80 || !isNameByte(byte(r)) {
				r = '_'
			}
			b.WriteByte(byte(r))
		}
	}
	name := StreamName(b.String())
	if err := name.Validate(); err != nil {
		return "", err
	}
	return name, nil
}
