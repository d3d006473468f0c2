package collector

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// maxRuns bounds what a bundle can make of little bytes. A Butler mentions each of its streams at most once in a bundle.
const maxRuns = 1 << 16

var (
	errUTF8    = errors.New("a string is not UTF-8")
	errTooMany = fmt.Errorf("bundle has more than %d entries", maxRuns)
)

// bundle is a logpb.ButlerLogBundle whose log entries stay serialized, because that is how they are stored. Decoding them
// and encoding them again would cost more than everything else.
type bundle struct {
	// message is what the bundle came in, for the quarantine.
	message  []byte
	origin   origin
	refusals refusals
	// err says why all of the bundle was refused, if that is an error for the sender.
	err error

	project types.Project
	prefix  types.StreamName
	secret  types.PrefixSecret
	// runs are the entries that have anything to say.
	runs []*run
	// entries is the number of all entries, memory that of the bytes that it keeps.
	entries int
	memory  int
}

// origin is where a message was read; the zero value is nowhere in particular.
type origin struct {
	journal pb.Journal
	offset  int64
}

// run is a ButlerLogBundle.Entry: what the bundle says of one stream.
type run struct {
	desc     *logpb.LogStreamDescriptor // nil if missing
	terminal bool
	// end is valid if terminal; less than zero if the stream ended without an entry.
	end types.MessageIndex
	// ended is what the bundle says of the end; nil if nothing.
	ended *logpb.StreamEnd
	// values are the serialized log entries, from index first without a gap.
	first  types.MessageIndex
	values [][]byte
	// logs is how many log entries there are, also of a run that is refused.
	logs int
	size int

	// path and rawDesc, the serialized descriptor with its prefix, are set by prepare.
	path    types.StreamPath
	rawDesc []byte
	// err is what is wrong with the entry, which does not concern the others of the bundle.
	err error
}

// streamType returns the label of the run in metrics.
func (r *run) streamType() string {
	if name, ok := logpb.StreamType_name[int32(r.desc.GetStreamType())]; ok && r.desc != nil {
		return name
	}
	return "UNKNOWN"
}

// errVersion is returned for messages of another version, which are not looked at.
var errVersion = errors.New("unknown version of the bundle's messages")

// openMessage decodes a message, whose memory is kept. An error means that nothing can be made of it.
func openMessage(msg []byte) (*bundle, error) {
	b := &bundle{message: msg, memory: len(msg)}
	meta, body, err := envelope.Open(msg)
	if err != nil {
		return b, err
	}
	if meta.GetProtoVersion() != envelope.ProtoVersion {
		return b, errVersion
	}
	if meta.GetCompression() != envelope.None {
		// Storage may keep the entries, so their memory is never used again.
		if body, err = envelope.Inflate(nil, meta.GetCompression(), body); err != nil {
			return b, err
		}
		b.memory += len(body)
	}
	if err := b.parse(body); err != nil {
		b.runs = nil
		return b, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

// parse decodes a serialized bundle, whose memory is kept. It fails exactly when proto.Unmarshal does, or for too many entries.
func (b *bundle) parse(body []byte) error {
	f := fields{rest: body}
	for f.next() {
		if f.typ != protowire.BytesType {
			continue
		}
		switch f.num {
		case 1, 4, 5: // deprecated_source, project, prefix
			if !utf8.Valid(f.bytes) {
				return errUTF8
			}
			switch f.num {
			case 4:
				b.project = types.Project(f.bytes)
			case 5:
				b.prefix = types.StreamName(f.bytes)
			}
		case 2: // timestamp
			if err := checkMessage(f.bytes); err != nil {
				return err
			}
		case 3:
			if b.entries++; b.entries > maxRuns {
				return errTooMany
			}
			r, err := parseRun(f.bytes)
			if err != nil {
				return fmt.Errorf("entry %d: %w", b.entries-1, err)
			}
			if r != nil {
				b.runs = append(b.runs, r)
			}
		case 6:
			b.secret = f.bytes
		}
	}
	return f.err
}

// parseRun decodes a serialized ButlerLogBundle.Entry. It returns nil for one without anything to say.
func parseRun(body []byte) (*run, error) {
	var (
		desc, ended           []byte
		hasDesc, terminal     bool
		emptyStream, announce bool
		hasEnded              bool
		end                   uint64
		logs                  int
	)
	f := fields{rest: body}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType):
			// A message that appears again is merged: decoding both one after the other does that.
			desc, hasDesc = append(slices.Clip(desc), f.bytes...), true
		case f.is(3, protowire.VarintType):
			terminal = protowire.DecodeBool(f.value)
		case f.is(4, protowire.VarintType):
			end = f.value
		case f.is(5, protowire.BytesType):
			logs++
		case f.is(1000, protowire.VarintType):
			emptyStream = protowire.DecodeBool(f.value)
		case f.is(1001, protowire.VarintType):
			announce = protowire.DecodeBool(f.value)
		case f.is(1002, protowire.BytesType):
			hasEnded, ended = true, append(slices.Clip(ended), f.bytes...)
		}
	}
	if f.err != nil {
		return nil, f.err
	}
	r := &run{terminal: terminal, end: -1}
	if hasDesc {
		r.desc = new(logpb.LogStreamDescriptor)
		if err := proto.Unmarshal(desc, r.desc); err != nil {
			return nil, fmt.Errorf("descriptor: %w", err)
		}
	}
	if hasEnded {
		r.ended = new(logpb.StreamEnd)
		if err := proto.Unmarshal(ended, r.ended); err != nil {
			return nil, fmt.Errorf("end: %w", err)
		}
	}
	if terminal && !emptyStream {
		r.end = types.MessageIndex(end)
	}
	switch {
	case logs == 0 && !terminal && !announce:
		return nil, nil
	case terminal && emptyStream && logs > 0:
		r.err = errors.New("the stream is said to have ended without an entry, but there are some")
	case terminal && !emptyStream && end > math.MaxInt64:
		r.err = fmt.Errorf("terminal index %d is out of range", end)
	}
	return r, r.parseLogs(body, logs)
}

