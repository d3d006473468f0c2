package protocol

import (
	"net/url"
	"strings"
)

// MaxPageLimit is the most fragments of a page, and DefaultPageLimit what a request without a limit means.
const (
	MaxPageLimit     = 10_000
	DefaultPageLimit = 1_000
)

// Validate returns an error unless the status is known.
func (x Status) Validate() error {
	if _, ok := Status_name[int32(x)]; !ok {
		return violation(UnknownStatus, "status %d is not known", int32(x))
	}
	return nil
}

// Validate returns an error unless the mode is known.
func (x AppendRequest_Suspend) Validate() error {
	if _, ok := AppendRequest_Suspend_name[int32(x)]; !ok {
		return violation(UnknownSuspendMode, "suspend mode %d is not known", int32(x))
	}
	return nil
}

// Validate returns an error unless the request is well-formed.
func (x *ReadRequest) Validate() error {
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if err := Journal(x.GetJournal()).Validate(); err != nil {
		return at("Journal", err)
	}
	if x.GetOffset() < int64(OffsetHead) {
		return violation(OffsetOutOfRange, "offset %d is less than -1", x.GetOffset())
	}
	if end := x.GetEndOffset(); end != 0 && (end < 0 || end < x.GetOffset()) {
		return violation(EndOffsetOutOfRange, "end_offset %d is less than offset %d", end, x.GetOffset())
	}
	return nil
}

// Validate returns an error unless the response is a proper message of content or of metadata.
func (x *ReadResponse) Validate() error {
	if err := x.GetStatus().Validate(); err != nil {
		return at("Status", err)
	}
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if len(x.GetContent()) != 0 {
		return x.validateContent()
	}
	if x.GetWriteHead() < 0 {
		return violation(WriteHeadOutOfRange, "write_head %d is negative", x.GetWriteHead())
	}
	f := x.GetFragment()
	if f == nil {
		switch {
		case x.GetFragmentUrl() != "":
			return violation(FieldSet, "fragment_url must be unset without a fragment")
		case x.GetStatus() == Status_OK && x.GetOffset() != 0:
			return violation(FieldSet, "offset must be unset without a fragment")
		}
		return nil
	}
	if err := f.Validate(); err != nil {
		return at("Fragment", err)
	}
	switch {
	case x.GetOffset() < f.GetBegin() || x.GetOffset() >= f.GetEnd():
		return violation(OffsetOutOfRange, "offset %d is not within the fragment [%d, %d)", x.GetOffset(), f.GetBegin(), f.GetEnd())
	case x.GetWriteHead() < f.GetEnd():
		return violation(WriteHeadOutOfRange, "write_head %d is less than the fragment's end %d", x.GetWriteHead(), f.GetEnd())
	}
	if _, err := url.Parse(x.GetFragmentUrl()); err != nil {
		return at("FragmentUrl", violation(InvalidURL, "not a URL"))
	}
	return nil
}

func (x *ReadResponse) validateContent() error {
	switch {
	case x.GetStatus() != Status_OK:
		return violation(FieldSet, "status %s must not come with content", x.GetStatus())
	case x.GetHeader() != nil:
		return violation(FieldSet, "header must be unset with content")
	case x.GetWriteHead() != 0:
		return violation(FieldSet, "write_head must be unset with content")
	case x.GetFragment() != nil:
		return violation(FieldSet, "fragment must be unset with content")
	case x.GetFragmentUrl() != "":
		return violation(FieldSet, "fragment_url must be unset with content")
	case x.GetOffset() < 0:
		return violation(OffsetOutOfRange, "offset %d is negative", x.GetOffset())
	}
	return nil
}

// IsOpening reports whether the message opens an append, rather than continuing one.
func (x *AppendRequest) IsOpening() bool { return x.GetJournal() != "" }

// Validate returns an error unless the message is a proper opening, chunk, or intent to commit.
func (x *AppendRequest) Validate() error {
	if !x.IsOpening() {
		return x.validateChunk()
	}
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if err := Journal(x.GetJournal()).Validate(); err != nil {
		return at("Journal", err)
	}
	if len(x.GetContent()) != 0 {
		return violation(FieldSet, "content must be unset with a journal")
	}
	if x.GetOffset() < 0 {
		return violation(OffsetOutOfRange, "offset %d is negative", x.GetOffset())
	}
	if err := x.GetCheckRegisters().Validate(); err != nil {
		return at("CheckRegisters", err)
	}
	if err := x.GetUnionRegisters().Validate(); err != nil {
		return at("UnionRegisters", err)
	}
	if err := x.GetSubtractRegisters().Validate(); err != nil {
		return at("SubtractRegisters", err)
	}
	return at("Suspend", x.GetSuspend().Validate())
}

