package engine

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// ErrRevision is returned by Apply when an expected revision did not match.
var ErrRevision = fault.New(fault.Precondition, "journal specs: an expected revision does not match")

// Append is a request to append to a journal.
type Append struct {
	// Created, if not zero, is the State.Created that the journal must have; else it is NotFound.
	Created int64
	// Content is what to append; Commit does not keep it. It may be empty: such an append changes nothing but proves that
	// all before it are durable, and moves the head if Floor asks for it.
	Content []byte
	// Staged, if not nil, is the content instead.
	Staged Stage
	// Offset, if not zero, is where the content must land.
	Offset protocol.Offset
	// Floor is the lowest offset at which the content may land. If the journal ends below, what lies between is skipped.
	Floor protocol.Offset
	// Check, if not nil, must match the registers, unless these are empty.
	Check *protocol.LabelSelector
	// Subtract and then Union are applied to the registers.
	Subtract, Union *protocol.LabelSet
	// Roll says when the open fragment is finished and another begun.
	Roll RollPolicy
	// Now is the time of the append.
	Now time.Time
}

// Refusal is why an append was not committed.
type Refusal int

const (
	// Committed is no refusal.
	Committed Refusal = iota
	// RegisterMismatch says that Check did not match.
	RegisterMismatch
	// WrongOffset says that the journal does not end at Offset.
	WrongOffset
)

// Result is the outcome of an append.
type Result struct {
	Refusal Refusal
	// Begin and End are where the content is. If it is empty, and with a refusal, both are the head.
	Begin, End protocol.Offset
	// Sum is the SHA-1 of the content.
	Sum [20]byte
	// Codec is that of the fragment the content is in.
	Codec protocol.CompressionCodec
	// Registers are the journal's registers after the append; nil if there have never been any.
	Registers *protocol.LabelSet
}

// Decide tells what an append does to a journal whose head and registers are given: where it lands, the registers after it,
// or why it is refused. Engines call it at the append's turn. An engine that orders by comparing before it writes needs to
// compare the head only if Offset or Floor is set, and the registers only if Check, Subtract or Union is.
func (a *Append) Decide(head protocol.Offset, registers *protocol.LabelSet) (begin protocol.Offset, after *protocol.LabelSet, refusal Refusal) {
	// A journal that nobody has fenced yet, or whose fence was lost, lets everyone pass (spec protocol 10.4.7).
	if a.Check != nil && len(registers.GetLabels()) != 0 && !a.Check.Matches(registers) {
		return head, registers, RegisterMismatch
	}
	begin = max(head, a.Floor)
	if a.Offset != 0 && a.Offset != begin {
		return head, registers, WrongOffset
	}
	if len(a.Subtract.GetLabels()) == 0 && len(a.Union.GetLabels()) == 0 {
		return begin, registers, Committed
	}
	after = protocol.UnionLabelSets(a.Union, protocol.SubtractLabelSets(registers, a.Subtract))
	// The sets belong to the caller's messages, the result is kept.
	return begin, proto.Clone(after).(*protocol.LabelSet), Committed
}

// RollPolicy says when an open fragment is finished before an append (spec broker 6.4).
type RollPolicy struct {
	// Length is the content length beyond which a fragment is finished.
	Length int64
	// FlushInterval, if positive, is the length of the segments of wall-clock time that no fragment spans.
	FlushInterval time.Duration
	// Codec is given to fragments as they begin.
	Codec protocol.CompressionCodec
	// Force finishes the fragment whatever its state, if it begins below ForceBelow or that is zero. Who decided by a state
	// that has passed says how far that went: a fragment that began meanwhile goes on.
	Force      bool
	ForceBelow protocol.Offset
	// Postfix makes the postfix of a fragment that is finished, with the registers that the journal has then; nil is none.
	Postfix func(finished Fragment, registers *protocol.LabelSet) string
}

// Finish returns a fragment that is finished under the policy.
func (p *RollPolicy) Finish(open Fragment, registers *protocol.LabelSet) Fragment {
	if p.Postfix != nil && open.Len() > 0 {
		open.Postfix = p.Postfix(open, registers)
	}
	return open
}

// RollPolicyOf returns the policy that a spec asks for.
func RollPolicyOf(spec *protocol.JournalSpec) RollPolicy {
	f := spec.GetFragment()
	p := RollPolicy{
		Length:        f.GetLength(),
		FlushInterval: f.GetFlushInterval().AsDuration(),
		Codec:         f.GetCompressionCodec(),
	}
	if f.GetPathPostfixTemplate() != "" {
		p.Postfix = func(finished Fragment, registers *protocol.LabelSet) string {
			// Without a valid one there is none: below a path that no listing accepts the content would be lost.
			postfix, _ := PathPostfix(spec, finished, registers)
			return postfix
		}
	}
	return p
}

// PathPostfix returns the part of a fragment's path that the spec's template makes.
func PathPostfix(spec *protocol.JournalSpec, finished Fragment, registers *protocol.LabelSet) (string, error) {
	if registers == nil {
		registers = new(protocol.LabelSet)
	}
	return protocol.EvaluatePathPostfix(spec, protocol.SpoolData{
		Fragment: &protocol.Fragment{
			Journal: spec.GetName(), Begin: int64(finished.Begin), End: int64(finished.End),
			Sum: protocol.SHA1SumFromDigest(finished.Sum), CompressionCodec: finished.Codec,
		},
		FirstAppendTime: time.Unix(finished.FirstAppend, 0).UTC(),
		Registers:       registers,
	})
}

func (p *RollPolicy) forces(open Fragment) bool {
	return p.Force && (p.ForceBelow == 0 || open.Begin < p.ForceBelow)
}

// Due reports whether the open fragment is finished before an append that lands at begin. lowest is the lowest offset of
// the journal's index.
func (p *RollPolicy) Due(open Fragment, lowest, begin protocol.Offset, now time.Time) bool {
	switch {
	case open.Len() == 0, open.Len() > p.Length, p.forces(open), open.End != begin:
		return true
	case open.Begin == lowest:
		// The first fragment is closed after its first append, so that stores soon prove that the journal was written.
		return true
	}
	interval := int64(p.FlushInterval / time.Second)
	return interval > 0 && now.Unix()/interval != open.FirstAppend/interval
}
