package main

import (
	"math"

	"github.com/dustin/go-humanize"

	"github.com/daybook-dev/daybook/internal/fault"
)

// byteSize is a number of bytes, as 512MiB or 4GB.
type byteSize int64

// UnmarshalText implements encoding.TextUnmarshaler, for flags.
func (s *byteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n == 0 || n > math.MaxInt64 {
		return fault.New(fault.Invalid, "%q is no size; give one like 512MiB or 4GB", text)
	}
	*s = byteSize(n)
	return nil
}
