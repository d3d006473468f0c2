package protocol

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

// Bounds, at and just past them. Lengths are bytes, and classes of characters are of code points.
func TestLimits(t *testing.T) {
	token := func(n int) string { return strings.Repeat("a", n) }
	label := func(name, value string) error { return (&Label{Name: name, Value: value}).Validate() }
	id := func(zone, suffix string) error { return (&ProcessSpec_ID{Zone: zone, Suffix: suffix}).Validate() }
	postfix := func(s string) error {
		return (&Fragment{Journal: "acme/one", CompressionCodec: CompressionCodec_NONE, PathPostfix: s}).Validate()
	}
	limit := func(n uint32) error {
		return (&BrokerSpec{
			ProcessSpec:  &ProcessSpec{Id: &ProcessSpec_ID{Zone: "a", Suffix: "aaaa"}, Endpoint: "http://a"},
			JournalLimit: n,
		}).Validate()
	}
	probe := func(s string) error {
		return (&FragmentStoreHealthRequest{FragmentStore: "s3://b/", CheckDelete: true, CheckDeletePrefix: s}).Validate()
	}
	fragments := func(r *FragmentsRequest) error { r.Journal = "acme/one"; return r.Validate() }
	spec := func(change func(*JournalSpec)) error {
		s := &JournalSpec{Name: "acme/one", Replication: 1, Fragment: &JournalSpec_Fragment{
			Length: 1 << 10, CompressionCodec: CompressionCodec_NONE, RefreshInterval: durationpb.New(time.Second),
		}}
		change(s)
		return s.Validate()
	}
	for i, c := range []struct {
		good, bad error
		reason    Reason
	}{
		{Journal(token(4)).Validate(), Journal(token(3)).Validate(), LengthOutOfRange},
		{Journal(token(512)).Validate(), Journal(token(513)).Validate(), LengthOutOfRange},
		{Journal("acme;" + token(1)).Validate(), Journal("acme;").Validate(), LengthOutOfRange},
		{Journal("acme;" + token(512)).Validate(), Journal("acme;" + token(513)).Validate(), LengthOutOfRange},
		{Journal(strings.Repeat("é", 256)).Validate(), Journal(strings.Repeat("é", 257)).Validate(), LengthOutOfRange},
		{Journal("½/日本/x%=+-_.").Validate(), Journal("acme/a#b").Validate(), DisallowedCharacter},
		{Journal("acme;a").Validate(), Journal("acme;a;b").Validate(), DisallowedCharacter},
		{nil, Journal("acme/\xff").Validate(), DisallowedCharacter},
		{label(token(2), ""), label(token(1), ""), LengthOutOfRange},
		{label(token(64), ""), label(token(65), ""), LengthOutOfRange},
		{label("aa", token(1024)), label("aa", token(1025)), LengthOutOfRange},
		{label("aa", "/not//clean/../=%"), label("aa", "a b"), DisallowedCharacter},
		{label("a/b", ""), label("a=b", ""), DisallowedCharacter},
		{id(token(1), token(4)), id("", token(4)), LengthOutOfRange},
		{id(token(32), token(4)), id(token(33), token(4)), LengthOutOfRange},
		{id(token(1), token(4)), id(token(1), token(3)), LengthOutOfRange},
		{id(token(1), token(128)), id(token(1), token(129)), LengthOutOfRange},
		{postfix(""), postfix("/a"), LeadingSlash},
		{postfix(token(512)), postfix(token(513)), LengthOutOfRange},
		{postfix("..a"), postfix("../a"), ParentElement},
		{limit(131_072), limit(131_073), LimitOutOfRange},
		{probe(token(512) + "/"), probe(token(513) + "/"), LengthOutOfRange},
		{probe("..a/"), probe("../"), ProbeTraversal},
		{fragments(&FragmentsRequest{PageLimit: 10_000}), fragments(&FragmentsRequest{PageLimit: 10_001}), PageLimit},
		{fragments(&FragmentsRequest{}), fragments(&FragmentsRequest{PageLimit: -1}), PageLimit},
		{
			fragments(&FragmentsRequest{SignatureTTL: durationpb.New(1)}),
			fragments(&FragmentsRequest{SignatureTTL: durationpb.New(-1)}), SignatureTTL,
		},
		{
			fragments(&FragmentsRequest{BeginModTime: 5, EndModTime: 5}),
			fragments(&FragmentsRequest{BeginModTime: 6, EndModTime: 5}), TimeRange,
		},
		{spec(func(s *JournalSpec) { s.Replication = 5 }), spec(func(s *JournalSpec) { s.Replication = -1 }), Replication},
		{
			spec(func(s *JournalSpec) { s.Fragment.FlushInterval = durationpb.New(time.Minute) }),
			spec(func(s *JournalSpec) { s.Fragment.FlushInterval = durationpb.New(time.Minute - 1) }), FlushTooSmall,
		},
		{
			spec(func(s *JournalSpec) { s.Fragment.RefreshInterval = durationpb.New(24 * time.Hour) }),
			spec(func(s *JournalSpec) { s.Fragment.RefreshInterval = nil }), RefreshOutOfRange,
		},
		{
			spec(func(s *JournalSpec) {
				s.Suspend = &JournalSpec_Suspend{Level: JournalSpec_Suspend_FULL, Offset: 1<<63 - 1}
			}),
			spec(func(s *JournalSpec) { s.Suspend = &JournalSpec_Suspend{Level: -1} }), UnknownSuspendLevel,
		},
	} {
		if c.good != nil {
			t.Errorf("case %d: %v", i, c.good)
		}
		v, ok := c.bad.(*ValidationError) //nolint:errorlint // Nothing is around it.
		if !ok || v.Reason != c.reason {
			t.Errorf("case %d: %v instead of %s", i, c.bad, c.reason)
		}
	}
}

