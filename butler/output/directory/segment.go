package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"strings"
)

// maxSegment leaves room, in the 255 bytes that file systems allow, for what is put before and behind a segment.
const maxSegment = 200

// segment returns the name of a file or directory for a segment of a stream's name. No segment contains "%".
func segment(s string) string {
	if runtime.GOOS == "windows" {
		s = strings.ReplaceAll(s, ":", "%3A")
	}
	if len(s) <= maxSegment {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return s[:maxSegment-17] + "%" + hex.EncodeToString(sum[:8])
}
