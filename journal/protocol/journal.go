package protocol

import (
	"fmt"
	"path"
	"strings"
	"unicode"
)

const (
	minJournalName = 4
	maxJournalName = 512
)

// Offset is a byte position in a journal. OffsetHead, in a read, stands for the position at which the journal ends.
type Offset int64

// OffsetHead asks a read to begin at the write head.
const OffsetHead Offset = -1

// Journal is a reference to a journal: its name, or the name, a semicolon and a metadata segment. The segment never
// affects which journal is meant; it lets one process hold several distinct references to it.
type Journal string

// Validate returns an error unless the journal is a valid reference.
func (j Journal) Validate() error {
	name, meta := j.SplitMeta()
	if err := validatePath(string(name), minJournalName, maxJournalName); err != nil {
		return err
	}
	if meta != "" {
		return at("metadata path segment", validatePath(meta[1:], 1, maxJournalName))
	}
	return nil
}

// SplitMeta splits the reference into the name and the metadata segment with its leading semicolon.
func (j Journal) SplitMeta() (name Journal, meta string) {
	if i := strings.IndexByte(string(j), ';'); i >= 0 {
		return j[:i], string(j[i:])
	}
	return j, ""
}

// StripMeta returns the name without the metadata segment.
func (j Journal) StripMeta() Journal {
	name, _ := j.SplitMeta()
	return name
}

// String returns the reference as it is.
func (j Journal) String() string { return string(j) }

// isTokenRune and isPathRune are the two character classes of the protocol. Neither has a character at or below '#', which
// keys of brokers' registries depend on.
func isTokenRune(r rune) bool {
	switch r {
	case '-', '_', '+', '/', '.':
		return true
	}
	return unicode.IsLetter(r) || unicode.IsNumber(r)
}

func isPathRune(r rune) bool { return r == '=' || r == '%' || isTokenRune(r) }

func validateRunes(s string, minLen, maxLen int, allowed func(rune) bool) error {
	if len(s) < minLen || len(s) > maxLen {
		return violation(LengthOutOfRange, "length %d is not within %d and %d bytes", len(s), minLen, maxLen)
	}
	for i, r := range s {
		if !allowed(r) {
			return violation(DisallowedCharacter, "character %q at byte %d is not allowed", r, i)
		}
	}
	return nil
}

func validateToken(s string, minLen, maxLen int) error {
	return validateRunes(s, minLen, maxLen, isTokenRune)
}

func validatePathToken(s string, minLen, maxLen int) error {
	return validateRunes(s, minLen, maxLen, isPathRune)
}

// validatePath checks a clean, relative path. Unlike older brokers it refuses a path that begins with a ".." element, since
// such a name would escape the root of a store on a file system.
func validatePath(s string, minLen, maxLen int) error {
	if err := validatePathToken(s, minLen, maxLen); err != nil || s == "" {
		return err
	}
	switch {
	case s[0] == '/':
		return violation(LeadingSlash, "path %s must not begin with a slash", quote(s))
	case path.Clean(s) != s || s == ".":
		return violation(PathNotClean, "path %s is not clean; write %s", quote(s), quote(path.Clean(s)))
	case s == ".." || strings.HasPrefix(s, "../"):
		return violation(ParentElement, "path %s must not begin with \"..\"", quote(s))
	}
	return nil
}

// quote quotes text of a stranger for an error message, cut to a readable length.
func quote(s string) string {
	const most = 128
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
