// Package types is the vocabulary of Daybook: projects, prefixes, stream names and paths, tags, indices and secrets, with all
// their rules and limits (spec butler 1, coordinator 2). It knows no messages and no I/O.
//
// Values are plain strings and integers of their own types. They are not necessarily valid: whoever receives one from
// outside calls Validate, whose error names the violation but not the kind; the server that refuses gives it its kind.
package types

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
)

// MessageIndex numbers the entries of a stream from 0. Negative means unknown or none.
type MessageIndex int64

// PrefixSecretLength is the exact length of a PrefixSecret in bytes.
const PrefixSecretLength = 36

// PrefixSecret proves the right to write to a prefix. It must never be logged; its String is a placeholder.
type PrefixSecret []byte

// NewPrefixSecret returns a secret of cryptographic randomness.
func NewPrefixSecret() PrefixSecret {
	s := make(PrefixSecret, PrefixSecretLength)
	_, _ = rand.Read(s) // never fails
	return s
}

// Validate checks the length.
func (s PrefixSecret) Validate() error {
	if len(s) != PrefixSecretLength {
		return fmt.Errorf("prefix secret has %d bytes; %d are required", len(s), PrefixSecretLength)
	}
	return nil
}

// Equal compares in constant time.
func (s PrefixSecret) Equal(o PrefixSecret) bool { return subtle.ConstantTimeCompare(s, o) == 1 }

// String hides the secret.
func (PrefixSecret) String() string { return "[secret]" }

// Project is the name of a project: a lower-case letter, then lower-case letters, digits, '-' and '_'.
type Project string

// MaxProjectLength is the most bytes of a project name.
const MaxProjectLength = 100

// Validate returns an error that names the first violation.
func (p Project) Validate() error {
	if p == "" {
		return fmt.Errorf("project is empty")
	}
	if len(p) > MaxProjectLength {
		return fmt.Errorf("project name has %d bytes; at most %d are allowed", len(p), MaxProjectLength)
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case 'a' <= c && c <= 'z':
		case i == 0:
			return fmt.Errorf("project %q does not begin with a lower-case letter", clip(string(p)))
		case '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("character %q at byte %d of the project name is not allowed; use a-z, 0-9, '-' and '_'", c, i)
		}
	}
	return nil
}
