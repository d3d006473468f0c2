package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
)

type quarantineCmd struct {
	Ls     quarantineLsCmd     `cmd:"" help:"List the messages that the Collector could not use."`
	Show   quarantineShowCmd   `cmd:"" help:"Show what is in a message, without its secret, and why it was refused."`
	Replay quarantineReplayCmd `cmd:"" help:"Process messages again, when the cause is mended."`
	Drop   quarantineDropCmd   `cmd:"" help:"Remove messages for good."`
}

// withQuarantine calls do with a client of the server's quarantine.
func (f *serverFlags) withQuarantine(e *env, do func(daybookv1.QuarantineClient) error) (err error) {
	l, err := f.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	err = do(daybookv1.NewQuarantineClient(l.conn))
	if fault.Is(err, fault.Unimplemented) {
		return fault.New(fault.Unimplemented, "the server has no quarantine; give a process with the role collector to --server: %w", err)
	}
	return err
}

type quarantineLsCmd struct {
	serverFlags
}

func (c *quarantineLsCmd) Run(e *env) error {
	return c.withQuarantine(e, func(q daybookv1.QuarantineClient) error {
		r, err := q.ListQuarantined(e.ctx, &daybookv1.ListQuarantinedRequest{})
		if err != nil {
			return err
		}
		t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
		for i, m := range r.GetMessages() {
			if i == 0 {
				fmt.Fprintln(t, "ID\tAGE\tSIZE\tTIMES\tFROM\tREASON\tERROR")
			}
			first := &daybookv1.Refusal{}
			if len(m.GetRefusals()) > 0 {
				first = m.GetRefusals()[0]
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", m.GetId(), age(time.Since(m.GetKept().AsTime())), bytesText(m.GetSize()), m.GetArrivals(),
				sender(m, first.GetStream()), first.GetReason(), visible(clipText(first.GetError(), 80)))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if r.GetEvicted() > 0 {
			fmt.Fprintf(e.stderr, "daybook: %d older messages were pushed out since the server started\n", r.GetEvicted())
		}
		return nil
	})
}

// sender says whose message it is, as far as it says so.
func sender(m *daybookv1.QuarantinedMessage, stream string) string {
	if m.GetProject() == "" && m.GetPrefix() == "" {
		return "-"
	}
	text := m.GetProject() + "/" + m.GetPrefix()
	if stream != "" {
		text += "/+/" + stream
	}
	return visible(text)
}

// visible makes what a stranger sent harmless on a terminal.
func visible(text string) string {
	quoted := strconv.QuoteToGraphic(text)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1])
}

// clipText cuts a text at a number of characters.
func clipText(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}

type quarantineShowCmd struct {
	serverFlags
	ID    int64 `arg:"" help:"Id of the message, as daybook quarantine ls shows it."`
	Lines int   `help:"Show at most so many lines of each stream." short:"n" default:"10"`
}

func (c *quarantineShowCmd) Run(e *env) error {
	return c.withQuarantine(e, func(q daybookv1.QuarantineClient) error {
		r, err := q.GetQuarantined(e.ctx, &daybookv1.GetQuarantinedRequest{Id: c.ID})
		if err != nil {
			return err
		}
		out := bufio.NewWriter(e.stdout)
		c.print(out, r)
		return out.Flush()
	})
}

func (c *quarantineShowCmd) print(out io.Writer, r *daybookv1.GetQuarantinedResponse) {
	m := r.GetMessage()
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("id", "%d", m.GetId())
	row("kept", "%s, %s ago", m.GetKept().AsTime().Local().Format(time.DateTime), age(time.Since(m.GetKept().AsTime())))
	if m.GetArrivals() > 1 {
		row("arrived", "%d times since the server started", m.GetArrivals())
	}
	if m.GetJournal() != "" {
		row("journal", "%s, offset %d", m.GetJournal(), m.GetOffset())
	}
	row("size", "%s", bytesText(m.GetSize()))
	row("sha256", "%x", m.GetSha256())
	if r.GetBundle() == nil {
		row("content", "cannot be decoded: %s", visible(r.GetDecodeError()))
	} else {
		row("project", "%s", visible(r.GetBundle().GetProject()))
		row("prefix", "%s", visible(r.GetBundle().GetPrefix()))
		row("secret", "%d bytes, not shown", r.GetSecretLength())
	}
	for _, f := range m.GetRefusals() {
		what := "all of it"
		if f.GetStream() != "" {
			what = fmt.Sprintf("%s, %d entries", visible(f.GetStream()), f.GetEntries())
		}
		row("refused", "%s: %s: %s", what, f.GetReason(), visible(f.GetError()))
	}
	if more := m.GetRefused() - int64(len(m.GetRefusals())); more > 0 {
		row("", "and %d more", more)
	}
	_ = t.Flush() // out tells when it fails
	for _, b := range r.GetBundle().GetEntries() {
		c.printEntry(out, b)
	}
}

