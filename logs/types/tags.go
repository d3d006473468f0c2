package types

import "fmt"

const (
	// MaxTagKeyLength is the most bytes of a tag's key.
	MaxTagKeyLength = 64
	// MaxTagValueLength is the most bytes of a tag's value.
	MaxTagValueLength = 4096

	// ViewerURLTag is the key of the tag that links back to the page that produced the stream.
	ViewerURLTag = "logdog.viewer_url"
)

// ValidateTag checks a tag: the key is a stream name of limited length, the value anything of limited length (spec butler 1.2).
func ValidateTag(key, value string) error {
	if len(key) > MaxTagKeyLength {
		return fmt.Errorf("tag key has %d bytes; at most %d are allowed", len(key), MaxTagKeyLength)
	}
	if err := StreamName(key).Validate(); err != nil {
		return fmt.Errorf("tag key %q: %w", key, err)
	}
	if len(value) > MaxTagValueLength {
		return fmt.Errorf("tag %q: value has %d bytes; at most %d are allowed", key, len(value), MaxTagValueLength)
	}
	return nil
}
