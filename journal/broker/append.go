package broker

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

const (
	// maxBuffered is the largest append that is received in memory.
	maxBuffered = 1 << 20
	// maxRegisters is the largest encoding of a journal's registers. They travel with commits.
	maxRegisters = 64 << 10
)

// Append receives an append and commits it (spec protocol 10.4).
func (b *Broker) Append(stream grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]) (err error) {
	done, err := b.begin()
	if err != nil {
		return fault.GRPC(err)
	}
	defer done()
	resp := new(protocol.AppendResponse)
	defer b.metrics.call("Append", func() string { return resp.GetStatus().String() })(&err)

	opening, err := stream.Recv()
	if err == nil {
		err = opening.Validate()
	}
	if err != nil {
		return fault.GRPC(err)
	}
	a := &appending{broker: b, stream: stream, request: opening, resp: resp}
	defer a.drop()
	if err := a.run(stream.Context()); err != nil {
		return fault.GRPC(err)
	}
	return stream.SendAndClose(resp)
}

// appending is an append on its way.
type appending struct {
	broker   *Broker
	stream   grpc.ClientStreamingServer[protocol.AppendRequest, protocol.AppendResponse]
	request  *protocol.AppendRequest
	resp     *protocol.AppendResponse
	resolved resolution

	// The content: the first message's own bytes while it is the only one, then a buffer, then a stage.
	content []byte
	owned   bool
	stage   engine.Stage
	size    int64
}

// drop releases what the content took.
func (a *appending) drop() {
	if a.stage == nil {
		return
	}
	if err := a.stage.Close(); err != nil {
		a.broker.logger.Warn("cannot drop the staged content of an append", "journal", a.resolved.journal, "error", err)
	}
}

// run fills the response. Nothing of the stream's content is consumed before it is known that the journal takes appends.
func (a *appending) run(ctx context.Context) error {
	force, err := a.prepare(ctx)
	if err != nil || a.resp.GetStatus() != protocol.Status_OK {
		return err
	}
	if err := a.receive(ctx); err != nil || a.resp.GetStatus() != protocol.Status_OK {
		return err
	}
	union, subtract := a.request.GetUnionRegisters(), a.request.GetSubtractRegisters()
	if a.size == 0 && (union != nil || subtract != nil) {
		return fault.New(fault.Invalid, "append to %s: registers change with content only", a.resolved.journal)
	}
	if union != nil {
		state, err := a.broker.engine.Load(ctx, a.resolved.journal)
		if err != nil {
			return a.commitError(err)
		}
		if n := proto.Size(state.Registers) + proto.Size(union); n > maxRegisters {
			return fault.New(fault.Invalid, "append to %s: registers of %d bytes; at most %d are allowed", a.resolved.journal, n, maxRegisters)
		}
	}
	spec := a.resolved.spec
	req := &engine.Append{
		Created:  spec.Created,
		Content:  a.content,
		Staged:   a.stage,
		Offset:   protocol.Offset(a.request.GetOffset()),
		Floor:    protocol.Offset(spec.GetSuspend().GetOffset()),
		Check:    a.request.GetCheckRegisters(),
		Subtract: subtract,
		Union:    union,
		Roll:     engine.RollPolicyOf(spec.JournalSpec),
		Now:      time.Now(),
	}
	req.Roll.Force = force
	res, err := a.broker.engine.Commit(ctx, a.resolved.journal, req)
	if err != nil {
		return a.commitError(err)
	}
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
		a.broker.metrics.appendedBytes.Add(float64(a.size))
	}
}

// prepare resolves the journal and brings its suspension to where the request wants it. With a status but OK the
// append ends. Force says that the open fragment is to be finished.
func (a *appending) prepare(ctx context.Context) (force bool, err error) {
	b, req := a.broker, a.request
	minRevision := req.GetMinEtcdRevision()
	for {
		a.resolved, err = b.resolve(ctx, req.GetJournal(), req.GetHeader(), minRevision)
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
	state, err := a.broker.engine.Load(ctx, a.resolved.journal)
	if err != nil {
		return nil, a.commitError(err)
	}
	head := max(int64(state.Head), suspend.GetOffset())
	switch empty := state.Begin() == state.Head; {
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
	}
	// Content that is nowhere but here is not flushed: not eligible now.
	return nil, nil
}

// finishFragment finishes the open fragment of a journal that is about to be suspended.
func (a *appending) finishFragment(ctx context.Context) error {
	req := &engine.Append{Created: a.resolved.spec.Created, Roll: engine.RollPolicyOf(a.resolved.spec.JournalSpec), Now: time.Now()}
	req.Roll.Force = true
	_, err := a.broker.engine.Commit(ctx, a.resolved.journal, req)
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

// receive takes the content, up to the end of the stream. Only a stream that was ended with the empty message commits.
func (a *appending) receive(ctx context.Context) error {
	name := a.resolved.journal
	for commit := false; ; {
		req, err := a.stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && commit:
			return nil
		case errors.Is(err, io.EOF):
			return fault.New(fault.Invalid, "append to %s: rolled back, since the stream ended without an empty message: %w", name, io.ErrUnexpectedEOF)
		case err != nil:
			return err
		}
		if err := req.Validate(); err != nil {
			return err
		}
		a.resp.TotalChunks++
		switch {
		case req.IsOpening():
			return fault.New(fault.Invalid, "append to %s: a second message with a journal", name)
		case commit:
			return fault.New(fault.Invalid, "append to %s: a message after the empty one", name)
		case len(req.GetContent()) == 0:
			commit = true
		case !a.takesContent():
			a.resp.Status = protocol.Status_NOT_ALLOWED
			return nil
		default:
			if err := a.add(ctx, req.GetContent()); err != nil {
				return err
			}
		}
	}
}

// takesContent reports whether the journal and the mode of the append allow content.
func (a *appending) takesContent() bool {
	mode := a.request.GetSuspend()
	return protocol.JournalSpec_Flag(a.resolved.spec.GetFlags()).MayWrite() &&
		(mode == protocol.AppendRequest_SUSPEND_RESUME || mode == protocol.AppendRequest_SUSPEND_NO_RESUME)
}

func (a *appending) add(ctx context.Context, p []byte) error {
	a.size += int64(len(p))
	switch {
	case a.stage != nil:
		_, err := a.stage.Write(p)
		return err
	case a.content == nil && len(p) <= maxBuffered:
		a.content = p
		return nil
	case len(a.content)+len(p) <= maxBuffered:
		if !a.owned {
			// Room for as much again: most appends are of one message or of many.
			a.content, a.owned = append(make([]byte, 0, 2*(len(a.content)+len(p))), a.content...), true
		}
		a.content = append(a.content, p...)
		return nil
	}
	var err error
	if a.stage, err = a.broker.engine.Stage(ctx); err != nil {
		return err
	}
	for _, p := range [][]byte{a.content, p} {
		if _, err := a.stage.Write(p); err != nil {
			return err
		}
	}
	a.content = nil
	return nil
}
