package types

import (
	"encoding/json"
	"fmt"
	"strings"
)

const (
	// MaxStreamNameLength is the most bytes of a name, and of a prefix.
	MaxStreamNameLength = 4096

	// StreamNameSep separates the segments of a name.
	StreamNameSep = '/'
)

// StreamName is one or more segments joined by slashes: the grammar of stream names, prefixes, namespaces and tag keys
// (spec butler 1.1.1). A StreamName value is not necessarily valid; Validate tells.
type StreamName string

// isAlnum and isNameByte are the two classes of the grammar.
func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func isNameByte(c byte) bool {
	return isAlnum(c) || c == ':' || c == '_' || c == '-' || c == '.'
}

// Validate returns an error that names the first violation of the grammar and its byte position.
func (s StreamName) Validate() error {
	switch {
	case s == "":
		return fmt.Errorf("name is empty")
	case len(s) > MaxStreamNameLength:
		return fmt.Errorf("name has %d bytes; at most %d are allowed", len(s), MaxStreamNameLength)
	}
	begin := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case begin:
			if !isAlnum(c) {
				return fmt.Errorf("segment at byte %d does not begin with an ASCII letter or digit", i)
			}
			begin = false
		case c == StreamNameSep:
			begin = true
		case !isNameByte(c):
			return fmt.Errorf("character %q at byte %d is not allowed; use ASCII letters, digits, ':', '_', '-', '.' and '/'", c, i)
		}
	}
	if begin {
		return fmt.Errorf("name ends with a slash")
	}
	return nil
}

// Trim removes all leading and trailing slashes.
func (s StreamName) Trim() StreamName { return StreamName(strings.Trim(string(s), "/")) }

// Join returns the path prefix/+/name, both trimmed. Empty parts are not special.
func (s StreamName) Join(name StreamName) StreamPath {
	return StreamPath(string(s.Trim()) + "/" + StreamPathSep + "/" + string(name.Trim()))
}

// Concat joins names with slashes, leaving out empty ones.
func (s StreamName) Concat(names ...StreamName) StreamName {
	parts := make([]string, 0, len(names)+1)
	for _, n := range append([]StreamName{s}, names...) {
		parts = append(parts, string(n))
	}
	return StreamName(Construct(parts...))
}

// AsPathPrefix returns prefix/+/name, or prefix/+ for an empty name.
func (s StreamName) AsPathPrefix(name StreamName) StreamPath {
	return StreamPath(Construct(string(s), StreamPathSep, string(name)))
}

// Segments returns the segments of the name; the empty name has none.
func (s StreamName) Segments() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), "/")
}

// SegmentCount returns len(Segments()).
func (s StreamName) SegmentCount() int {
	if s == "" {
		return 0
	}
	return strings.Count(string(s), "/") + 1
}

// Split separates the last segment: p/q/r gives p/q and r, p gives the empty name and p.
func (s StreamName) Split() (base, last StreamName) {
	i := strings.LastIndexByte(string(s), StreamNameSep)
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// Namespaces returns all enclosing namespaces, innermost first, each with a trailing slash, ending with the empty root.
func (s StreamName) Namespaces() []StreamName {
	var out []StreamName
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == StreamNameSep && i != len(s)-1 {
			out = append(out, s[:i+1])
		}
	}
	return append(out, "")
}

// AsNamespace appends a slash unless the name is empty or ends in one.
func (s StreamName) AsNamespace() StreamName {
	if s == "" || s[len(s)-1] == StreamNameSep {
		return s
	}
	return s + "/"
}

// String and Set make a StreamName a command-line flag; Set validates.
func (s *StreamName) String() string { return string(*s) }

// Set implements flag.Value.
func (s *StreamName) Set(v string) error {
	if err := StreamName(v).Validate(); err != nil {
		return err
	}
	*s = StreamName(v)
	return nil
}

// UnmarshalJSON decodes and validates.
func (s *StreamName) UnmarshalJSON(data []byte) error {
	var v string
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return s.Set(v)
}

// Construct drops empty parts, trims the slashes of the others, and joins them with slashes.
func Construct(parts ...string) string {
	kept := parts[:0:0]
	for _, p := range parts {
		if p = strings.Trim(p, "/"); p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "/")
}