// ladder checks a message that is wrong in every way: each repair brings up the next violation, and after the last there is none.
func ladder(t *testing.T, m validator, repairs ...func() (at string, reason Reason)) {
	t.Helper()
	for i, repair := range repairs {
		err := m.Validate()
		at, reason := repair()
		v, ok := err.(*ValidationError) //nolint:errorlint // Nothing is around it.
		if !ok || v.At != at || v.Reason != reason {
			t.Fatalf("%T, step %d: %v instead of %s at %q", m, i, err, reason, at)
		}
	}
	if err := m.Validate(); err != nil {
		t.Errorf("%T, repaired: %v", m, err)
	}
}

func TestHeaderLadder(t *testing.T) {
	h := &Header{
		ProcessId: &ProcessSpec_ID{Zone: "zone"},
		Route: &Route{
			Members:   []*ProcessSpec_ID{{Zone: "zone", Suffix: "bbbb"}, {Zone: "zone", Suffix: "aaaa"}},
			Primary:   2,
			Endpoints: []string{"http://a", "b", "c"},
		},
		Etcd: &Header_Etcd{Revision: -1},
	}
	ladder(t, h,
		func() (string, Reason) { h.ProcessId.Suffix = "aaaa"; return "ProcessId.Suffix", LengthOutOfRange },
		func() (string, Reason) {
			h.Route.Members[0].Suffix, h.Route.Members[1].Suffix = "aaaa", "aaaa"
			return "Route", MembersUnsorted
		},
		func() (string, Reason) { h.Route.Members[1].Suffix = "bbbb"; return "Route", MembersUnsorted },
		func() (string, Reason) { h.Route.Primary = -2; return "Route", PrimaryOutOfRange },
		func() (string, Reason) { h.Route.Primary = -1; return "Route", PrimaryOutOfRange },
		func() (string, Reason) {
			h.Route.Endpoints = h.Route.Endpoints[:2]
			return "Route", EndpointsMismatch
		},
		func() (string, Reason) { h.Route.Endpoints[1] = ""; return "Route.Endpoints[1]", URLNotAbsolute },
		func() (string, Reason) { h.Etcd.ClusterId = 1; return "Etcd.ClusterId", RevisionMissing },
		func() (string, Reason) { h.Etcd.MemberId = 1; return "Etcd.MemberId", RevisionMissing },
		func() (string, Reason) { h.Etcd.Revision = 1; return "Etcd.Revision", RevisionMissing },
		func() (string, Reason) { h.Etcd.RaftTerm = 1; return "Etcd.RaftTerm", RevisionMissing },
	)
}

func TestFragmentLadder(t *testing.T) {
	f := &Fragment{Journal: "x", Begin: 2, End: 1, PathPostfix: "a//b"}
	ladder(t, f,
		func() (string, Reason) { f.Journal = "acme/one"; return "Journal", LengthOutOfRange },
		func() (string, Reason) { f.End = 2; return "", BeginAfterEnd },
		func() (string, Reason) { f.CompressionCodec = 6; return "CompressionCodec", InvalidCodec },
		func() (string, Reason) { f.CompressionCodec = 5; return "CompressionCodec", InvalidCodec },
		func() (string, Reason) { f.PathPostfix = "a/b"; return "PathPostfix", PathNotClean },
	)
}

func validHeader() *Header {
	return &Header{Route: NewRoute(), Etcd: &Header_Etcd{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1}}
}

func validFragment() *Fragment {
	return &Fragment{Journal: "acme/one", End: 5, CompressionCodec: CompressionCodec_NONE}
}

