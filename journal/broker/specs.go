package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// listChunk is the most journals in one message of a snapshot.
	listChunk = 25
	// watchDelay is how long a watch waits for more changes after one, so that a burst of them makes one snapshot.
	watchDelay = 30 * time.Millisecond
)

// Apply changes specs: all, or none (spec protocol 10.3). A journal with stores is deleted when these have all of its content.
func (b *Broker) Apply(ctx context.Context, req *protocol.ApplyRequest) (resp *protocol.ApplyResponse, err error) {
	c, err := b.enter(ctx, "Apply", auth.Apply)
	if err != nil {
		return nil, err
	}
	defer c.end(&err)

	if err := req.Validate(); err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(req.GetChanges()))
	for _, change := range req.GetChanges() {
		name := cmp.Or(change.GetUpsert().GetName(), change.GetDelete())
		if seen[name] {
			return nil, fault.New(fault.Invalid, "apply specs: journal %s is changed twice", name)
		}
		seen[name] = true
		if err := checkSize("spec of "+name, change.GetUpsert()); err != nil {
			return nil, err
		}
		if !c.allowsChange(change) {
			return nil, fault.New(fault.Unauthenticated, "apply specs: the token is not for journal %s", name)
		}
	}
	if err := nested(b.engine.Specs(), req.GetChanges()); err != nil {
		return nil, err
	}
	if err := b.secure(c.ctx, req.GetChanges()); err != nil {
		return nil, err
	}
	switch _, err := b.engine.Apply(c.ctx, req.GetChanges()); {
	case errors.Is(err, engine.ErrRevision):
		c.status = protocol.Status_ETCD_TRANSACTION_FAILED
	case err != nil:
		return nil, err
	}
	return &protocol.ApplyResponse{Status: c.status, Header: b.header(b.engine.Specs(), protocol.NewRoute())}, nil
}

// nested returns an error if a journal is to be created whose name is a directory of another's, or the other way round: stores
// would list the fragments of one as those of the other (spec broker 7.3).
func nested(specs *engine.Specs, changes []*protocol.ApplyRequest_Change) error {
	created, deleted := make(map[string]bool), make(map[string]bool)
	for _, change := range changes {
		switch name := change.GetUpsert().GetName(); {
		case name == "":
			deleted[change.GetDelete()] = true
		case specs.Get(protocol.Journal(name)) == nil:
			created[name] = true
		}
	}
	for name := range created {
		for i := range len(name) {
			above := name[:i]
			if name[i] == '/' && (created[above] || specs.Get(protocol.Journal(above)) != nil && !deleted[above]) {
				return fault.New(fault.Invalid, "apply specs: journal %s would lie below journal %s", name, above)
			}
		}
		below := name + "/"
		from, _ := slices.BinarySearchFunc(specs.All, below, func(s *engine.Spec, name string) int { return cmp.Compare(s.GetName(), name) })
		for _, s := range specs.All[from:] {
			if !strings.HasPrefix(s.GetName(), below) {
				break
			}
			if !deleted[s.GetName()] {
				return fault.New(fault.Invalid, "apply specs: journal %s would lie below journal %s", s.GetName(), name)
			}
		}
	}
	return nil
}

// allowsChange reports whether the caller may change a spec. A change is judged by the labels that the journal is to have, and
// a deletion by the journal's name (spec protocol 8.3).
func (c *call) allowsChange(change *protocol.ApplyRequest_Change) bool {
	if spec := change.GetUpsert(); spec != nil {
		return c.claims.Allows(spec.LabelSetForMatching())
	}
	return c.claims.Allows(&protocol.LabelSet{Labels: []*protocol.Label{{Name: protocol.LabelName, Value: change.GetDelete()}}})
}

