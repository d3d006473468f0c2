package collector

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

var errFieldNumber = errors.New("a field's number is out of range")

// fields iterates over the fields of a serialized message.
type fields struct {
	rest []byte

	num   protowire.Number
	typ   protowire.Type
	value uint64 // of a varint
	bytes []byte // of a length-delimited field
	err   error
}

// next advances to the next field. At the end, and at the first malformed field, it returns false; err tells which.
func (f *fields) next() bool {
	if len(f.rest) == 0 {
		return false
	}
	n := 1
	if tag := f.rest[0]; tag >= 1<<3 && tag < 0x80 { // nearly always
		f.num, f.typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	} else if f.num, f.typ, n = protowire.ConsumeTag(f.rest); n < 0 {
		f.err = protowire.ParseError(n)
		return false
	} else if f.num > protowire.MaxValidNumber {
		f.err = errFieldNumber
		return false
	}
	b := f.rest[n:]
	switch f.typ {
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(b)
	default:
		n = protowire.ConsumeFieldValue(f.num, f.typ, b)
	}
	if n < 0 {
		f.err = protowire.ParseError(n)
		return false
	}
	f.rest = b[n:]
	return true
}

// is reports whether the current field has the number and the type. Fields of another type are treated as unknown ones, as
// every decoder does.
func (f *fields) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

// checkMessage checks that b is well-formed.
func checkMessage(b []byte) error {
	f := fields{rest: b}
	for f.next() {
	}
	return f.err
}

// content is which member of an entry's content is set.
type content uint8

const (
	noContent content = iota
	textContent
	binaryContent
	datagramContent
)

// logFacts is what has to be known of a serialized LogEntry to store it.
type logFacts struct {
	index   uint64
	content content
	// filled says that text has a line, or binary data.
	filled bool
}

// scanLog finds the facts about a serialized logpb.LogEntry. It accepts exactly what proto.Unmarshal accepts.
func scanLog(b []byte) (logFacts, error) {
	var log logFacts
	// A member that appears again is merged with what was there, unless another was set meanwhile.
	set := func(c content) {
		if log.content != c {
			log.content, log.filled = c, false
		}
	}
	f := fields{rest: b}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType): // time_offset
			if err := checkMessage(f.bytes); err != nil {
				return log, err
			}
		case f.is(3, protowire.VarintType):
			log.index = f.value
		case f.is(10, protowire.BytesType):
			set(textContent)
			lines, err := countLines(f.bytes)
			if err != nil {
				return log, err
			}
			log.filled = log.filled || lines > 0
		case f.is(11, protowire.BytesType):
			set(binaryContent)
			binary := fields{rest: f.bytes}
			for binary.next() {
				if binary.is(2, protowire.BytesType) {
					log.filled = len(binary.bytes) > 0
				}
			}
			if binary.err != nil {
				return log, binary.err
			}
		case f.is(12, protowire.BytesType):
			set(datagramContent)
			log.filled = true // an empty datagram is one, too
			datagram := fields{rest: f.bytes}
			for datagram.next() {
				if datagram.is(2, protowire.BytesType) { // partial
					if err := checkMessage(datagram.bytes); err != nil {
						return log, err
					}
				}
			}
			if datagram.err != nil {
				return log, datagram.err
			}
		}
	}
	return log, f.err
}

// countLines returns the number of lines of a serialized logpb.Text.
func countLines(b []byte) (int, error) {
	lines := 0
	text := fields{rest: b}
	for {
		for n := usualLine(text.rest); n > 0; n = usualLine(text.rest) {
			lines++
			text.rest = text.rest[n:]
		}
		if !text.next() {
			break
		}
		if !text.is(1, protowire.BytesType) {
			continue
		}
		lines++
		line := fields{rest: text.bytes}
		for line.next() {
			if line.is(2, protowire.BytesType) && !utf8.Valid(line.bytes) { // delimiter, the only string
				return 0, errUTF8
			}
		}
		if line.err != nil {
			return 0, line.err
		}
	}
	return lines, text.err
}

// usualLine returns the size of the line at the front of a serialized logpb.Text, its key and length included, if it is one as Butlers
// write nearly always: a value of less than 16 KiB, and a delimiter of one byte. Otherwise it returns 0, and it is for others to say
// what is there.
func usualLine(b []byte) int {
	line, size := usualField(b)
	if n := len(line) - 3; n >= 0 {
		value, delimiter := line[:n], line[n:]
		if delimiter[0] != 2<<3|2 || delimiter[1] != 1 || delimiter[2] >= utf8.RuneSelf {
			return 0
		}
		if _, taken := usualField(value); taken == len(value) {
			return size
		}
	}
	return 0
}

// usualField returns the content and the size of a length-delimited field with number 1 and less than 16 KiB, or 0.
func usualField(b []byte) (content []byte, size int) {
	if len(b) < 2 || b[0] != 1<<3|2 {
		return nil, 0
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		if len(b) < 3 || b[2] >= 0x80 {
			return nil, 0
		}
		n, head = n&0x7f|int(b[2])<<7, 3
	}
	if size = head + n; size > len(b) {
		return nil, 0
	}
	return b[head:size], size
}
