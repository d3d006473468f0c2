package broker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// maxMetadata is the largest encoding of a spec, of a selector, and of a journal's registers. Specs are all in memory,
// selectors are matched with each of them, and registers travel with commits.
const maxMetadata = 64 << 10

func checkSize(what string, m proto.Message) error {
	if n := proto.Size(m); n > maxMetadata {
		return fault.New(fault.Invalid, "%s of %d bytes; at most %d are allowed", what, n, maxMetadata)
	}
	return nil
}

// Append receives an append and commits it (spec protocol 10.4).
func (b *Broker) Append(stream grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]) (err error) {
	c, err := b.enter(stream.Context(), "Append", auth.Append)
	if err != nil {
		return err
	}
	defer c.end(&err)

	opening, err := b.receiveOpening(c.ctx, stream)
	if err != nil {
		return err
	}
	a := &appending{broker: b, call: c, stream: stream, request: opening, resp: new(protocol.AppendResponse)}
	err = a.run(c.ctx)
	if c.status = a.resp.GetStatus(); err != nil || c.status != protocol.Status_OK {
		b.rollBack(a.resolved.journal, &a.content)
	} else {
		b.drop(a.resolved.journal, &a.content)
	}
	if err != nil {
		return err
	}
	return stream.SendAndClose(a.resp)
}

// checkOpening validates the first message of an append.
func checkOpening(req *protocol.AppendRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	if req.CheckRegisters != nil {
		if err := checkSize("labels of the append", req.CheckRegisters); err != nil {
			return err
		}
	}
	for _, set := range []*protocol.LabelSet{req.UnionRegisters, req.SubtractRegisters} {
		if set == nil {
			continue
		}
		if err := checkSize("labels of the append", set); err != nil {
			return err
		}
	}
	return nil
}

// appending is an append on its way.
type appending struct {
	broker *Broker
	call   *call
	// stream brings the content; nil if that is here already.
	stream   grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]
	request  *protocol.AppendRequest
	resp     *protocol.AppendResponse
	resolved resolution
	content  content
}

// run fills the response. Nothing of the stream's content is consumed before it is known that the journal takes appends.
func (a *appending) run(ctx context.Context) error {
	force, err := a.prepare(ctx)
	if err != nil || a.resp.GetStatus() != protocol.Status_OK {
		return err
	}
	floor, err := a.floor(ctx)
	if err != nil || a.resp.GetStatus() != protocol.Status_OK {
		return err
	}
	take := a.receive
	if a.stream == nil {
		take = a.admit
	}
	if err := take(ctx); err != nil || a.resp.GetStatus() != protocol.Status_OK {
		return err
	}
	union, subtract := a.request.GetUnionRegisters(), a.request.GetSubtractRegisters()
	if a.content.size == 0 && (union != nil || subtract != nil) {
		return fault.New(fault.Invalid, "append to %s: registers change with content only", a.resolved.journal)
	}
	if union != nil {
		state, err := a.broker.engine.Load(ctx, a.resolved.journal)
		if err != nil {
			return a.commitError(err)
		}
		if n := proto.Size(state.Registers) + proto.Size(union); n > maxMetadata {
			return fault.New(fault.Invalid, "append to %s: registers of %d bytes; at most %d are allowed", a.resolved.journal, n, maxMetadata)
		}
	}
	if ctx.Err() != nil {
		// Whoever has gone may have sent it again by now. It would come behind what was sent after that.
		return fault.New(fault.KindOf(ctx.Err()), "append to %s: %w", a.resolved.journal, context.Cause(ctx))
	}
	spec := a.resolved.spec
	req := &engine.Append{
		Created:  spec.Created,
		Content:  a.content.bytes,
		Staged:   a.content.stage,
		Offset:   protocol.Offset(a.request.GetOffset()),
		Floor:    floor,
		Check:    a.request.GetCheckRegisters(),
		Subtract: subtract,
		Union:    union,
		Roll:     engine.RollPolicyOf(spec.JournalSpec),
		Now:      time.Now(),
	}
	req.Roll.Force = force
	a.broker.metrics.committing.Inc()
	res, err := a.broker.engine.Commit(ctx, a.resolved.journal, req)
	a.broker.metrics.committing.Dec()
	if err != nil {
		return a.commitError(err)
	}
	a.broker.keeper.touch(a.resolved.journal)
	a.answer(res)
	return nil
}

// commitError turns the end of the journal into a status.
func (a *appending) commitError(err error) error {
	if fault.Is(err, fault.NotFound) {
		a.resp.Status = protocol.Status_JOURNAL_NOT_FOUND
		return nil
	}
	return err
}

func (a *appending) answer(res engine.Result) {
	registers := res.Registers
	if registers == nil {
		registers = new(protocol.LabelSet) // which tells them from absent ones
	}
	switch res.Refusal {
	case engine.RegisterMismatch:
		a.resp.Status, a.resp.Registers = protocol.Status_REGISTER_MISMATCH, registers
	case engine.WrongOffset:
		a.resp.Status = protocol.Status_WRONG_APPEND_OFFSET
	default:
		a.resp.Registers = registers
		a.resp.Commit = fragmentOf(a.resolved.journal, engine.Fragment{Begin: res.Begin, End: res.End, Sum: res.Sum, Codec: res.Codec})
		a.broker.metrics.commit(a.content.size)
	}
}