// List sends a snapshot of the journals that the selector selects, and with watch another after each change of them (spec
// protocol 10.2).
func (b *Broker) List(req *protocol.ListRequest, stream grpc.ServerStreamingServer[protocol.ListResponse]) (err error) {
	c, err := b.enter(stream.Context(), "List", auth.List)
	if err != nil {
		return err
	}
	defer c.end(&err)

	if err := req.Validate(); err != nil {
		return err
	}
	if err := checkSize("selector", req.GetSelector()); err != nil {
		return err
	}
	ctx, cancel := b.untilClosing(c.ctx)
	defer cancel()
	selectors := []*protocol.LabelSelector{withoutLegacyPrefix(req.GetSelector())}
	if c.claims.Selector != nil {
		selectors = append(selectors, withoutLegacyPrefix(c.claims.Selector))
	}
	specs := b.engine.Specs()
	// A resumption from a broker whose revisions are not ours tells nothing.
	if resume := req.GetWatchResume().GetEtcd(); resume.GetClusterId() == b.engine.Identity().Cluster {
		if _, err := b.awaitRevision(ctx, resume.GetRevision()); err != nil {
			return err
		}
		if specs, err = b.engine.AwaitSpecs(ctx, resume.GetRevision()); err != nil {
			return nil
		}
	}
	selected := selectSpecs(specs, selectors)
	for {
		if err := b.sendSnapshot(stream, specs, selected, req.GetWatch()); err != nil || !req.GetWatch() {
			return err
		}
		for last := selected; equalSpecs(selected, last); selected = selectSpecs(specs, selectors) {
			if specs, err = b.awaitBurst(ctx, specs.Revision); err != nil {
				return nil // a watch has no other end
			}
		}
	}
}

// untilClosing returns a context that ends with the broker too.
func (b *Broker) untilClosing(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-b.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-ended
	}
}

// awaitBurst returns the specs after a change, and after those that follow at once.
func (b *Broker) awaitBurst(ctx context.Context, after int64) (*engine.Specs, error) {
	if _, err := b.engine.AwaitSpecs(ctx, after); err != nil {
		return nil, err
	}
	select {
	case <-time.After(watchDelay):
		return b.engine.Specs(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sendSnapshot sends the messages of a snapshot, and with watch the empty one that ends it.
func (b *Broker) sendSnapshot(stream grpc.ServerStreamingServer[protocol.ListResponse], specs *engine.Specs, selected []*engine.Spec, watch bool) error {
	resp := &protocol.ListResponse{Header: b.header(specs, protocol.NewRoute())}
	for chunk := range slices.Chunk(selected, listChunk) {
		for _, s := range chunk {
			resp.Journals = append(resp.Journals, &protocol.ListResponse_Journal{
				Spec: s.JournalSpec, ModRevision: s.Modified, CreateRevision: s.Created, Route: b.route,
			})
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		resp = new(protocol.ListResponse)
	}
	if len(selected) == 0 || watch {
		// Without journals it is the one message that is due anyway; then the marker follows.
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	if len(selected) == 0 && watch {
		return stream.Send(new(protocol.ListResponse))
	}
	return nil
}

// selectSpecs returns the specs that all selectors select.
func selectSpecs(specs *engine.Specs, selectors []*protocol.LabelSelector) []*engine.Spec {
	var out []*engine.Spec
	for _, s := range specs.All {
		labels := s.LabelSetForMatching()
		if !slices.ContainsFunc(selectors, func(sel *protocol.LabelSelector) bool { return !sel.Matches(labels) }) {
			out = append(out, s)
		}
	}
	return out
}

// equalSpecs reports whether two selections are the same specs at the same revisions.
func equalSpecs(x, y []*engine.Spec) bool {
	return slices.EqualFunc(x, y, func(x, y *engine.Spec) bool {
		return x.GetName() == y.GetName() && x.Modified == y.Modified
	})
}

// withoutLegacyPrefix returns the selector with each label prefix=V as the label name:prefix=V that it means.
func withoutLegacyPrefix(s *protocol.LabelSelector) *protocol.LabelSelector {
	rewrite := func(set *protocol.LabelSet) *protocol.LabelSet {
		if len(set.ValuesOf(protocol.LabelPrefix)) == 0 {
			return set
		}
		out := &protocol.LabelSet{}
		for _, l := range set.GetLabels() {
			if l.GetName() == protocol.LabelPrefix {
				l = &protocol.Label{Name: protocol.LabelName, Value: l.GetValue(), Prefix: true}
			}
			out.Labels = append(out.Labels, l)
		}
		slices.SortStableFunc(out.Labels, func(x, y *protocol.Label) int {
			return cmp.Or(cmp.Compare(x.GetName(), y.GetName()), cmp.Compare(x.GetValue(), y.GetValue()))
		})
		return out
	}
	return &protocol.LabelSelector{Include: rewrite(s.GetInclude()), Exclude: rewrite(s.GetExclude())}
}