func (x *AppendRequest) validateChunk() error {
	field := ""
	switch {
	case x.GetHeader() != nil:
		field = "header"
	case x.GetDoNotProxy():
		field = "do_not_proxy"
	case x.GetOffset() != 0:
		field = "offset"
	case x.GetCheckRegisters() != nil:
		field = "check_registers"
	case x.GetUnionRegisters() != nil:
		field = "union_registers"
	case x.GetSubtractRegisters() != nil:
		field = "subtract_registers"
	case x.GetSuspend() != 0:
		field = "suspend"
	default:
		return nil
	}
	return violation(FieldSet, "%s must be unset without a journal", field)
}

// Validate returns an error unless the response has what its status promises.
func (x *AppendResponse) Validate() error {
	if err := validateStatusAndHeader(x); err != nil {
		return err
	}
	if x.GetStatus() == Status_OK && x.GetCommit() == nil {
		return violation(MissingCommit, "commit is missing")
	}
	if x.GetCommit() != nil {
		if err := x.GetCommit().Validate(); err != nil {
			return at("Commit", err)
		}
	}
	if s := x.GetStatus(); (s == Status_OK || s == Status_REGISTER_MISMATCH) && x.GetRegisters() == nil {
		return violation(MissingRegisters, "registers are missing")
	}
	return at("Registers", x.GetRegisters().Validate())
}

// Validate returns an error unless the message is a proper proposal or chunk.
func (x *ReplicateRequest) Validate() error {
	if x.GetProposal() == nil {
		return x.validateChunk()
	}
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if x.GetHeader() != nil && !x.GetAcknowledge() {
		return violation(FieldMissing, "acknowledge must be set with a header")
	}
	if err := x.GetProposal().Validate(); err != nil {
		return at("Proposal", err)
	}
	switch {
	case x.GetDeprecatedJournal() != "" && x.GetDeprecatedJournal() != x.GetProposal().GetJournal():
		return at("DeprecatedJournal", violation(FieldSet, "differs from the proposal's journal"))
	case len(x.GetContent()) != 0:
		return violation(FieldSet, "content must be unset with a proposal")
	case x.GetContentDelta() != 0:
		return violation(FieldSet, "content_delta must be unset with a proposal")
	}
	return at("Registers", x.GetRegisters().Validate())
}

func (x *ReplicateRequest) validateChunk() error {
	switch {
	case x.GetHeader() != nil:
		return violation(FieldSet, "header must be unset without a proposal")
	case x.GetDeprecatedJournal() != "":
		return violation(FieldSet, "deprecated_journal must be unset without a proposal")
	case x.GetRegisters() != nil:
		return violation(FieldSet, "registers must be unset without a proposal")
	case x.GetAcknowledge():
		return violation(FieldSet, "acknowledge must be unset without a proposal")
	case len(x.GetContent()) == 0:
		return violation(FieldMissing, "content is missing")
	case x.GetContentDelta() < 0:
		return violation(OffsetOutOfRange, "content_delta %d is negative", x.GetContentDelta())
	}
	return nil
}

// Validate returns an error unless fragment and registers come exactly with PROPOSAL_MISMATCH. A header is tolerated with
// every status, since brokers send one.
func (x *ReplicateResponse) Validate() error {
	if err := x.GetStatus().Validate(); err != nil {
		return at("Status", err)
	}
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if x.GetStatus() == Status_WRONG_ROUTE && x.GetHeader() == nil {
		return violation(FieldMissing, "header is missing")
	}
	if x.GetStatus() != Status_PROPOSAL_MISMATCH {
		if x.GetFragment() != nil || x.GetRegisters() != nil {
			return violation(FieldSet, "fragment and registers must be unset with status %s", x.GetStatus())
		}
		return nil
	}
	if x.GetFragment() == nil || x.GetRegisters() == nil {
		return violation(FieldMissing, "fragment or registers are missing")
	}
	if err := x.GetFragment().Validate(); err != nil {
		return at("Fragment", err)
	}
	return at("Registers", x.GetRegisters().Validate())
}

// Validate returns an error unless the selector is valid. Values of its legacy label "prefix" must end with a slash.
func (x *ListRequest) Validate() error {
	if err := x.GetSelector().Validate(); err != nil {
		return at("Selector", err)
	}
	for _, set := range []*LabelSet{x.GetSelector().GetInclude(), x.GetSelector().GetExclude()} {
		for _, v := range set.ValuesOf(LabelPrefix) {
			if !strings.HasSuffix(v, "/") {
				return violation(PrefixNoSlash, "value %s of label prefix must end with a slash", quote(v))
			}
		}
	}
	return nil
}

// Validate returns an error unless the response could be the first of a snapshot.
func (x *ListResponse) Validate() error {
	if err := validateStatusAndHeader(x); err != nil {
		return err
	}
	for i, j := range x.GetJournals() {
		if err := j.Validate(); err != nil {
			return at("Journals", index(i, err))
		}
	}
	return nil
}

// Validate returns an error unless the spec, its revision and its route are valid.
func (x *ListResponse_Journal) Validate() error {
	if err := x.GetSpec().Validate(); err != nil {
		return at("Spec", err)
	}
	if x.GetModRevision() <= 0 {
		return violation(ModRevision, "mod_revision %d is not positive", x.GetModRevision())
	}
	return at("Route", x.GetRoute().Validate())
}

