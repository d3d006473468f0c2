package protocol

import (
	"mime"
	"strings"
	"time"
)

const (
	maxReplication  = 5
	minFragment     = 1 << 10
	maxFragment     = 1 << 34
	maxJournalLimit = 1 << 17
)

// Validate returns an error unless the flag is one of the known values. They are not bits to be combined.
func (x JournalSpec_Flag) Validate() error {
	switch x {
	case JournalSpec_NOT_SPECIFIED, JournalSpec_O_RDONLY, JournalSpec_O_WRONLY, JournalSpec_O_RDWR:
		return nil
	}
	return violation(InvalidFlags, "flags %d are not one of 0, 1, 2 and 4", int32(x))
}

// MayRead reports whether the flag permits reads.
func (x JournalSpec_Flag) MayRead() bool { return x != JournalSpec_O_WRONLY }

// MayWrite reports whether the flag permits appends.
func (x JournalSpec_Flag) MayWrite() bool { return x != JournalSpec_O_RDONLY }

// Validate returns an error unless a broker may hold a journal of this spec.
func (x *JournalSpec) Validate() error {
	if err := Journal(x.GetName()).Validate(); err != nil {
		return at("Name", err)
	}
	if _, meta := Journal(x.GetName()).SplitMeta(); meta != "" {
		return violation(MetaInSpecName, "name %s must not have a metadata segment", quote(x.GetName()))
	}
	if r := x.GetReplication(); r < 1 || r > maxReplication {
		return violation(Replication, "replication %d is not within 1 and %d", r, maxReplication)
	}
	if err := x.GetLabels().Validate(); err != nil {
		return at("Labels", err)
	}
	if len(x.GetLabels().ValuesOf(LabelName)) != 0 {
		return violation(ReservedName, "label %q is reserved", LabelName)
	}
	if len(x.GetLabels().ValuesOf(LabelPrefix)) != 0 {
		return violation(ReservedPrefix, "label %q is reserved", LabelPrefix)
	}
	if err := validateWellKnown(x.GetLabels()); err != nil {
		return at("Labels", err)
	}
	if err := x.GetFragment().Validate(); err != nil {
		return at("Fragment", err)
	}
	// The template sees the whole spec, so it is tried here and not with the fragment's other fields.
	if err := tryPathPostfix(x.GetFragment().GetPathPostfixTemplate()); err != nil {
		return at("Fragment", at("PathPostfixTemplate", err))
	}
	if err := JournalSpec_Flag(x.GetFlags()).Validate(); err != nil {
		return at("Flags", err)
	}
	if x.GetMaxAppendRate() < 0 {
		return violation(NegativeRate, "max_append_rate %d is negative", x.GetMaxAppendRate())
	}
	return at("Suspend", x.GetSuspend().Validate())
}

// validateWellKnown checks the labels that have a meaning of their own.
func validateWellKnown(s *LabelSet) error {
	for _, name := range []string{
		LabelContentType, LabelMessageType, LabelMessageSubType, LabelManagedBy, LabelInstance, LabelRegion,
	} {
		if len(s.ValuesOf(name)) > 1 {
			return violation(SingleValueRepeated, "label %s must have one value", name)
		}
	}
	if values := s.ValuesOf(LabelContentType); len(values) != 0 {
		if _, _, err := mime.ParseMediaType(values[0]); err != nil {
			return violation(BadContentType, "label %s: %s is not a media type", LabelContentType, quote(values[0]))
		}
	}
	for _, need := range [][2]string{{LabelMessageType, LabelContentType}, {LabelMessageSubType, LabelMessageType}} {
		if len(s.ValuesOf(need[0])) != 0 && len(s.ValuesOf(need[1])) == 0 {
			return violation(MissingCompanion, "label %s needs label %s", need[0], need[1])
		}
	}
	return nil
}

// DesiredReplication returns how many brokers should hold the journal, which depends on its suspension.
func (x *JournalSpec) DesiredReplication() int32 {
	switch x.GetSuspend().GetLevel() {
	case JournalSpec_Suspend_FULL:
		return 0
	case JournalSpec_Suspend_PARTIAL:
		return min(1, x.GetReplication())
	}
	return x.GetReplication()
}

// LabelSet returns the spec's labels, under the name by which path postfix templates know them.
func (x *JournalSpec) LabelSet() *LabelSet { return x.GetLabels() }

// LabelSetForMatching returns the spec's labels with the synthesized label "name", for selectors to match.
func (x *JournalSpec) LabelSetForMatching() *LabelSet {
	return UnionLabelSets(&LabelSet{Labels: []*Label{{Name: LabelName, Value: x.GetName()}}}, x.GetLabels())
}

// Validate returns an error unless fragments can be handled this way.
func (x *JournalSpec_Fragment) Validate() error {
	if l := x.GetLength(); l < minFragment || l > maxFragment {
		return violation(SpecFragmentLength, "length %d is not within %d and %d", l, minFragment, int64(maxFragment))
	}
	if err := x.GetCompressionCodec().Validate(); err != nil {
		return at("CompressionCodec", err)
	}
	for i, s := range x.GetStores() {
		if err := FragmentStore(s).Validate(); err != nil {
			return at("Stores", index(i, err))
		}
		if i == 0 && x.GetCompressionCodec() == CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION && strings.HasPrefix(s, "file:") {
			return violation(OffloadWithFile, "GZIP_OFFLOAD_DECOMPRESSION needs a first store that can decompress, not a file store")
		}
	}
	if d := x.GetRefreshInterval().AsDuration(); d < time.Second || d > 24*time.Hour {
		return violation(RefreshOutOfRange, "refresh_interval %s is not within 1s and 24h", d)
	}
	if d := x.GetFlushInterval().AsDuration(); d != 0 && d < time.Minute {
		return violation(FlushTooSmall, "flush_interval %s is less than 1m", d)
	}
	return nil
}

// Validate returns an error unless the level is known and the offset is one.
func (x *JournalSpec_Suspend) Validate() error {
	if _, ok := JournalSpec_Suspend_Level_name[int32(x.GetLevel())]; !ok {
		return at("Level", violation(UnknownSuspendLevel, "suspend level %d is not known", int32(x.GetLevel())))
	}
	if x.GetOffset() < 0 {
		return at("Offset", violation(OffsetOutOfRange, "offset %d is negative", x.GetOffset()))
	}
	return nil
}

// Validate returns an error unless the zone and the suffix are tokens.
func (x *ProcessSpec_ID) Validate() error {
	if err := validateToken(x.GetZone(), 1, 32); err != nil {
		return at("Zone", err)
	}
	return at("Suffix", validateToken(x.GetSuffix(), 4, 128))
}

// IsEmpty reports whether the ID is unspecified.
func (x *ProcessSpec_ID) IsEmpty() bool { return x.GetZone() == "" && x.GetSuffix() == "" }

// Validate returns an error unless the ID and the endpoint are valid.
func (x *ProcessSpec) Validate() error {
	if err := x.GetId().Validate(); err != nil {
		return at("Id", err)
	}
	return at("Endpoint", Endpoint(x.GetEndpoint()).Validate())
}

// Validate returns an error unless the process is valid and the limit is within bounds.
func (x *BrokerSpec) Validate() error {
	if err := x.GetProcessSpec().Validate(); err != nil {
		return at("ProcessSpec", err)
	}
	if x.GetJournalLimit() > maxJournalLimit {
		return violation(LimitOutOfRange, "journal_limit %d is more than %d", x.GetJournalLimit(), maxJournalLimit)
	}
	return nil
}
