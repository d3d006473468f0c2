package protocol

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is the class of a rule that a message violates.
type Reason string

// The reasons why a message is not valid.
const (
	BadContentType      Reason = "content-type-not-media-type"
	BadTemplate         Reason = "bad-template"
	BothChanges         Reason = "both-upsert-and-delete"
	DisallowedCharacter Reason = "disallowed-character"
	EmptyAndNonEmpty    Reason = "label-mixes-empty-and-nonempty-values"
	EndpointsMismatch   Reason = "route-endpoints-mismatch"
	FieldMissing        Reason = "field-required"
	FieldSet            Reason = "field-must-be-unset"
	FileStoreHost       Reason = "file-store-with-host"
	FlushTooSmall       Reason = "flush-interval-too-small"
	InvalidCodec        Reason = "invalid-codec"
	InvalidFlags        Reason = "invalid-flags"
	InvalidURL          Reason = "url-invalid"
	LeadingSlash        Reason = "leading-slash"
	LengthOutOfRange    Reason = "length-out-of-range"
	LimitOutOfRange     Reason = "journal-limit-out-of-range"
	MembersUnsorted     Reason = "route-members-unsorted-or-duplicate"
	MetaInSpecName      Reason = "spec-name-has-metadata-segment"
	MissingCommit       Reason = "missing-commit"
	MissingCompanion    Reason = "missing-companion-label"
	MissingRegisters    Reason = "missing-registers"
	ModRevision         Reason = "mod-revision-not-positive"
	ExpectRevision      Reason = "expect-mod-revision-out-of-range"
	NegativePageToken   Reason = "negative-page-token"
	NegativeRate        Reason = "negative-max-append-rate"
	NeitherChange       Reason = "neither-upsert-nor-delete"
	OffloadWithFile     Reason = "gzip-offload-with-file-store"
	OffsetOutOfRange    Reason = "offset-out-of-range"
	EndOffsetOutOfRange Reason = "end-offset-out-of-range"
	PageLimit           Reason = "page-limit-out-of-range"
	ParentElement       Reason = "path-leaves-its-root"
	PathNotClean        Reason = "path-not-clean"
	PrefixNoSlash       Reason = "prefix-label-missing-trailing-slash"
	PrefixOutside       Reason = "prefix-flag-outside-selector"
	PrimaryOutOfRange   Reason = "route-primary-out-of-range"
	ProbeNoCheck        Reason = "delete-prefix-without-check-delete"
	ProbeNoSlash        Reason = "delete-prefix-missing-trailing-slash"
	ProbeTraversal      Reason = "delete-prefix-traversal"
	RefreshOutOfRange   Reason = "refresh-interval-out-of-range"
	Replication         Reason = "replication-out-of-range"
	ReservedName        Reason = "reserved-label-name"
	ReservedPrefix      Reason = "reserved-label-prefix"
	RevisionMissing     Reason = "etcd-field-not-positive"
	SelectorSyntax      Reason = "selector-syntax"
	SignatureTTL        Reason = "signature-ttl-not-positive"
	SingleValueRepeated Reason = "single-value-label-repeated"
	SpecFragmentLength  Reason = "fragment-length-out-of-range"
	StoreAccount        Reason = "store-missing-account"
	StoreBucket         Reason = "store-missing-bucket"
	StoreContainer      Reason = "store-missing-container"
	StoreScheme         Reason = "store-unknown-scheme"
	StoreTenant         Reason = "store-missing-tenant"
	StoreTrailingSlash  Reason = "store-path-missing-trailing-slash"
	TimeRange           Reason = "end-before-begin-mod-time"
	URLMissingHost      Reason = "url-missing-host"
	URLNotAbsolute      Reason = "url-not-absolute"
	Unsorted            Reason = "labels-unsorted-or-duplicate"
	UnknownStatus       Reason = "unknown-status"
	UnknownSuspendLevel Reason = "unknown-suspend-level"
	UnknownSuspendMode  Reason = "unknown-suspend-mode"
	BeginAfterEnd       Reason = "begin-after-end"
	FragmentName        Reason = "fragment-name-not-three-dash-fields"
	FragmentOffset      Reason = "fragment-offset-not-hex-int64"
	FragmentSumLength   Reason = "fragment-sum-wrong-length"
	FragmentSumNotHex   Reason = "fragment-sum-not-hex"
	UnknownExtension    Reason = "unknown-extension"
	WriteHeadOutOfRange Reason = "write-head-out-of-range"
)

// ValidationError says where a message violates which rule. Its gRPC code is InvalidArgument.
type ValidationError struct {
	// At is the dotted path to the offending field, such as "Fragment.Stores[1]"; empty for the message itself.
	At string
	// Reason is the violated rule.
	Reason Reason
	// Detail is the rule in words, with the offending value.
	Detail string
}

func (e *ValidationError) Error() string {
	if e.At == "" {
		return e.Detail
	}
	return e.At + ": " + e.Detail
}

// GRPCStatus gives the error its code wherever it meets a gRPC server, and its kind in package fault.
func (e *ValidationError) GRPCStatus() *status.Status {
	return status.New(codes.InvalidArgument, e.Error())
}

func violation(r Reason, format string, args ...any) error {
	return &ValidationError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// at puts the name of a field in front of the place that err names; nil stays nil.
func at(field string, err error) error {
	if err == nil {
		return nil // By far the most frequent case, for which nothing may be allocated.
	}
	v, ok := errors.AsType[*ValidationError](err)
	if !ok {
		return err
	}
	e := *v
	switch {
	case e.At == "":
		e.At = field
	case e.At[0] == '[':
		e.At = field + e.At
	default:
		e.At = field + "." + e.At
	}
	return &e
}

func index(i int, err error) error {
	if err == nil {
		return nil
	}
	return at(fmt.Sprintf("[%d]", i), err)
}

// Must returns v, or panics if err is not nil. It is for values known when the program is written.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
