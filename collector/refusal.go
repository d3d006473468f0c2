package collector

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/collector/quarantine"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// refusals are the parts of a message that were refused for good.
type refusals struct {
	mu    sync.Mutex // streams are registered concurrently
	first []*daybookv1.Refusal
	count int
	// cause is the first error.
	cause error
}

// maxRefusals is how many refusals of one message are told apart. The others are counted.
const maxRefusals = 8

// refuse counts what is refused for good, a run of a bundle or with nil all of it, and takes it down. It returns err.
func (c *Collector) refuse(b *bundle, r *run, reason string, err error) error {
	c.Metrics.dropped.WithLabelValues(reason).Inc()
	b.refusals.mu.Lock()
	defer b.refusals.mu.Unlock()
	if b.refusals.count++; b.refusals.cause == nil {
		b.refusals.cause = err
	}
	if len(b.refusals.first) < maxRefusals {
		told := &daybookv1.Refusal{Reason: reason, Error: err.Error()}
		if r != nil {
			told.Stream, told.Entries = r.desc.GetName(), int64(r.logs)
		}
		b.refusals.first = append(b.refusals.first, told)
	}
	return err
}

// foreign takes down bytes of a journal that belong to no record: the first of n.
func (c *Collector) foreign(first []byte, n int64, from origin) *bundle {
	b := &bundle{message: first, memory: len(first), origin: from}
	_ = c.refuse(b, nil, dropMalformed, fmt.Errorf("%d bytes in the journal belong to no record", n)) // nobody waits for it
	return b
}

// refused returns the first error of what was refused, or nil.
func (b *bundle) refused() error {
	b.refusals.mu.Lock()
	defer b.refusals.mu.Unlock()
	return b.refusals.cause
}

// putAside logs bundles of which something was refused, each once, and puts their messages into the quarantine. It is durable
// before anybody is told that the messages need not come again. A quarantine that fails holds up nobody.
func (c *Collector) putAside(bundles ...*bundle) {
	var bad []*bundle
	var messages []quarantine.Message
	for _, b := range bundles {
		if b.refused() == nil {
			continue
		}
		bad = append(bad, b)
		messages = append(messages, quarantine.Message{Body: b.message, About: &daybookv1.QuarantinedMessage{
			Journal: string(b.origin.journal), Offset: b.origin.offset,
			Project: string(b.project), Prefix: string(b.prefix),
			Refusals: b.refusals.first, Refused: int64(b.refusals.count),
		}})
	}
	if len(bad) == 0 {
		return
	}
	fresh := make([]bool, len(bad))
	if c.Quarantine != nil {
		var err error
		if fresh, err = c.Quarantine.Keep(messages); err != nil {
			c.Metrics.lost.Add(float64(len(bad)))
			c.Logger.Error("messages that were refused are not kept", "messages", len(bad), "error", err)
			fresh = make([]bool, len(bad))
		}
	}
	for i, b := range bad {
		if c.Quarantine != nil && !fresh[i] {
			continue // logged before, or just now
		}
		c.complaints.log(c.Logger, "refused a message, or parts of it",
			"project", b.project, "prefix", b.prefix, "journal", b.origin.journal, "offset", b.origin.offset,
			"reason", b.refusals.first[0].GetReason(), "stream", b.refusals.first[0].GetStream(), "refused", b.refusals.count,
			"bytes", len(b.message), "error", b.refusals.cause)
	}
}

// messageOfEnd returns a message that says nothing but how a stream ended, for an end that is refused when the entries that came
// with it have been stored.
func messageOfEnd(from *bundle, r *run, end *coordinator.TerminateRequest) ([]byte, error) {
	e := &logpb.ButlerLogBundle_Entry{Desc: r.desc, Terminal: true, TerminalEmpty: end.TerminalEmpty, Ended: end.Ended}
	if !end.TerminalEmpty {
		e.TerminalIndex = uint64(end.TerminalIndex)
	}
	return new(envelope.Writer).Append(nil, &logpb.ButlerLogBundle{
		Project: string(from.project), Prefix: string(from.prefix), Secret: end.Secret, Entries: []*logpb.ButlerLogBundle_Entry{e},
	})
}

// Replay processes a message again, as Process does, and puts nothing aside. What Process drops without an error is one here.
func (c *Collector) Replay(ctx context.Context, msg []byte) error {
	if err := c.begin(); err != nil {
		return err
	}
	defer c.calls.Done()
	b := c.open(bytes.Clone(msg), origin{})
	if err := c.process(ctx, b); err != nil {
		return err
	}
	return b.refused()
}

const (
	// So many lines about what senders did wrong are logged in a time. Whoever sends nothing but nonsense must not fill a disk.
	maxComplaints    = 20
	complaintsPeriod = 10 * time.Second
)

// complaints bounds the lines about what senders did wrong.
type complaints struct {
	mu             sync.Mutex
	since          time.Time
	logged, silent int
}

func (c *complaints) log(to *slog.Logger, text string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.since) > complaintsPeriod {
		c.since, c.logged = now, 0
	}
	if c.logged >= maxComplaints {
		c.silent++
		return
	}
	c.logged++
	if c.silent > 0 {
		args = append(args, "unlogged", c.silent)
		c.silent = 0
	}
	to.Warn(text, args...)
}
