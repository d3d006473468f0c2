package main

import (
	"errors"
	"fmt"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsSuspendCmd struct {
	journalsFlags
	selectFlags
	Force bool `help:"Suspend also journals that are in use; what is not stored yet is stored then." short:"f"`
}

func (c *journalsSuspendCmd) Help() string {
	return "A suspended journal costs its brokers little or nothing, and wakes with the next append. Reads of it go on to work.\n\n" +
		"  daybook journals suspend -l name:prefix=acme/2024/ --force"
}

func (c *journalsSuspendCmd) Run(e *env) (err error) {
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	mode := protocol.AppendRequest_SUSPEND_IF_FLUSHED
	if c.Force {
		mode = protocol.AppendRequest_SUSPEND_NOW
	}
	outcomes := make([]string, len(journals))
	err = eachActive(journals, func(i int, s *protocol.JournalSpec) error {
		_, err := client.Append(e.ctx, jc, &protocol.AppendRequest{Journal: s.GetName(), Suspend: mode})
		switch {
		case errors.Is(err, client.ErrSuspended):
			outcomes[i] = "suspended"
		case err == nil:
			outcomes[i] = "not suspended: it has content that is not stored yet, or was just stored; --force suspends it all the same"
		default:
			return err
		}
		return nil
	})
	return errors.Join(printOutcomes(e, journals, outcomes), err)
}

// printOutcomes prints what became of each journal that was not suspended before.
func printOutcomes(e *env, journals []*protocol.ListResponse_Journal, outcomes []string) error {
	for i, outcome := range outcomes {
		name := journals[i].GetSpec().GetName()
		if isSuspended(journals[i].GetSpec()) {
			outcome = "suspended already"
		}
		if outcome == "" {
			continue // Its error is told.
		}
		if _, err := fmt.Fprintf(e.stdout, "%s: %s\n", name, outcome); err != nil {
			return err
		}
	}
	return nil
}
