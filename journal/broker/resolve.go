package broker

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// revisionWait is how long a request waits for a revision that it names and the engine has not seen. Engines that many brokers
// share are behind each other by less.
const revisionWait = time.Second

// resolution is what a request about a journal finds.
type resolution struct {
	journal protocol.Journal
	status  protocol.Status
	header  *protocol.Header
	// spec is nil if there is no such journal.
	spec *engine.Spec
}

// resolve finds the journal that a request is about (spec protocol 10.1). One that the caller's token does not select is not
// found. The header is that of a peer, if one forwarded the request.
func (b *Broker) resolve(c *call, name string, header *protocol.Header, minRevision int64) (resolution, error) {
	if header != nil {
		if got, want := header.GetEtcd().GetClusterId(), b.engine.Identity().Cluster; got != want {
			return resolution{}, fault.New(fault.Precondition, "the request is for cluster %d, and this is %d", got, want)
		}
		if id := header.GetProcessId(); !id.IsEmpty() && id.Compare(b.self) != 0 {
			return resolution{}, fault.New(fault.Precondition, "the request is for process %s/%s, and this is %s/%s",
				id.GetZone(), id.GetSuffix(), b.self.GetZone(), b.self.GetSuffix())
		}
		minRevision = max(minRevision, header.GetEtcd().GetRevision())
	}
	specs, err := b.awaitRevision(c.ctx, minRevision)
	if err != nil {
		return resolution{}, err
	}
	r := resolution{journal: protocol.Journal(name).StripMeta()}
	if r.spec = specs.Get(r.journal); r.spec != nil && !c.allowsSpec(r.spec) {
		r.spec = nil
	}
	switch {
	case r.spec == nil:
		r.status, r.header = protocol.Status_JOURNAL_NOT_FOUND, b.header(specs, protocol.NewRoute())
		return r, nil
	case r.spec.GetSuspend().GetLevel() == protocol.JournalSpec_Suspend_FULL:
		r.status = protocol.Status_SUSPENDED
	}
	r.header = b.header(specs, b.route)
	return r, nil
}

// awaitRevision returns specs of at least a revision.
func (b *Broker) awaitRevision(ctx context.Context, revision int64) (*engine.Specs, error) {
	specs := b.engine.Specs()
	if specs.Revision >= revision {
		return specs, nil
	}
	wait, cancel := context.WithTimeout(ctx, revisionWait)
	defer cancel()
	specs, err := b.engine.AwaitSpecs(wait, revision-1)
	if err != nil && ctx.Err() == nil {
		return nil, fault.New(fault.OutOfRange, "revision %d is not known here; the latest is %d", revision, b.engine.Specs().Revision)
	}
	return specs, err
}

// header returns the header of responses.
func (b *Broker) header(specs *engine.Specs, route *protocol.Route) *protocol.Header {
	id := b.engine.Identity()
	return &protocol.Header{
		ProcessId: b.self,
		Route:     route,
		Etcd: &protocol.Header_Etcd{
			ClusterId: id.Cluster,
			MemberId:  id.Member,
			Revision:  specs.Revision,
			RaftTerm:  id.Term,
		},
	}
}

// readable returns the status of a request to read.
func (r *resolution) readable() protocol.Status {
	if r.status == protocol.Status_OK && !protocol.JournalSpec_Flag(r.spec.GetFlags()).MayRead() {
		return protocol.Status_NOT_ALLOWED
	}
	return r.status
}

func fragmentOf(journal protocol.Journal, f engine.Fragment) *protocol.Fragment {
	return &protocol.Fragment{
		Journal:          string(journal),
		Begin:            int64(f.Begin),
		End:              int64(f.End),
		Sum:              protocol.SHA1SumFromDigest(f.Sum),
		CompressionCodec: f.Codec,
	}
}