func (c *quarantineShowCmd) printEntry(out io.Writer, b *logpb.ButlerLogBundle_Entry) {
	name := "stream without a descriptor"
	if d := b.GetDesc(); d != nil {
		name = fmt.Sprintf("stream %s, %s, %s", visible(d.GetName()), d.GetStreamType(), visible(d.GetContentType()))
	}
	fmt.Fprintf(out, "\n%s", name)
	if n := len(b.GetLogs()); n > 0 {
		fmt.Fprintf(out, ", entries %d to %d", b.GetLogs()[0].GetStreamIndex(), b.GetLogs()[n-1].GetStreamIndex())
	}
	switch {
	case b.GetTerminal() && b.GetTerminalEmpty():
		fmt.Fprint(out, ", ends without an entry")
	case b.GetTerminal():
		fmt.Fprintf(out, ", ends at %d", b.GetTerminalIndex())
	}
	fmt.Fprintln(out)
	shown := 0
	for _, log := range b.GetLogs() {
		for _, line := range log.GetText().GetLines() {
			if shown++; shown > c.Lines {
				fmt.Fprintln(out, "  …")
				return
			}
			fmt.Fprintf(out, "  %s\n", visible(string(line.GetValue())))
		}
		if n := len(log.GetBinary().GetData()) + len(log.GetDatagram().GetData()); n > 0 {
			if shown++; shown > c.Lines {
				fmt.Fprintln(out, "  …")
				return
			}
			fmt.Fprintf(out, "  %d bytes\n", n)
		}
	}
}

// quarantineSelection says which messages are meant.
type quarantineSelection struct {
	IDs []int64 `arg:"" optional:"" name:"id" help:"Ids of messages, as daybook quarantine ls shows them."`
	All bool    `help:"All that there are."`
}

func (s *quarantineSelection) check() error {
	if s.All == (len(s.IDs) > 0) {
		return fault.New(fault.Invalid, "give either ids of messages or --all; daybook quarantine ls shows what there is")
	}
	return nil
}

type quarantineReplayCmd struct {
	serverFlags
	quarantineSelection
}

func (c *quarantineReplayCmd) Help() string {
	return "A message of which everything could be stored leaves the quarantine; one that is refused again stays, and the exit code is 1. Processing a message twice changes nothing."
}

func (c *quarantineReplayCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.withQuarantine(e, func(q daybookv1.QuarantineClient) error {
		r, err := q.ReplayQuarantined(e.ctx, &daybookv1.ReplayQuarantinedRequest{Ids: c.IDs})
		if err != nil {
			return err
		}
		failed := 0
		for _, result := range r.GetResults() {
			if result.GetStored() {
				fmt.Fprintf(e.stdout, "%d: stored\n", result.GetId())
				continue
			}
			failed++
			fmt.Fprintf(e.stdout, "%d: %s\n", result.GetId(), visible(result.GetError()))
		}
		if failed > 0 {
			return fault.New(fault.Precondition, "%d of %d messages were not stored", failed, len(r.GetResults()))
		}
		return nil
	})
}

type quarantineDropCmd struct {
	serverFlags
	quarantineSelection
}

func (c *quarantineDropCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.withQuarantine(e, func(q daybookv1.QuarantineClient) error {
		r, err := q.DropQuarantined(e.ctx, &daybookv1.DropQuarantinedRequest{Ids: c.IDs, All: c.All})
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "%d messages dropped\n", r.GetDropped())
		return nil
	})
}