// Validate returns an error unless each change is valid.
func (x *ApplyRequest) Validate() error {
	for i, c := range x.GetChanges() {
		if err := c.Validate(); err != nil {
			return at("Changes", index(i, err))
		}
	}
	return nil
}

// Validate returns an error unless the change is one upsert or one delete. A delete names a journal without metadata.
func (x *ApplyRequest_Change) Validate() error {
	switch {
	case x.GetUpsert() != nil && x.GetDelete() != "":
		return violation(BothChanges, "both upsert and delete are set")
	case x.GetUpsert() != nil:
		if x.GetExpectModRevision() < -1 {
			return violation(ExpectRevision, "expect_mod_revision %d is less than -1", x.GetExpectModRevision())
		}
		return at("Upsert", x.GetUpsert().Validate())
	case x.GetDelete() != "":
		j := Journal(x.GetDelete())
		if err := j.Validate(); err != nil {
			return at("Delete", err)
		}
		if _, meta := j.SplitMeta(); meta != "" {
			return at("Delete", violation(MetaInSpecName, "name %s must not have a metadata segment", quote(string(j))))
		}
		if r := x.GetExpectModRevision(); r != -1 && r <= 0 {
			return violation(ExpectRevision, "expect_mod_revision %d of a delete is neither -1 nor positive", r)
		}
		return nil
	}
	return violation(NeitherChange, "neither upsert nor delete is set")
}

// Validate returns an error unless status and header are valid.
func (x *ApplyResponse) Validate() error { return validateStatusAndHeader(x) }

// Validate returns an error unless the request is well-formed.
func (x *FragmentsRequest) Validate() error {
	if err := x.GetHeader().validateOptional(); err != nil {
		return err
	}
	if err := Journal(x.GetJournal()).Validate(); err != nil {
		return at("Journal", err)
	}
	switch {
	case x.GetEndModTime() != 0 && x.GetEndModTime() < x.GetBeginModTime():
		return violation(TimeRange, "end_mod_time %d is before begin_mod_time %d", x.GetEndModTime(), x.GetBeginModTime())
	case x.GetNextPageToken() < 0:
		return violation(NegativePageToken, "next_page_token %d is negative", x.GetNextPageToken())
	case x.GetPageLimit() < 0 || x.GetPageLimit() > MaxPageLimit:
		return violation(PageLimit, "page_limit %d is not within 0 and %d", x.GetPageLimit(), MaxPageLimit)
	case x.GetSignatureTTL() != nil && x.GetSignatureTTL().AsDuration() <= 0:
		return violation(SignatureTTL, "signatureTTL %s is not positive", x.GetSignatureTTL().AsDuration())
	}
	return nil
}

// Validate returns an error unless status, header and fragments are valid.
func (x *FragmentsResponse) Validate() error {
	if err := validateStatusAndHeader(x); err != nil {
		return err
	}
	for i, f := range x.GetFragments() {
		if err := f.Validate(); err != nil {
			return at("Fragments", index(i, err))
		}
	}
	return nil
}

// Validate returns an error unless the fragment and its URL are valid.
func (x *FragmentsResponse_XFragment) Validate() error {
	if err := x.GetSpec().Validate(); err != nil {
		return at("Spec", err)
	}
	if _, err := url.Parse(x.GetSignedUrl()); err != nil {
		return at("SignedUrl", violation(InvalidURL, "not a URL"))
	}
	return nil
}

// Validate returns an error unless the store is valid and the probe for deletes stays inside of it.
func (x *FragmentStoreHealthRequest) Validate() error {
	if err := FragmentStore(x.GetFragmentStore()).Validate(); err != nil {
		return at("FragmentStore", err)
	}
	prefix := x.GetCheckDeletePrefix()
	if prefix == "" {
		return nil
	}
	return at("CheckDeletePrefix", validateProbe(prefix, x.GetCheckDelete()))
}

func validateProbe(prefix string, check bool) error {
	dir, ok := strings.CutSuffix(prefix, "/")
	switch {
	case !check:
		return violation(ProbeNoCheck, "must be unset without check_delete")
	case !ok:
		return violation(ProbeNoSlash, "prefix %s must end with a slash", quote(prefix))
	case dir == ".." || strings.HasPrefix(dir, "../"):
		return violation(ProbeTraversal, "prefix %s must not leave the store", quote(prefix))
	case dir == ".":
		return nil
	}
	return validatePath(dir, 1, maxPathPostfix)
}

// Validate returns an error unless status and header are valid.
func (x *FragmentStoreHealthResponse) Validate() error { return validateStatusAndHeader(x) }

type response interface {
	GetStatus() Status
	GetHeader() *Header
}

func validateStatusAndHeader(x response) error {
	if err := x.GetStatus().Validate(); err != nil {
		return at("Status", err)
	}
	return at("Header", x.GetHeader().Validate())
}
