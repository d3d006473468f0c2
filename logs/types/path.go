package types

import (
	"encoding/json"
	"fmt"
	"strings"
)

// StreamPathSep is the segment that separates prefix and name in a path.
const StreamPathSep = "+"

// StreamPath is prefix/+/name (spec butler 1.1.2). A StreamPath value is not necessarily valid; Validate tells.
type StreamPath string

// Split separates prefix and name at the first segment that is exactly "+".
func (p StreamPath) Split() (prefix, name StreamName) {
	prefix, _, name = p.SplitParts()
	return prefix, name
}

// SplitParts is Split, and tells whether the separator was there.
func (p StreamPath) SplitParts() (prefix StreamName, sep bool, name StreamName) {
	s := string(p)
	for i := 0; i <= len(s); {
		end := strings.IndexByte(s[i:], '/')
		if end < 0 {
			end = len(s)
		} else {
			end += i
		}
		if s[i:end] == StreamPathSep {
			prefix = StreamName(s[:max(i-1, 0)])
			if end < len(s) {
				name = StreamName(s[end+1:])
			}
			return prefix, true, name
		}
		i = end + 1
	}
	return StreamName(s), false, ""
}

// Validate demands a valid prefix and a valid name.
func (p StreamPath) Validate() error { return p.validate(true) }

// ValidatePartial accepts an empty prefix or an empty name, and validates what is there.
func (p StreamPath) ValidatePartial() error { return p.validate(false) }

func (p StreamPath) validate(full bool) error {
	prefix, sep, name := p.SplitParts()
	if full && !sep {
		return fmt.Errorf("path %q has no /+/ between prefix and name", clip(string(p)))
	}
	if full || prefix != "" {
		if err := prefix.Validate(); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	if full || name != "" {
		if err := name.Validate(); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	return nil
}

// String and Set make a StreamPath a command-line flag; Set validates.
func (p *StreamPath) String() string { return string(*p) }

// Set implements flag.Value.
func (p *StreamPath) Set(v string) error {
	if err := StreamPath(v).Validate(); err != nil {
		return err
	}
	*p = StreamPath(v)
	return nil
}

// UnmarshalJSON decodes and validates.
func (p *StreamPath) UnmarshalJSON(data []byte) error {
	var v string
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return p.Set(v)
}

// clip shortens text of unknown size for an error message.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
