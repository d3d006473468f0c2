package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is a unit of durations, in nanoseconds, or of sizes, in bytes.
type unit struct {
	name string
	size int64
}

// The units, those that values are written in first, the largest of them first.
var (
	timeUnits = []unit{
		{"d", int64(24 * time.Hour)},
		{"h", int64(time.Hour)},
		{"m", int64(time.Minute)},
		{"s", int64(time.Second)},
		{"w", int64(7 * 24 * time.Hour)},
	}
	sizeUnits = []unit{
		{"PiB", 1 << 50},
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"B", 1},
		{"PB", 1e15},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
	}
)

var (
	errDuration = errors.New("is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s")
	errSize     = errors.New("is no size; give one like 10GiB or 500MB, or a number of bytes")
	errTooLarge = errors.New("is too large")
	errNegative = errors.New("is negative")
)

// ParseDuration reads a duration as the file has it: whole numbers, each with its unit of w, d, h, m and s, as 30d or 1h30m; and 0.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// parseDuration reads a duration: whole numbers, each with its unit.
func parseDuration(s string) (time.Duration, error) {
	switch {
	case s == "0":
		return 0, nil
	case s == "":
		return 0, errDuration
	case s[0] == '-':
		return 0, errNegative
	}
	var sum int64
	for s != "" {
		n, name, rest := cutQuantity(s)
		size := sizeOf(timeUnits, name)
		switch {
		case n < 0 || size == 0:
			return 0, errDuration
		case n > (math.MaxInt64-sum)/size:
			return 0, errTooLarge
		}
		sum += n * size
		s = rest
	}
	return time.Duration(sum), nil
}

// parseSize reads a size in bytes: a whole number, with a unit or without.
func parseSize(s string) (int64, error) {
	if strings.HasPrefix(s, "-") {
		return 0, errNegative
	}
	n, name, rest := cutQuantity(s)
	name = strings.TrimPrefix(name, " ")
	if name == "" {
		name = "B"
	}
	size := sizeOf(sizeUnits, name)
	switch {
	case n < 0 || size == 0 || rest != "":
		return 0, errSize
	case n == math.MaxInt64 || n > math.MaxInt64/size:
		return 0, errTooLarge
	}
	return n * size, nil
}

// cutQuantity cuts a number and its unit from the beginning of s. The number is negative if there is none, and the largest there is
// if it is larger than that.
func cutQuantity(s string) (n int64, name, rest string) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if digits == 0 {
		return -1, "", s
	}
	n, _ = strconv.ParseInt(s[:digits], 10, 64)
	s = s[digits:]
	end := strings.IndexAny(s, "0123456789")
	if end < 0 {
		end = len(s)
	}
	return n, s[:end], s[end:]
}

func sizeOf(units []unit, name string) int64 {
	for _, u := range units {
		if u.name == name {
			return u.size
		}
	}
	return 0
}

// formatDuration returns what parseDuration reads as d, to the second.
func formatDuration(d time.Duration) string {
	var b strings.Builder
	for rest, i := int64(d), 0; i < 4; i++ {
		u := timeUnits[i]
		if n := rest / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(n, 10) + u.name)
			rest %= u.size
		}
	}
	if b.Len() == 0 {
		return "0"
	}
	return b.String()
}

// formatSize returns what parseSize reads as n.
func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n > 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
