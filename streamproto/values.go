package streamproto

import (
	"bufio"
	"fmt"

	"github.com/daybook-dev/daybook/logs/frame"
)

// Limits of a Redact.
const (
	// MaxValues is how many values it has.
	MaxValues = 1000
	// MinValueSize and MaxValueSize are the bytes of a value.
	MinValueSize = 4
	MaxValueSize = 64 << 10
	// MaxValuesSize is the bytes of all values together.
	MaxValuesSize = 1 << 20
)

// ValuesError says that the values of a Redact are over a limit.
type ValuesError struct{ what string }

func (e *ValuesError) Error() string { return e.what }

func checkValue(size, total int) error {
	switch {
	case size < MinValueSize || size > MaxValueSize:
		return &ValuesError{fmt.Sprintf("a value to redact has %d bytes; between %d and %d are allowed", size, MinValueSize, MaxValueSize)}
	case total > MaxValuesSize:
		return &ValuesError{fmt.Sprintf("the values to redact have more than %d bytes", MaxValuesSize)}
	}
	return nil
}

// AppendRedact appends a whole request of version 2 with values that are to be redacted to dst.
func AppendRedact(dst []byte, values []string) ([]byte, error) {
	if n := len(values); n < 1 || n > MaxValues {
		return dst, fmt.Errorf("%d values to redact; between 1 and %d are allowed", n, MaxValues)
	}
	out, err := appendHandshake(dst, Magic2, &struct {
		Op    Op  `json:"op"`
		Count int `json:"count"`
	}{Redact, len(values)})
	if err != nil {
		return dst, err
	}
	total := 0
	for _, v := range values {
		total += len(v)
		if err := checkValue(len(v), total); err != nil {
			return dst, err
		}
		out = frame.Append(out, []byte(v))
	}
	return out, nil
}

// ReadValues reads the values behind the handshake of a Redact. A value over a limit is a *ValuesError.
func ReadValues(r *bufio.Reader, count int) ([]string, error) {
	var values []string
	total := 0
	for range count {
		size, err := frame.ReadLength(r, MaxHeaderSize)
		if err != nil {
			return nil, fmt.Errorf("values to redact: %w", err)
		}
		total += size
		if err := checkValue(size, total); err != nil {
			return nil, err
		}
		value, err := readExactly(r, size)
		if err != nil {
			return nil, fmt.Errorf("values to redact: %w", err)
		}
		values = append(values, string(value))
	}
	return values, nil
}