// prepare resolves the journal and brings its suspension to where the request wants it. With a status but OK the
// append ends. Force says that the open fragment is to be finished.
func (a *appending) prepare(ctx context.Context) (force bool, err error) {
	b, req := a.broker, a.request
	minRevision := req.GetMinEtcdRevision()
	for {
		a.resolved, err = b.resolve(a.call, req.GetJournal(), req.GetHeader(), minRevision)
		if err != nil {
			return false, err
		}
		a.resp.Status, a.resp.Header = a.resolved.status, a.resolved.header
		if a.resolved.spec == nil {
			return false, nil
		}
		next, err := a.suspension(ctx)
		if err != nil || next == nil {
			return force, err
		}
		force = next.GetLevel() == protocol.JournalSpec_Suspend_PARTIAL
		if minRevision, err = b.setSuspend(ctx, a.resolved.spec, next); err != nil {
			return false, err
		}
	}
}

// suspension returns the suspension that the journal must have before the append can go on, or nil and the status with which
// it goes on or ends (spec protocol 10.4.6).
func (a *appending) suspension(ctx context.Context) (*protocol.JournalSpec_Suspend, error) {
	const (
		none    = protocol.JournalSpec_Suspend_NONE
		partial = protocol.JournalSpec_Suspend_PARTIAL
		full    = protocol.JournalSpec_Suspend_FULL
	)
	suspend := a.resolved.spec.GetSuspend()
	level, mode := suspend.GetLevel(), a.request.GetSuspend()
	wants := mode == protocol.AppendRequest_SUSPEND_IF_FLUSHED || mode == protocol.AppendRequest_SUSPEND_NOW
	switch {
	case level == none && !wants, level == partial && mode == protocol.AppendRequest_SUSPEND_KEEP:
		return nil, nil
	case level == full && mode != protocol.AppendRequest_SUSPEND_RESUME,
		level == partial && mode == protocol.AppendRequest_SUSPEND_NO_RESUME:
		a.resp.Status = protocol.Status_SUSPENDED
		return nil, nil
	}
	v, err := a.broker.view(ctx, a.resolved.journal)
	if err != nil {
		return nil, a.commitError(err)
	}
	head := max(int64(v.state.Head), suspend.GetOffset())
	switch empty := v.begin() == v.end(); {
	case !wants:
		return &protocol.JournalSpec_Suspend{Level: none, Offset: head}, nil
	case empty:
		return &protocol.JournalSpec_Suspend{Level: full, Offset: head}, nil
	case level == partial:
		a.resp.Status = protocol.Status_SUSPENDED
		return nil, nil
	case mode == protocol.AppendRequest_SUSPEND_NOW:
		if err := a.finishFragment(ctx); err != nil {
			return nil, err
		}
		return &protocol.JournalSpec_Suspend{Level: partial, Offset: head}, nil
	case v.idle(a.resolved.spec, time.Now()):
		return &protocol.JournalSpec_Suspend{Level: partial, Offset: head}, nil
	}
	// Content that is nowhere but here is not flushed: not eligible now.
	return nil, nil
}

// finishFragment finishes the open fragment of a journal that is about to be suspended.
func (a *appending) finishFragment(ctx context.Context) error {
	req := &engine.Append{Created: a.resolved.spec.Created, Roll: engine.RollPolicyOf(a.resolved.spec.JournalSpec), Now: time.Now()}
	req.Roll.Force = true
	_, err := a.broker.engine.Commit(ctx, a.resolved.journal, req)
	a.broker.keeper.touch(a.resolved.journal)
	return err
}

// setSuspend changes the suspension of a spec, unless somebody else has changed the spec meanwhile. It returns the revision
// from which on the outcome can be seen.
func (b *Broker) setSuspend(ctx context.Context, spec *engine.Spec, suspend *protocol.JournalSpec_Suspend) (int64, error) {
	next := proto.Clone(spec.JournalSpec).(*protocol.JournalSpec)
	next.Suspend = suspend
	revision, err := b.engine.Apply(ctx, []*protocol.ApplyRequest_Change{{Upsert: next, ExpectModRevision: spec.Modified}})
	if errors.Is(err, engine.ErrRevision) {
		return spec.Modified + 1, nil
	}
	return revision, err
}

// takesContent reports whether the journal and the mode of the append allow content.
func (a *appending) takesContent() bool {
	mode := a.request.GetSuspend()
	return protocol.JournalSpec_Flag(a.resolved.spec.GetFlags()).MayWrite() &&
		(mode == protocol.AppendRequest_SUSPEND_RESUME || mode == protocol.AppendRequest_SUSPEND_NO_RESUME)
}