// parseLogs finds the n log entries in the serialized entry. An error means that it is malformed; when only its content is
// not what it has to be, that is the run's error.
func (r *run) parseLogs(body []byte, n int) error {
	if r.logs = n; n == 0 {
		return nil
	}
	k := 0
	var first uint64
	f := fields{rest: body}
	for f.next() {
		if !f.is(5, protowire.BytesType) {
			continue
		}
		log, err := scanLog(f.bytes)
		if err != nil {
			return fmt.Errorf("log entry %d: %w", k, err)
		}
		if k == 0 {
			first = log.index
		}
		if r.err == nil {
			r.err = r.checkLog(log, first, k)
		}
		if r.err != nil {
			r.values = nil
		} else {
			if r.values == nil {
				r.values = make([][]byte, 0, n)
			}
			r.values = append(r.values, f.bytes)
			r.size += len(f.bytes)
		}
		k++
	}
	r.first = types.MessageIndex(first)
	return nil
}

// checkLog checks the k-th log entry of a run from index first (spec collector 3, steps f and g).
func (r *run) checkLog(log logFacts, first uint64, k int) error {
	index := first + uint64(k)
	switch {
	case index >= math.MaxInt64: // no storage counts up to there
		return fmt.Errorf("log entry %d has the index %d, which is out of range", k, log.index)
	case log.index != index:
		return fmt.Errorf("log entry %d has the index %d and not %d: entries are not contiguous", k, log.index, index)
	}
	var want content
	switch r.desc.GetStreamType() {
	case logpb.StreamType_TEXT:
		want = textContent
	case logpb.StreamType_BINARY:
		want = binaryContent
	case logpb.StreamType_DATAGRAM:
		want = datagramContent
	default:
		return nil // the descriptor is refused later
	}
	if log.content != want || !log.filled {
		return fmt.Errorf("log entry with index %d has no content of type %v", index, r.desc.GetStreamType())
	}
	return nil
}

// release lets go of the memory of a bundle whose entries are stored. What it says of streams stays.
func (b *bundle) release() {
	b.message, b.secret = nil, nil
	for _, r := range b.runs {
		r.values = nil
	}
}

// validate checks what concerns all of a bundle.
func (b *bundle) validate() error {
	if err := b.project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	return fault.Wrap(fault.Invalid, b.prefix.Validate())
}

// prepare checks a run and fills in what follows from the bundle (steps b to h).
func (b *bundle) prepare(r *run) error {
	if err := b.check(r); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	r.path = b.prefix.Join(types.StreamName(r.desc.GetName()))
	var err error
	r.rawDesc, err = proto.MarshalOptions{Deterministic: true}.Marshal(r.desc)
	return fault.Wrap(fault.Invalid, err)
}

func (b *bundle) check(r *run) error {
	if err := b.secret.Validate(); err != nil {
		return err
	}
	if r.desc == nil {
		return errors.New("descriptor is missing")
	}
	switch r.desc.GetPrefix() {
	case "":
		r.desc.Prefix = string(b.prefix)
	case string(b.prefix):
	default:
		return errors.New("the descriptor's prefix is not that of the bundle")
	}
	if err := logpb.ValidateDescriptor(r.desc, true); err != nil {
		return err
	}
	return r.err
}
