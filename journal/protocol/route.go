package protocol

import "cmp"

// NewRoute returns a route without members.
func NewRoute() *Route { return &Route{Primary: -1} }

// Compare orders IDs by zone and suffix.
func (x *ProcessSpec_ID) Compare(other *ProcessSpec_ID) int {
	return cmp.Or(cmp.Compare(x.GetZone(), other.GetZone()), cmp.Compare(x.GetSuffix(), other.GetSuffix()))
}

// Validate returns an error unless the members are ascending and the primary and the endpoints belong to them.
func (x *Route) Validate() error {
	members := x.GetMembers()
	for i, m := range members {
		if err := m.Validate(); err != nil {
			return at("Members", index(i, err))
		}
		if i != 0 && members[i-1].Compare(m) >= 0 {
			return violation(MembersUnsorted, "members must be ascending and without repeats")
		}
	}
	if p := x.GetPrimary(); p < -1 || int(p) >= len(members) {
		return violation(PrimaryOutOfRange, "primary %d is not one of %d members, or -1", p, len(members))
	}
	if n := len(x.GetEndpoints()); n != 0 && n != len(members) {
		return violation(EndpointsMismatch, "%d endpoints for %d members", n, len(members))
	}
	for i, e := range x.GetEndpoints() {
		// The endpoint of a member that has vanished is empty.
		if e == "" {
			continue
		}
		if err := Endpoint(e).Validate(); err != nil {
			return at("Endpoints", index(i, err))
		}
	}
	return nil
}

// EquivalentTo reports whether members and primary agree. Endpoints are not compared.
func (x *Route) EquivalentTo(other *Route) bool {
	if x.GetPrimary() != other.GetPrimary() || len(x.GetMembers()) != len(other.GetMembers()) {
		return false
	}
	for i, m := range x.GetMembers() {
		if m.Compare(other.Members[i]) != 0 {
			return false
		}
	}
	return true
}

// Validate returns an error unless the header's parts are valid; the process may be unspecified.
func (x *Header) Validate() error {
	if id := x.GetProcessId(); !id.IsEmpty() {
		if err := id.Validate(); err != nil {
			return at("ProcessId", err)
		}
	}
	if err := x.GetRoute().Validate(); err != nil {
		return at("Route", err)
	}
	return at("Etcd", x.GetEtcd().Validate())
}

// Validate returns an error unless all fields are set.
func (x *Header_Etcd) Validate() error {
	switch {
	case x.GetClusterId() == 0:
		return at("ClusterId", violation(RevisionMissing, "must not be zero"))
	case x.GetMemberId() == 0:
		return at("MemberId", violation(RevisionMissing, "must not be zero"))
	case x.GetRevision() <= 0:
		return at("Revision", violation(RevisionMissing, "%d is not positive", x.GetRevision()))
	case x.GetRaftTerm() == 0:
		return at("RaftTerm", violation(RevisionMissing, "must not be zero"))
	}
	return nil
}

// validateOptional validates a header that may be absent.
func (x *Header) validateOptional() error {
	if x == nil {
		return nil
	}
	return at("Header", x.Validate())
}