func TestContentLadder(t *testing.T) {
	r := &ReadResponse{
		Status: Status_SUSPENDED, Header: validHeader(), WriteHead: 5, Fragment: validFragment(), FragmentUrl: "http://a", Content: []byte("x"),
	}
	ladder(t, r,
		func() (string, Reason) { r.Status = 0; return "", FieldSet },
		func() (string, Reason) { r.Header = nil; return "", FieldSet },
		func() (string, Reason) { r.WriteHead = 0; return "", FieldSet },
		func() (string, Reason) { r.Fragment = nil; return "", FieldSet },
		func() (string, Reason) { r.FragmentUrl = ""; return "", FieldSet },
	)
	m := &ReadResponse{Header: new(Header), Offset: 5, WriteHead: -1, Fragment: validFragment(), FragmentUrl: "http://a b"}
	ladder(t, m,
		func() (string, Reason) { m.Header = validHeader(); return "Header.Route", PrimaryOutOfRange },
		func() (string, Reason) { m.WriteHead = 4; return "", WriteHeadOutOfRange },
		func() (string, Reason) { m.Offset = -1; return "", OffsetOutOfRange },
		func() (string, Reason) { m.Offset = 4; return "", OffsetOutOfRange },
		func() (string, Reason) { m.WriteHead = 5; return "", WriteHeadOutOfRange },
		func() (string, Reason) { m.FragmentUrl = ""; return "FragmentUrl", InvalidURL },
	)
}

func TestReplicateLadder(t *testing.T) {
	c := &ReplicateRequest{
		Header: validHeader(), DeprecatedJournal: "acme/one", Registers: new(LabelSet), Acknowledge: true, ContentDelta: -1,
	}
	ladder(t, c,
		func() (string, Reason) { c.Header = nil; return "", FieldSet },
		func() (string, Reason) { c.DeprecatedJournal = ""; return "", FieldSet },
		func() (string, Reason) { c.Registers = nil; return "", FieldSet },
		func() (string, Reason) { c.Acknowledge = false; return "", FieldSet },
		func() (string, Reason) { c.Content = []byte("x"); return "", FieldMissing },
		func() (string, Reason) { c.ContentDelta = 0; return "", OffsetOutOfRange },
	)
	p := &ReplicateRequest{
		Header: validHeader(), DeprecatedJournal: "acme/two", Proposal: &Fragment{}, Content: []byte("x"), ContentDelta: 1,
		Registers: &LabelSet{Labels: []*Label{{Name: "aa", Prefix: true}}},
	}
	ladder(t, p,
		func() (string, Reason) { p.Acknowledge = true; return "", FieldMissing },
		func() (string, Reason) { p.Proposal = validFragment(); return "Proposal.Journal", LengthOutOfRange },
		func() (string, Reason) { p.DeprecatedJournal = "acme/one"; return "DeprecatedJournal", FieldSet },
		func() (string, Reason) { p.Content = nil; return "", FieldSet },
		func() (string, Reason) { p.ContentDelta = 0; return "", FieldSet },
		func() (string, Reason) {
			p.Registers.Labels[0].Prefix = false
			return "Registers.Labels[0]", PrefixOutside
		},
	)
	r := &ReplicateResponse{Status: 99, Header: validHeader(), Fragment: validFragment(), Registers: new(LabelSet)}
	ladder(t, r,
		func() (string, Reason) { r.Status = 0; return "Status", UnknownStatus },
		func() (string, Reason) { r.Fragment = nil; return "", FieldSet },
		func() (string, Reason) { r.Registers, r.Status = nil, Status_PROPOSAL_MISMATCH; return "", FieldSet },
		func() (string, Reason) { r.Registers = new(LabelSet); return "", FieldMissing },
		func() (string, Reason) { r.Fragment = validFragment(); return "", FieldMissing },
	)
	// The header of a wrong route is needed; that of another answer is tolerated.
	w := &ReplicateResponse{Status: Status_WRONG_ROUTE}
	ladder(t, w, func() (string, Reason) { w.Header = validHeader(); return "", FieldMissing })
}

// Each field that a chunk of an append must not have.
func TestChunkFields(t *testing.T) {
	for _, m := range []*AppendRequest{
		{Header: validHeader()},
		{DoNotProxy: true},
		{Offset: 1},
		{CheckRegisters: new(LabelSelector)},
		{UnionRegisters: new(LabelSet)},
		{SubtractRegisters: new(LabelSet)},
		{Suspend: AppendRequest_SUSPEND_KEEP},
	} {
		wantViolation(t, m.String(), m.Validate(), "", FieldSet)
	}
	if err := (&AppendRequest{MinEtcdRevision: 5, Content: []byte("x")}).Validate(); err != nil {
		t.Error(err)
	}
}
