package logpb

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/daybook-dev/daybook/logs/types"
)

// ValidateDescriptor checks a descriptor by the rules of spec butler 1.4. With withPrefix its prefix has to be there, too.
// The error names the first violation, in the order prefix, name, type, content type, timestamp, tags.
func ValidateDescriptor(d *LogStreamDescriptor, withPrefix bool) error {
	if d == nil {
		return errors.New("descriptor is missing")
	}
	if withPrefix {
		if err := types.StreamName(d.GetPrefix()).Validate(); err != nil {
			return fmt.Errorf("descriptor: prefix: %w", err)
		}
	}
	if err := types.StreamName(d.GetName()).Validate(); err != nil {
		return fmt.Errorf("descriptor: name: %w", err)
	}
	if _, ok := StreamType_name[int32(d.GetStreamType())]; !ok {
		return fmt.Errorf("descriptor: unknown stream type %d", d.GetStreamType())
	}
	if d.GetContentType() == "" {
		return errors.New("descriptor: content type is empty")
	}
	if d.GetTimestamp() == nil {
		return errors.New("descriptor: timestamp is missing")
	}
	for _, key := range slices.Sorted(maps.Keys(d.GetTags())) {
		if err := types.ValidateTag(key, d.GetTags()[key]); err != nil {
			return fmt.Errorf("descriptor: %w", err)
		}
	}
	return nil
}

// ValidateEntry checks that an entry has content, of the type that the descriptor says (spec butler 1.5).
func ValidateEntry(e *LogEntry, d *LogStreamDescriptor) error {
	switch t := d.GetStreamType(); t {
	case StreamType_TEXT:
		if len(e.GetText().GetLines()) == 0 {
			return fmt.Errorf("entry %d has no line of text", e.GetStreamIndex())
		}
	case StreamType_BINARY:
		if len(e.GetBinary().GetData()) == 0 {
			return fmt.Errorf("entry %d has no binary data", e.GetStreamIndex())
		}
	case StreamType_DATAGRAM:
		if e.GetDatagram() == nil {
			return fmt.Errorf("entry %d has no datagram", e.GetStreamIndex())
		}
	default:
		return fmt.Errorf("entry %d: unknown stream type %d", e.GetStreamIndex(), t)
	}
	return nil
}
