package types

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// PrefixID names a prefix within its project: SHA-256 in lower-case hexadecimal (spec coordinator 2.9).
type PrefixID string

// StreamID names a stream within its project, in the same form.
type StreamID string

// PrefixID returns the id of the name as a prefix.
func (s StreamName) PrefixID() PrefixID { return PrefixID(hash(string(s))) }

// ID returns the id of the stream.
func (p StreamPath) ID() StreamID {
	prefix, name := p.Split()
	return StreamID(hash(string(prefix.Join(name))))
}

// ParsePrefixID returns the id in s in its normal form, or an error when it is none.
func ParsePrefixID(s string) (PrefixID, error) {
	id, err := parseHash(s)
	return PrefixID(id), err
}

// ParseStreamID returns the id in s in its normal form, or an error when it is none.
func ParseStreamID(s string) (StreamID, error) {
	id, err := parseHash(s)
	return StreamID(id), err
}

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func parseHash(s string) (string, error) {
	if len(s) != 2*sha256.Size {
		return "", fmt.Errorf("id has %d characters; %d are required", len(s), 2*sha256.Size)
	}
	if _, err := hex.DecodeString(s); err != nil {
		return "", fmt.Errorf("id %q is not hexadecimal", s)
	}
	return strings.ToLower(s), nil
}
