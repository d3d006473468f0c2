package spectree

import (
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Enumerations are written by name, and read also by number.
type (
	// Codec is how the files of fragments are compressed.
	Codec pb.CompressionCodec
	// Flag says what may be done with a journal.
	Flag pb.JournalSpec_Flag
	// Level is how far a journal is suspended.
	Level pb.JournalSpec_Suspend_Level
)

func enumOf(node *yaml.Node, what string, values map[string]int32) (int32, error) {
	if node.Kind == yaml.ScalarNode {
		if v, ok := values[node.Value]; ok {
			return v, nil
		}
		if v, err := strconv.ParseInt(node.Value, 10, 32); err == nil {
			return int32(v), nil
		}
	}
	return 0, fault.New(fault.Invalid, "line %d: %q is not a %s", node.Line, node.Value, what)
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (c *Codec) UnmarshalYAML(node *yaml.Node) error {
	v, err := enumOf(node, "compression codec", pb.CompressionCodec_value)
	*c = Codec(v)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (c Codec) MarshalYAML() (any, error) { return pb.CompressionCodec(c).String(), nil }

// UnmarshalYAML implements yaml.Unmarshaler.
func (f *Flag) UnmarshalYAML(node *yaml.Node) error {
	v, err := enumOf(node, "flag", pb.JournalSpec_Flag_value)
	*f = Flag(v)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (f Flag) MarshalYAML() (any, error) {
	if name, ok := pb.JournalSpec_Flag_name[int32(f)]; ok {
		return name, nil
	}
	return int32(f), nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *Level) UnmarshalYAML(node *yaml.Node) error {
	v, err := enumOf(node, "level of suspension", pb.JournalSpec_Suspend_Level_value)
	*l = Level(v)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (l Level) MarshalYAML() (any, error) { return pb.JournalSpec_Suspend_Level(l).String(), nil }

// Duration is written like 1h30m0s.
type Duration time.Duration

func (d Duration) std() time.Duration { return time.Duration(d) }

// UnmarshalYAML implements yaml.Unmarshaler. A number without a unit counts nanoseconds, and is refused where that can only be a
// mistake.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return fault.New(fault.Invalid, "line %d: not a duration; write one like 1h30m", node.Line)
	}
	if n, err := strconv.ParseInt(node.Value, 10, 64); err == nil {
		if n > 0 && n < int64(time.Second) {
			return fault.New(fault.Invalid, "line %d: duration %d has no unit; write %ds or the like", node.Line, n, n)
		}
		*d = Duration(n)
		return nil
	}
	v, err := time.ParseDuration(node.Value)
	if err != nil {
		return fault.New(fault.Invalid, "line %d: %q is not a duration; write one like 1h30m", node.Line, node.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.std().String(), nil }
